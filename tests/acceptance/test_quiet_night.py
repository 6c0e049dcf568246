"""A night by memory: as quiet as one that reads the manifest, and only where nothing is to be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FILE = Path("outputs/night/.kling-batch/manifest.json")
JOBS = [
    {"id": "a", "prompt": "fox"},
    {"id": "b", "prompt": "deer", "model": "kling-v1"},  # retired: a warning
    {"id": "bad", "prompt": "sandbox:moderation"},
]


@pytest.fixture
def night(shell: Any, sandbox: Any) -> Any:
    """Give a folder after its first night, and what runs the next one."""
    box = sandbox()
    manifest = shell.manifest(JOBS, name="night.yaml")

    def run(*args: Any, **env: Any) -> Any:
        return shell("run", manifest, "--base-url", box.base_url, "--json", *args, **env)

    run.box, run.shell, run.manifest = box, shell, manifest  # type: ignore[attr-defined]
    assert run().json["tasks_created"] == 3
    return run


def forget(night: Any) -> None:
    (night.shell.folder / FILE).unlink()


def imported(night: Any) -> str:
    """Return the modules that a quiet night imports."""
    err: str = night(PYTHONPROFILEIMPORTTIME="1").err
    return err


def test_a_remembered_night_reads_no_manifest(night: Any) -> None:
    assert "batch.manifest.yaml_events" not in imported(night)
    forget(night)
    assert "batch.manifest.yaml_events" in imported(night)
    assert "batch.manifest.yaml_events" not in imported(night)


def test_a_remembered_night_says_what_another_says(night: Any) -> None:
    """The same summary, the same warning, the same failure that rests, the same exit code."""
    by_memory = night()
    forget(night)
    by_reading = night()
    told = [{**said.json, "run_id": ""} for said in (by_memory, by_reading)]
    assert told[0] == told[1]
    assert told[0]["planned"] == {"unchanged": 2, "resting": 1}
    assert by_memory.code == by_reading.code == 1
    assert by_memory.err == by_reading.err
    assert "kling-v1" in by_memory.err


def test_a_changed_manifest_is_read(night: Any) -> None:
    jobs = [{**JOBS[0], "prompt": "hare"}, *JOBS[1:]]
    night.shell.manifest(jobs, name="night.yaml")
    assert night().json["planned"]["changed"] == 1


def test_a_missing_video_is_fetched(night: Any) -> None:
    """Without paying again."""
    video = night.shell.folder / "outputs/night/videos/a.mp4"
    video.unlink()
    summary = night().json
    assert summary["planned"]["fetch"] == 1
    assert summary["tasks_created"] == 0
    assert video.exists()


@pytest.mark.parametrize(
    ("flags", "planned"),
    [
        (["--force", "--select", "a"], {"forced": 1}),
        (["--retry-failed"], {"unchanged": 2, "retry": 1}),
        (["--select", "b"], {"unchanged": 1}),
    ],
)
def test_flags_win_over_memory(night: Any, flags: list[str], planned: dict[str, int]) -> None:
    assert night(*flags).json["planned"] == planned


def test_what_is_wrong_around_it_is_told_as_ever(night: Any) -> None:
    """A missing key, an address that cannot be one."""
    assert night(key=None).code == 2
    said = night("--callback-url", "https://studio.example")
    assert (said.code, "--callback-listen" in said.err) == (2, True)
    assert night("--sandbox", key=None).code == 2  # the folder holds videos of the "real" API


def test_state_that_is_gone_is_not_made_up_for(night: Any) -> None:
    """The memory must not pass for it."""
    (night.shell.folder / FILE).with_name("state.db").unlink()
    said = night()
    assert said.code == 1
    assert "gone or empty" in said.err
    assert night.box.stats.counts()["created"] == 3


def test_a_memory_that_cannot_be_written_spoils_nothing(night: Any) -> None:
    """It saves time, nothing else."""
    forget(night)
    part = (night.shell.folder / FILE).with_name(f"{FILE.name}.part")
    part.mkdir()
    assert night().json["planned"] == {"unchanged": 2, "resting": 1}
    assert not (night.shell.folder / FILE).exists()


def test_a_memory_of_something_else_buys_nothing(night: Any) -> None:
    """Even a forged one can at most leave something undone: it holds nothing that could be sent."""
    path = night.shell.folder / FILE
    kept = json.loads(path.read_bytes().partition(b"\n")[2])
    assert all(len(job) == 3 for job in kept["jobs"])
    kept["jobs"].append(["forged", "v1:0", []])
    path.write_text("0\n" + json.dumps(kept), "utf-8")
    assert night().json["tasks_created"] == 0
