"""`adopt` and `forget`: what a person has seen settles an unconfirmed job, and nothing is paid twice."""

from __future__ import annotations

from typing import Any

import pytest

from batch.output import lock
from batch.sandbox import FaultPlan

ROOT = "outputs/night"


class Doubt:
    """A folder with an unconfirmed job, at a provider that serves no look-up."""

    def __init__(
        self, shell: Any, sandbox: Any, *faults: str, jobs: int = 1, **options: Any
    ) -> None:
        self.shell = shell
        options = {"lookup": False, **options}
        self.box = sandbox(*(faults or ("submit:drop-after:first=1",)), **options)
        manifest = shell.manifest(jobs, limits={"max_in_flight": 1, "task_timeout": "1s"})
        self.args = ("run", manifest, "--base-url", self.box.base_url)
        assert shell(*self.args).code == 1

    @property
    def tasks(self) -> list[Any]:
        """The tasks at the provider."""
        return list(self.box.tasks)

    def adopt(self, *args: str, **options: Any) -> Any:
        """Call `adopt`."""
        return self.shell("adopt", ROOT, *args, **options)

    def forget(self, *args: str, **options: Any) -> Any:
        """Call `forget`."""
        return self.shell("forget", ROOT, *args, **options)

    def status(self) -> Any:
        """Return the status of the folder."""
        (found,) = self.shell("status", "--json", key=None).json
        return found


def test_adopted_task_is_collected_and_paid_once(shell: Any, sandbox: Any) -> None:
    doubt = Doubt(shell, sandbox)
    said = doubt.adopt("job-0", f" {doubt.tasks[0].task_id}\n")  # as it was copied from a page
    assert said.code == 0
    assert "next run" in said.out
    assert doubt.status()["tasks_paid"] == 1
    assert doubt.status()["unconfirmed"] == []
    ended = shell(*doubt.args, "--json")
    assert ended.code == 0
    assert (ended.json["tasks_created"], ended.json["outcomes"]) == (0, {"succeeded": 1})
    assert doubt.box.stats.created == doubt.box.stats.posts == 1


def test_forgotten_job_is_submitted_anew(shell: Any, sandbox: Any) -> None:
    """Under another external id: the first was lost before the provider created anything."""
    doubt = Doubt(shell, sandbox, "submit:drop-before:first=1")
    (before,) = doubt.status()["unconfirmed"]
    said = doubt.forget("job-0", "--yes")
    assert said.code == 0
    assert "submits the job again" in said.out
    assert doubt.status()["figures"]["perhaps_paid"] == 0
    assert shell(*doubt.args).code == 0
    assert doubt.box.stats.created == 1
    assert doubt.tasks[0].external_task_id != before["external_task_id"]


def test_task_of_another_job_is_refused(shell: Any, sandbox: Any) -> None:
    """Also where that job's task is not known yet, since the answer names its external id."""
    doubt = Doubt(shell, sandbox, "submit:drop-after:first=2", jobs=3)
    for task, words in zip(doubt.tasks[1:], ("it is another one", "'job-2'"), strict=True):
        said = doubt.adopt("job-0", task.task_id)
        assert said.code == 2
        assert words in said.err
    assert len(doubt.status()["unconfirmed"]) == 2


def test_task_without_external_id_is_adopted(shell: Any, sandbox: Any) -> None:
    """A provider that does not tell it leaves the word of the person."""
    doubt = Doubt(shell, sandbox, tells_external_id=False)
    assert doubt.adopt("job-0", doubt.tasks[0].task_id).code == 0
    assert shell(*doubt.args).code == 0
    assert doubt.box.stats.created == 1


def test_unknown_task_changes_nothing(shell: Any, sandbox: Any) -> None:
    doubt = Doubt(shell, sandbox)
    before = doubt.status()
    said = doubt.adopt("job-0", "999999999999999999")
    assert said.code == 1
    assert "finds no task 999999999999999999" in said.err
    assert doubt.status() == before


@pytest.mark.parametrize("command", ["adopt", "forget"])
def test_key_of_another_account_is_refused(shell: Any, sandbox: Any, command: str) -> None:
    doubt = Doubt(shell, sandbox)
    more = (doubt.tasks[0].task_id,) if command == "adopt" else ("--yes",)
    said = shell(command, ROOT, "job-0", *more, key="sk-another-0123456789")
    assert said.code == 2
    assert "submitted with another key" in said.err
    assert doubt.status()["unconfirmed"]


def test_refused_account_ends_with_4(shell: Any, sandbox: Any) -> None:
    doubt = Doubt(shell, sandbox)
    doubt.box.set_faults(FaultPlan.from_strings(["any:401"]))
    assert doubt.adopt("job-0", doubt.tasks[0].task_id).code == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("adopt", ROOT, "jbo-0", "1"), "did you mean 'job-0'?"),
        (("forget", ROOT, "jbo-0", "--yes"), "did you mean 'job-0'?"),
        (("forget", ROOT, "job-1", "--yes"), "is not unconfirmed"),
        (("forget", ROOT, "job-0"), "--yes"),
        (("adopt", "outputs/nihgt", "job-0", "1"), "not an output folder"),
        (("adopt", ROOT, "job-0"), "TASK_ID"),
    ],
)
def test_wrong_usage_changes_nothing(
    shell: Any, sandbox: Any, args: tuple[str, ...], words: str
) -> None:
    doubt = Doubt(shell, sandbox, jobs=2)
    before = doubt.status()
    said = shell(*args)
    assert said.code == 2
    assert words in said.err
    assert doubt.status() == before


def test_found_task_is_not_forgotten(shell: Any, sandbox: Any) -> None:
    """The provider is asked before the job may be paid for again."""
    doubt = Doubt(shell, sandbox, "submit:drop-after:first=1", "lookup:500", lookup=True)
    doubt.box.set_faults(FaultPlan())
    said = doubt.forget("job-0", "--yes")
    assert said.code == 1
    assert f"as task {doubt.tasks[0].task_id}" in said.err
    assert doubt.status()["unconfirmed"]


def test_forgetting_needs_no_key(shell: Any, sandbox: Any) -> None:
    doubt = Doubt(shell, sandbox, "submit:drop-before:first=1")
    assert doubt.forget("job-0", "--yes", key=None).code == 0


def test_folder_of_a_run_is_locked(shell: Any, sandbox: Any) -> None:
    doubt = Doubt(shell, sandbox, jobs=2, median_s=0.05)
    task_id = doubt.tasks[0].task_id
    with shell.running("status", "--watch"):
        assert doubt.adopt("job-0", task_id).code == 0, "a reader holds nothing"
    with lock.hold(shell.folder / ROOT / ".kling-batch/lock"):
        assert doubt.adopt("job-0", task_id).code == 75
        assert doubt.forget("job-0", "--yes").code == 75
