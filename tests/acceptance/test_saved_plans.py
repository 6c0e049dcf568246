"""`plan --out FILE` and `run --plan FILE`: a run pays for what was looked at, and for nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

PRICES = {"kling-v2-6": {"std": 0.20, "pro": 0.40}}
FOX, DEER, HARE = ({"id": name, "prompt": f"A {name}"} for name in ("fox", "deer", "hare"))


def library(shell: Any, box: Any, *jobs: Any, **keys: Any) -> tuple[Any, ...]:
    """Return the arguments for a library with known prices."""
    manifest = shell.manifest(list(jobs), **{"prices": PRICES, **keys})
    return (manifest, "--base-url", box.base_url)


def save(shell: Any, *args: Any, code: int = 0) -> Any:
    """Save a plan as plan.json, and return it."""
    said = shell("plan", *args, "--out", "plan.json")
    assert said.code == code
    return json.loads((shell.folder / "plan.json").read_text("utf-8"))


def by_plan(shell: Any, *args: Any) -> Any:
    return shell("run", *args, "--plan", "plan.json", "--json")


def test_saved_plan_says_what_is_paid_for(shell: Any, sandbox: Any) -> None:
    saved = save(shell, *library(shell, sandbox(), FOX, DEER))
    folder = shell.folder / "outputs/night"
    assert (saved["kind"], saved["schema"]) == ("kling-batch plan", 1)
    assert (saved["name"], saved["output_dir"]) == ("night", str(folder.resolve()))
    assert (saved["library"], saved["sandbox"], saved["cost_usd"]) == (None, False, 0.4)
    fox, deer = saved["jobs"]
    assert fox == {
        "job_id": "fox",
        "fingerprint": fox["fingerprint"],
        "action": "new",
        "paid": 0,
        "cost_usd": 0.2,
    }
    assert deer["job_id"] == "deer"
    assert not folder.exists(), "a plan leaves nothing in the folder"


def test_run_pays_for_the_saved_plan(shell: Any, sandbox: Any) -> None:
    """A second time all is done: unchanged, exit 0."""
    box = sandbox()
    args = library(shell, box, FOX, DEER)
    save(shell, *args)
    assert by_plan(shell, *args).code == 0
    again = by_plan(shell, *args)
    assert (again.code, again.json["planned"]) == (0, {"unchanged": 2})
    assert box.stats.created == 2


def test_later_changes_are_left_and_named(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    save(shell, *library(shell, box, FOX, DEER))
    args = library(shell, box, FOX, {**DEER, "prompt": "Two deer"}, HARE)
    said = by_plan(shell, *args)
    assert said.code == 3
    assert said.json["stopped"] == (
        "2 jobs are left by the saved plan: 'deer' was changed after the plan was saved; 'hare' is not"
        " in the saved plan; plan again to go on"
    )
    assert (box.stats.created, said.json["left"]) == (1, 2)
    assert shell("run", *args).code == 0
    assert box.stats.created == 3


def test_dearer_job_is_left(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    save(shell, *library(shell, box, FOX, DEER))
    dearer = {"kling-v2-6": {"std": 0.21}}
    said = by_plan(shell, *library(shell, box, FOX, prices=dearer))
    assert said.code == 3
    assert "'fox' costs $0.21 by now, and $0.20 in the saved plan" in said.json["stopped"]
    assert box.stats.created == 0


def test_plan_by_a_saved_plan_shows_the_difference(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    save(shell, *library(shell, box, FOX))
    args = (*library(shell, box, FOX, HARE), "--plan", "plan.json")
    said = shell("plan", *args)
    assert "1 job is left by the saved plan: 'hare' is not in the saved plan" in said.out
    assert "to pay for: 1 task, about $0.20" in said.out
    held = {job["job_id"]: job["held"] for job in shell("plan", *args, "--json").json["jobs"]}
    assert held == {"fox": None, "hare": "is not in the saved plan"}


# -- once, at most at its price


def test_killed_run_by_a_plan_goes_on(shell: Any, sandbox: Any) -> None:
    box = sandbox(median_s=0.5)
    args = library(shell, box, FOX, DEER, HARE, limits={"max_in_flight": 1})
    save(shell, *args)
    with shell.running("run", *args, "--plan", "plan.json") as process:
        shell.until(lambda: box.stats.created == 2)
        process.kill()
        process.wait()
    said = by_plan(shell, *args)
    assert said.code == 0
    assert box.stats.created == 3


def test_lost_request_of_the_plan_is_sent_again(shell: Any, sandbox: Any) -> None:
    """It is looked up, absent, and sent once more under its own id."""
    box = sandbox("submit:drop-before:first=1")
    args = library(shell, box, FOX, DEER)
    save(shell, *args)
    assert by_plan(shell, *args).code == 0
    assert box.stats.created == 2


def test_failed_task_is_not_paid_for_again(shell: Any, sandbox: Any) -> None:
    """Each job once: neither in this run nor in another by the same plan."""
    box = sandbox("outcome:generation:first=1")
    args = library(shell, box, FOX, DEER, limits={"max_in_flight": 1})
    save(shell, *args)
    said = by_plan(shell, *args)
    assert (said.code, said.json["outcomes"]) == (1, {"failed": 1, "succeeded": 1})
    again = by_plan(shell, *args)
    assert again.code == 3
    assert "'fox' was paid for after the plan was saved, and failed" in again.json["stopped"]
    assert box.stats.created == 2
    assert shell("run", *args).code == 0
    assert box.stats.created == 3


def test_open_task_of_another_job_is_collected_and_not_retried(shell: Any, sandbox: Any) -> None:
    """What is paid for comes home whatever the plan; a new attempt for it is not in the plan."""
    box = sandbox("outcome:generation:first=1", median_s=0.5)
    with shell.running("run", *library(shell, box, FOX)) as process:
        shell.until(lambda: box.stats.created == 1)
        process.kill()
        process.wait()
    args = library(shell, box, FOX, DEER)
    saved = save(shell, *args)
    assert [job["job_id"] for job in saved["jobs"]] == ["deer"]
    said = by_plan(shell, *args)
    assert said.json["outcomes"] == {"failed": 1, "succeeded": 1}
    assert box.stats.created == 2


def test_forced_plan_regenerates_once(shell: Any, sandbox: Any) -> None:
    """A second run by it begins no new round, and leaves no unfinished one."""
    box = sandbox()
    args = library(shell, box, FOX, DEER)
    shell("run", *args)
    save(shell, *args, "--force", "--select", "fox")
    refused = by_plan(shell, *args)
    assert refused.code == 2
    assert "was planned with --force; add --force" in refused.out
    said = by_plan(shell, *args, "--force")
    assert said.code == 3
    assert "'deer' is not in the saved plan" in said.json["stopped"]
    assert box.stats.created == 3
    done = by_plan(shell, *args, "--force", "--select", "fox")
    assert (done.code, done.json["planned"]) == (0, {"unchanged": 1})
    assert box.stats.created == 3
    assert shell("plan", *args, "--json").json["unfinished_round"] == 0


# -- what it is for


def test_plan_of_another_folder_is_wrong_usage(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    args = library(shell, box, FOX)
    save(shell, *args)
    said = by_plan(shell, *args, "--output-dir", "elsewhere")
    assert said.code == 2
    assert "is a plan for another folder" in said.out
    assert not (shell.folder / "elsewhere").exists()
    assert box.stats.posts == 0


def test_plan_follows_its_library(shell: Any, sandbox: Any) -> None:
    """It is known by its id, wherever it lies, and another in its place is not it."""
    box = sandbox()
    shell("run", *library(shell, box, FOX))
    args = library(shell, box, FOX, DEER)
    save(shell, *args)
    (shell.folder / "outputs/night").rename(shell.folder / "moved")
    assert by_plan(shell, *args).code == 2
    assert by_plan(shell, *args, "--output-dir", "moved").code == 0
    assert box.stats.created == 2


def test_plan_of_the_sandbox_is_not_for_real(shell: Any, sandbox: Any) -> None:
    manifest = shell.manifest([FOX])
    save(shell, manifest, "--sandbox")
    box = sandbox()
    assert by_plan(shell, manifest, "--base-url", box.base_url).code == 2
    assert box.stats.posts == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("", "it is not a saved plan; `kling-batch plan --out` writes one"),
        ("[1]", "it is not a saved plan"),
        ('{"schema": 1, "jobs": []}', "it is not a saved plan"),
        ('{"kind": "kling-batch plan", "schema": 2}', "it has schema 2, and this release reads 1"),
        ('{"kind": "kling-batch plan", "schema": 1}', "it lacks something"),
        ("\xff", "it is not a saved plan"),
    ],
)
def test_file_that_is_no_plan_is_wrong_usage(shell: Any, text: str | None, told: str) -> None:
    if text is not None:
        (shell.folder / "plan.json").write_bytes(text.encode("latin-1"))
    said = shell("run", shell.manifest(1), "--plan", "plan.json")
    assert said.code == 2
    assert told in said.err


def test_place_that_takes_no_file_is_wrong_usage(shell: Any) -> None:
    said = shell("plan", shell.manifest(1), "--out", "away/plan.json")
    assert said.code == 2
    assert "the plan cannot be saved as away/plan.json (No such file or directory)" in said.err


def test_saved_plan_replaces_an_older_one(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    save(shell, *library(shell, box, FOX))
    assert len(save(shell, *library(shell, box, FOX, DEER))["jobs"]) == 2
    assert [path.name for path in shell.folder.glob("plan*")] == ["plan.json"]


def test_budget_still_counts_under_a_plan(shell: Any, sandbox: Any) -> None:
    box = sandbox()
    args = library(shell, box, FOX, DEER, limits={"budget": 0.2})
    save(shell, *args)
    assert by_plan(shell, *args).code == 3
    assert box.stats.created == 1
