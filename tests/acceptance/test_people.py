"""What people do between two nights: rename, sort, swap, force, mistake a folder. Paid once."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

FOX, DEER, OWL = "A red fox in tall grass", "A deer at dawn", "An owl at night"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Library:
    """A manifest, its output folder, and the provider that counts what was paid."""

    def __init__(self, shell: Any, provider: Any) -> None:
        self.shell = shell
        self.provider = provider
        self.root = shell.folder / "outputs" / "night"

    def night(self, jobs: Any, *flags: str, code: int = 0, **keys: Any) -> dict[str, Any]:
        """Run a manifest of these jobs; return its summary."""
        if isinstance(jobs, dict):
            jobs = [{"id": name, "prompt": prompt} for name, prompt in jobs.items()]
        self.shell.manifest(jobs, **keys)
        said = self.shell("run", "night.yaml", "--base-url", self.url, "--json", *flags)
        assert said.code == code, said.err
        summary: dict[str, Any] = said.json
        return summary

    def plan(self, *flags: str) -> dict[str, Any]:
        """Return the plan of the latest manifest."""
        plan: dict[str, Any] = self.shell("plan", "night.yaml", "--json", *flags).json
        return plan

    @property
    def url(self) -> str:
        return str(self.provider.base_url)

    @property
    def paid(self) -> int:
        """How many tasks the provider has created."""
        return len(self.provider.tasks)

    def videos(self) -> dict[str, bytes]:
        """Read the videos by job id."""
        folder = self.root / "videos"
        return {
            str(path.relative_to(folder).with_suffix("")): path.read_bytes()
            for path in folder.rglob("*.mp4")
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows."""
        lines = (self.root / "results.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def library(shell: Any, sandbox: Callable[..., Any]) -> Library:
    return Library(shell, sandbox(clip="prompt"))


@pytest.fixture
def slow_library(shell: Any, sandbox: Callable[..., Any]) -> Library:
    """A provider that needs longer than the first night waits."""
    return Library(shell, sandbox(median_s=0.6))


# -- moved


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fox", "animals/red-fox"),
        ("001", "1"),
        ("Fox", "fox"),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_renamed_job_is_moved(library: Library, before: str, after: str) -> None:
    library.night({before: FOX, "deer": DEER})
    video = library.videos()[before]
    jobs = [{"id": "deer", "prompt": DEER}, {"id": after, "prompt": FOX, "tags": ["wild"]}]
    summary = library.night(jobs)

    assert (library.paid, summary["planned"]) == (2, {"moved": 1, "unchanged": 1})
    assert library.videos().keys() == {"deer", after}
    assert library.videos()[after] == video
    row = library.rows()[-1]
    assert (row["job_id"], row["status"]) == (after, "succeeded")
    assert row["file"] == f"videos/{after}.mp4"
    assert (row["warnings"], row["tags"]) == ([f"taken over from {before!r}"], ["wild"])
    assert library.night({"deer": DEER, after: FOX})["planned"] == {"unchanged": 2}


def test_summary_tells_of_moves(library: Library) -> None:
    library.night({"a": FOX, "b": DEER})
    library.shell.manifest([{"id": "c", "prompt": FOX}, {"id": "b", "prompt": DEER}])
    said = library.shell("run", "night.yaml", "--base-url", library.url)
    assert said.out.splitlines()[0] == "night: 1 moved, 1 unchanged"


def test_swapped_names_swap_videos(library: Library) -> None:
    library.night({"a": FOX, "b": DEER, "c": OWL})
    before = library.videos()
    library.night({"a": DEER, "b": OWL, "c": FOX})

    assert library.paid == 3
    assert library.videos() == {"a": before["b"], "b": before["c"], "c": before["a"]}
    assert library.night({"a": DEER, "b": OWL, "c": FOX})["planned"] == {"unchanged": 3}


@pytest.mark.parametrize("first", ["a", "b"])
def test_swapped_names_may_be_selected_one_by_one(library: Library, first: str) -> None:
    """A job that is not selected vacates no name, and its video is not called another's."""
    before = library.night({"a": FOX, "b": DEER}) and library.videos()
    swapped = {"a": DEER, "b": FOX}
    assert library.night(swapped, "--select", first)["tasks_created"] == 0
    assert library.videos()[first] == before[{"a": "b", "b": "a"}[first]]
    assert library.night(swapped)["tasks_created"] == 0
    assert library.videos() == {"a": before["b"], "b": before["a"]}


def test_name_taken_by_another_request_moves_both(library: Library) -> None:
    """The old name asks for something new; the old video goes with its request."""
    library.night({"fox": FOX})
    before = library.videos()["fox"]
    library.night({"fox": OWL, "red-fox": FOX})

    assert library.paid == 2
    assert library.videos()["red-fox"] == before
    assert library.videos()["fox"] != before


@pytest.mark.parametrize(
    "change",
    [
        {"count": 1},
        {"sound": "off"},
        {"cfg_scale": 0.5},
        {"mode": "std"},
        {"duration": "5", "aspect_ratio": "16:9", "tags": ["x"]},
    ],
)
def test_job_spelled_otherwise_is_not_paid_again(library: Library, change: dict[str, Any]) -> None:
    library.night([{"id": "fox", "prompt": FOX}])
    summary = library.night([{"id": "fox", "prompt": FOX, **change}])
    assert library.paid == 1
    assert summary["planned"].keys() <= {"unchanged", "moved"}


@pytest.mark.parametrize("new", ["sub/fox", "sub/Fox", "Sub/fox"])
def test_video_in_a_folder_of_another_case_keeps_no_second_name(library: Library, new: str) -> None:
    """The names differ by case only, and the folders are two."""
    library.night({"Sub/Fox": FOX})
    library.night({new: FOX})
    assert library.paid == 1
    assert library.videos().keys() == {new}


def test_former_request_under_another_case_takes_all_of_its_job(library: Library) -> None:
    """They are one id: no second video of it stays behind, where some disks know one name for both."""
    library.night({"Fox": FOX})
    library.night({"Fox": DEER})
    former, latest = library.rows()[0]["sha256"], library.rows()[1]["sha256"]
    library.night({"fox": FOX})
    assert sha256(library.videos()["fox"]) == former
    assert (set(library.videos()), library.paid) == ({"fox"}, 2)
    assert library.plan()["counts"]["orphaned"] == 0
    library.night({"FOX": DEER})
    assert sha256(library.videos()["FOX"]) == latest
    assert (set(library.videos()), library.paid) == ({"FOX"}, 2)


def test_count_raised_pays_for_new_variants_only(library: Library) -> None:
    library.night([{"id": "fox", "prompt": FOX}])
    library.night([{"id": "fox", "prompt": FOX, "count": 3}])
    assert library.paid == 3
    assert library.videos().keys() == {"fox-1", "fox-2", "fox-3"}


def test_one_of_two_equal_orphans_is_moved(library: Library) -> None:
    """One to one: the second job of the same request is paid for, the third is not known."""
    library.night({"a": FOX, "b": FOX})
    summary = library.night({"x": FOX, "y": FOX, "z": FOX})
    assert library.paid == 3
    assert summary["planned"] == {"moved": 2, "new": 1}


def test_no_move_pays_again(library: Library) -> None:
    library.night({"fox": FOX})
    summary = library.night({"red-fox": FOX}, "--no-move")
    assert library.paid == 2
    assert summary["planned"] == {"new": 1, "orphaned": 1}


def test_open_task_goes_along(slow_library: Library) -> None:
    slow_library.night({"fox": FOX}, code=1, limits={"task_timeout": "100ms"})
    slow_library.night({"red-fox": FOX})
    assert slow_library.paid == 1
    assert slow_library.videos().keys() == {"red-fox"}


def test_moderation_goes_along(shell: Any, sandbox: Callable[..., Any]) -> None:
    """A prompt that rests is not paid for under another name."""
    library = Library(shell, sandbox("outcome:moderation"))
    library.night({"fox": FOX}, code=1)
    summary = library.night({"red-fox": FOX}, code=1)
    assert (library.paid, summary["planned"]) == (1, {"resting": 1})


def test_plan_says_what_moves_and_what_changed(library: Library) -> None:
    library.night({"fox": FOX, "deer": DEER})
    library.shell.manifest(
        [
            {"id": "red-fox", "prompt": FOX},
            {"id": "deer", "prompt": DEER, "mode": "pro"},
        ]
    )
    said = library.shell("plan", "night.yaml").out
    assert "moved      red-fox: was 'fox', same request; its video is taken over" in said
    assert "changed    deer: mode std → pro" in said
    jobs = {job["job_id"]: job for job in library.plan()["jobs"]}
    assert jobs["deer"]["changes"] == [{"option": "mode", "from": "std", "to": "pro"}]
    assert jobs["red-fox"]["moved_from"] == "fox"


# -- a library that is not where it was


def test_new_library_is_refused(shell: Any, sandbox: Callable[..., Any]) -> None:
    provider = sandbox()
    shell.manifest(3, base_url=provider.base_url)
    said = shell("run", "night.yaml", new=False)
    assert said.code == 2
    assert str(shell.folder / "outputs" / "night") in said.err
    assert "3 videos, about $0.63" in said.err
    assert "--new" in said.err
    assert not provider.tasks
    assert not (shell.folder / "outputs").exists()
    assert "a new library at" in shell("plan", "night.yaml").out
    assert not (shell.folder / "outputs").exists()


@pytest.mark.parametrize("flags", [(), ("--sandbox",)])
def test_detached_run_without_a_fleet_makes_nothing(
    shell: Any, sandbox: Any, flags: tuple[str, ...]
) -> None:
    """A folder that it left behind would count as a library that was asked for."""
    box = sandbox()
    manifest = shell.manifest(1, base_url=box.base_url)
    said = shell("run", manifest, "--detach", *flags)
    assert (said.code, "--detach is for the runs of a fleet" in said.err) == (2, True)
    assert not (shell.folder / "outputs").exists()
    assert shell("run", manifest, new=False).code == 2
    assert box.stats.created == 0


@pytest.mark.parametrize("is_there", [True, False])
def test_library_whose_state_is_empty_is_not_bought_again(library: Library, is_there: bool) -> None:
    """A power cut may leave files without a byte."""
    library.night({"fox": FOX})
    state = library.root / ".kling-batch" / "state.db"
    (library.root / "results.jsonl").write_bytes(b"")
    if is_there:
        state.write_bytes(b"")
    else:
        shutil.rmtree(state.parent)

    said = library.shell("run", "night.yaml", new=False)
    assert (said.code, library.paid) == (2, 1)
    assert "it has videos, but no state of the runs that made them" in said.err
    assert library.plan()["new_library"]


def test_known_library_needs_no_new(shell: Any, sandbox: Callable[..., Any]) -> None:
    provider = sandbox()
    shell.manifest(1, base_url=provider.base_url)
    assert shell("run", "night.yaml").code == 0
    shell.manifest(2, base_url=provider.base_url)
    assert shell("run", "night.yaml", new=False).code == 0
    assert len(provider.tasks) == 2


@pytest.mark.parametrize(("answer", "code", "paid"), [(b"y\n", 0, 1), (b"n\n", 2, 0)])
def test_terminal_is_asked(
    shell: Any, sandbox: Callable[..., Any], answer: bytes, code: int, paid: int
) -> None:
    provider = sandbox()
    shell.manifest(1, base_url=provider.base_url)
    master, slave = pty.openpty()
    os.write(master, answer)
    done = subprocess.run(
        [*shell.command, "run", "night.yaml", "--progress", "never"],
        cwd=shell.folder,
        env=shell.env("sk-verysecretkey0123456789", {}),
        stdin=slave,
        stderr=slave,
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(slave)
    said = os.read(master, 65_536).decode()
    os.close(master)
    assert (done.returncode, len(provider.tasks)) == (code, paid)
    assert f"{shell.folder}/outputs/night is a new library" in said.replace("\r\n", "")


# -- a backup


def test_restored_state_takes_in_what_was_made_and_renamed(library: Library) -> None:
    library.night({"a": FOX})
    state, backup = library.root / ".kling-batch", library.shell.folder / "backup"
    shutil.copytree(state, backup)
    library.night({"a": FOX, "b": DEER})
    library.night({"a": FOX, "c": DEER})
    shutil.rmtree(state)
    shutil.copytree(backup, state)
    assert library.night({"a": FOX, "c": DEER})["planned"] == {"unchanged": 2}
    assert library.paid == 2


def test_restored_state_knows_which_video_was_displaced(library: Library) -> None:
    """Only the rows tell of the change: the video that stands is not the one that the state knew."""
    library.night({"fox": FOX})
    state = library.root / ".kling-batch" / "state.db"
    shutil.copy(state, library.shell.folder / "state.db")
    first = library.videos()["fox"]
    library.night({"fox": DEER})
    second = library.videos()["fox"]
    shutil.copy(library.shell.folder / "state.db", state)

    assert library.night({"fox": DEER})["planned"] == {"unchanged": 1}
    listed = library.shell("restore", "outputs/night", "fox", "--list").out
    assert (listed.count("current"), listed.count("versions/fox/")) == (1, 1)
    assert library.shell("restore", "outputs/night", "fox").code == 0
    assert library.videos()["fox"] == first
    assert library.shell("restore", "outputs/night", "fox", "--unpin").code == 0
    library.night({"fox": DEER})
    assert library.videos()["fox"] == second
    library.night({"fox": FOX})
    assert (library.videos()["fox"], library.paid) == (first, 2)


def test_restored_state_finds_a_renamed_video_where_it_stands(library: Library) -> None:
    """The provider may keep it no longer."""
    library.night({"fox": FOX})
    state, backup = library.root / ".kling-batch", library.shell.folder / "backup"
    shutil.copytree(state, backup)
    library.night({"red-fox": FOX})
    shutil.rmtree(state)
    shutil.copytree(backup, state)
    video = library.videos()
    with urllib.request.urlopen(f"{library.url}/sandbox/reset", data=b"", timeout=PATIENCE_S):
        library.night({"red-fox": FOX}, limits={"task_timeout": "1s"})
    assert library.paid == 0
    assert library.videos() == video
    assert library.night({"red-fox": FOX})["planned"] == {"unchanged": 1}


def test_restored_backup_of_equal_jobs_pays_nothing(library: Library) -> None:
    """Which of the equal jobs comes first by now does not matter."""
    library.night({"a": FOX})
    shutil.copytree(library.root, library.shell.folder / "backup")
    library.night({"a": FOX, "b": FOX})
    shutil.rmtree(library.root)
    shutil.copytree(library.shell.folder / "backup", library.root)
    library.night({"b": FOX, "a": FOX})
    assert library.paid == 2


def test_restored_backup_of_renamed_jobs_pays_nothing(library: Library) -> None:
    """A week of renames and swaps is forgotten, and so are the videos made in it."""
    library.night({"a": FOX})
    shutil.copytree(library.root, library.shell.folder / "backup")
    library.night({"a": FOX, "b": DEER, "c": OWL})
    library.night({"x": FOX, "c": DEER, "b": OWL})
    before = library.videos()
    shutil.rmtree(library.root)
    shutil.copytree(library.shell.folder / "backup", library.root)
    library.night({"x": FOX, "c": DEER, "b": OWL})
    assert library.paid == 3
    assert library.videos() == before


# -- force


def test_forced_round_goes_on_and_ends(library: Library) -> None:
    jobs = {f"job-{number}": f"fox number {number}" for number in range(6)}
    library.night(jobs)
    made = []
    for night in range(3):
        before = library.paid
        library.night(jobs, "--force", "--budget", "0.42", code=3 if night < 2 else 0)
        made += [task.prompt for task in library.provider.tasks[before:]]
    assert sorted(made) == sorted(jobs.values())

    library.night(jobs, "--force", "--budget", "0.42", code=3)  # another round
    assert library.paid == 14
    plan = library.plan()
    assert plan["unfinished_round"] == 4
    assert plan["counts"]["unchanged"] == 6
    assert library.night(jobs)["tasks_created"] == 0


def test_force_of_a_selection_is_a_round_of_its_own(library: Library) -> None:
    jobs = {"a": FOX, "b": DEER}
    library.night(jobs)
    library.night(jobs, "--force", "--select", "a")
    library.night(jobs, "--force", "--select", "b")
    assert [task.prompt for task in library.provider.tasks[2:]] == [FOX, DEER]


def test_plain_run_pays_for_no_failed_round(shell: Any, sandbox: Callable[..., Any]) -> None:
    """The video that the round was to replace stands; --force goes on with the round."""
    library = Library(shell, sandbox("outcome:generation:after=1,until=3"))
    limits = {"max_attempts_per_run": 1}
    library.night({"a": FOX}, limits=limits)
    library.night({"a": FOX}, "--force", code=1, limits=limits)
    assert library.night({"a": FOX}, limits=limits)["planned"] == {"unchanged": 1}
    assert library.paid == 2
    (status,) = shell("status", library.root, "--json").json
    assert "--force goes on" in status["failed"][0]["to_do"]
    library.night({"a": FOX}, "--force", code=1, limits=limits)
    library.night({"a": FOX}, "--force", limits=limits)
    assert library.paid == 4


def test_forced_round_goes_along_with_a_rename(library: Library) -> None:
    library.night({"a": FOX, "b": DEER})
    library.night({"a": FOX, "b": DEER}, "--force", "--budget", "0.21", code=3)
    library.night({"x": FOX, "y": DEER}, "--force")
    assert [task.prompt for task in library.provider.tasks[2:]] == [FOX, DEER]


# -- a plan that is dearer than it may be


def test_dear_plan_submits_nothing(slow_library: Library) -> None:
    """What is paid for already is collected."""
    slow_library.night({"a": FOX}, code=1, limits={"task_timeout": "100ms"})
    jobs = {"a": FOX, "b": DEER, "c": OWL}
    summary = slow_library.night(jobs, "--max-plan-cost", "0.30", code=3)
    assert slow_library.paid == 1
    assert slow_library.videos().keys() == {"a"}
    assert "max_plan_cost" in summary["stopped"]


def test_manifest_may_set_the_highest_plan_cost(library: Library) -> None:
    library.night({"a": FOX, "b": DEER}, code=3, limits={"max_plan_cost": "0.30"})
    assert library.paid == 0


def test_videos_of_moved_jobs_have_one_name(library: Library) -> None:
    """No file is left without an owner."""
    library.night({"a": FOX, "b": DEER})
    library.night({"b": FOX, "a": DEER})
    assert len(list(Path(library.root).rglob("*.mp4"))) == 2


def test_reverted_and_renamed_job_leaves_no_copies(library: Library) -> None:
    """A version that is wanted again leaves its former name."""
    for job_id, prompt in (("a", FOX), ("a", DEER), ("a", FOX), ("b", FOX), ("b", DEER)):
        library.night({job_id: prompt})
    assert library.paid == 2
    assert len(list(Path(library.root).rglob("*.mp4"))) == 2


def test_name_of_a_missed_video_goes_to_one_job(library: Library) -> None:
    """A video that comes to a name is not taken for the one that was missed there."""
    library.night({"fox": FOX})
    fox = library.videos()["fox"]
    (library.root / "videos/fox.mp4").unlink()
    library.night({"Fox": DEER})
    library.night({"fox": DEER})
    assert library.night({"fox": FOX})["planned"] == {"fetch": 1}
    assert (library.videos(), library.paid) == ({"fox": fox}, 2)


def test_pipe_in_the_place_of_a_video_is_replaced(library: Library) -> None:
    """Nobody writes into it, so it would be waited for with the folder locked."""
    library.night({"fox": FOX})
    video = library.root / "videos" / "fox.mp4"
    before = video.read_bytes()
    video.unlink()
    os.mkfifo(video)
    assert library.plan()["counts"]["fetch"] == 1
    library.night({"fox": FOX})
    assert (video.read_bytes(), library.paid) == (before, 1)
    video.unlink()
    os.mkfifo(video)
    library.night({"fox": DEER})
    assert library.videos()["fox"] != before
    assert library.paid == 2
