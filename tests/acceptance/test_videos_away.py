"""Videos that are away for a night, edited or copied by hand: nothing is lost or paid for again."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import time
from contextlib import closing
from typing import Any

import pytest

MONTH_S = 31 * 86_400.0


class Library:
    """Some videos of an earlier run, and a provider that may have dropped their tasks since."""

    def __init__(self, shell: Any, sandbox: Any, jobs: Any = 3) -> None:
        self.shell, self.sandbox = shell, sandbox
        self.root = shell.folder / "outputs" / "night"
        self.videos = self.root / "videos"
        self.manifest = shell.manifest(jobs)
        self.box = sandbox(clip="prompt")  # each job and version a video of its own
        assert self("run").code == 0
        self.paid = len(self.names())

    def __call__(self, command: str, *flags: Any) -> Any:
        return self.shell(
            *(command, self.manifest, "--base-url", self.box.base_url, "--json", *flags)
        )

    def a_month_passes(self) -> None:
        """Age the state; from now on the provider knows nothing of its tasks."""
        self.box, old = self.sandbox(), self.box
        with closing(sqlite3.connect(self.root / ".kling-batch" / "state.db")) as state, state:
            for name, detail in state.execute("SELECT external_task_id, detail FROM attempts"):
                aged = {
                    key: value - MONTH_S if key.endswith("_at") else value
                    for key, value in json.loads(detail).items()
                }
                state.execute(
                    "UPDATE attempts SET detail = ?, base_url = ? WHERE external_task_id = ?",
                    (json.dumps(aged), self.box.base_url, name),
                )
            state.execute("UPDATE lookup_proofs SET base_url = ?", (self.box.base_url,))
        for path in self.videos.iterdir():
            os.utime(path, (time.time() - 2 * MONTH_S,) * 2)
        assert old.stats.created == self.paid

    def states(self) -> set[str]:
        """Return the states of all attempts."""
        with closing(sqlite3.connect(self.root / ".kling-batch" / "state.db")) as state:
            return {name for (name,) in state.execute("SELECT state FROM attempts")}

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the last row of each job."""
        lines = (self.root / "results.jsonl").read_text("utf-8").splitlines()
        return {row["job_id"]: row for row in map(json.loads, lines)}

    def names(self) -> list[str]:
        """Return all videos that are here."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*.mp4"))


@pytest.fixture
def library(shell: Any, sandbox: Any) -> Library:
    return Library(shell, sandbox)


def titled(video: bytes, title: bytes = b"A title") -> bytes:
    """Return a video with a title of its own behind the rest."""
    return video + struct.pack(">I4s", 8 + len(title), b"free") + title


@pytest.mark.parametrize("is_mount_point", [True, False], ids=["empty", "missing"])
def test_videos_away_for_a_night_are_not_given_up(library: Library, is_mount_point: bool) -> None:
    """Their tasks are older than 30 days: the night fails, and the next one is quiet."""
    library.a_month_passes()
    away = library.videos.rename(library.root.parent / "away")
    if is_mount_point:
        library.videos.mkdir()
    said = library("run")
    assert said.code == 1
    assert said.json["outcomes"] == {"failed": 3}
    for trouble in said.json["troubles"]:
        assert trouble["error"]["kind"] == "download"
        assert "is a disk not mounted?" in trouble["error"]["message"]
    assert library("run", "--retry-failed").code == 1
    assert library.states() == {"Landed"}
    if is_mount_point:
        library.videos.rmdir()
    away.rename(library.videos)
    assert library("plan").json["counts"]["unchanged"] == 3
    said = library("run")
    assert (said.code, said.json["planned"]) == (0, {"unchanged": 3})
    assert {row["status"] for row in library.rows().values()} == {"succeeded"}
    lines = (library.root / "results.jsonl").read_text("utf-8")
    assert library("run").code == 0
    assert (library.root / "results.jsonl").read_text("utf-8") == lines
    assert library.box.stats.posts == 0


def test_edited_video_is_kept(library: Library) -> None:
    """A title embedded, a tool that moved the index: it is the person's, and is read only once."""
    place = library.videos / "job-1.mp4"
    place.write_bytes(titled(place.read_bytes()))
    edited = place.read_bytes()
    asked = library.box.stats.counts()
    for _ in range(2):
        said = library("run")
        assert (said.code, said.json["planned"]) == (0, {"unchanged": 3})
    assert place.read_bytes() == edited
    assert library.box.stats.counts() == asked
    with closing(sqlite3.connect(library.root / ".kling-batch" / "state.db")) as state:
        (found,) = state.execute(
            "SELECT json_extract(detail, '$.checked.bytes') FROM attempts WHERE job_id = 'job-1'"
        ).fetchone()
    assert found == len(edited)


def test_broken_video_is_fetched_again_and_kept(library: Library) -> None:
    """Whoever cut it may want it; fetching costs nothing."""
    place = library.videos / "job-1.mp4"
    whole = place.read_bytes()
    place.write_bytes(whole[:-100])
    assert library("plan").json["counts"]["fetch"] == 1
    said = library("run")
    assert (said.code, said.json["tasks_created"]) == (0, 0)
    assert place.read_bytes() == whole
    (broken,) = (library.root / "versions" / "job-1").iterdir()
    assert broken.read_bytes() == whole[:-100]


def test_edited_video_stays_a_version_after_a_change(shell: Any, sandbox: Any) -> None:
    """The prompt changes and changes back: what the person made of the video comes back."""
    jobs = [{"id": "a", "prompt": "a fox"}]
    library = Library(shell, sandbox, jobs)
    place = library.videos / "a.mp4"
    edited = titled(place.read_bytes())
    place.write_bytes(edited)
    shell.manifest([{"id": "a", "prompt": "a deer"}])
    assert library("run").json["planned"] == {"changed": 1}
    (version,) = (library.root / "versions" / "a").iterdir()
    assert version.read_bytes() == edited
    shell.manifest(jobs)
    assert library("run").json["planned"] == {"fetch": 1}
    assert place.read_bytes() == edited
    assert library.box.stats.created == 2


def test_former_video_copied_back_by_hand_is_kept(shell: Any, sandbox: Any) -> None:
    """Without a pin it is an edited file like any other: whole, and of the length asked for."""
    library = Library(shell, sandbox, [{"id": "a", "prompt": "a fox"}])
    place = library.videos / "a.mp4"
    first = place.read_bytes()
    shell.manifest([{"id": "a", "prompt": "a deer in the snow"}])
    assert library("run").code == 0
    (version,) = (library.root / "versions" / "a").iterdir()
    assert version.read_bytes() == first
    place.write_bytes(first)
    names = library.names()
    said = library("run")
    assert (said.code, said.json["planned"]) == (0, {"unchanged": 1})
    assert place.read_bytes() == first
    assert library.names() == names


def test_old_disk_brings_no_old_video_back(shell: Any, sandbox: Any) -> None:
    """A prompt changes in the night without the disk: the new video is hidden behind the old one."""
    library = Library(shell, sandbox, [{"id": "a", "prompt": "a fox"}])
    place = library.videos / "a.mp4"
    first = place.read_bytes()
    away = library.videos.rename(library.root.parent / "away")
    shell.manifest([{"id": "a", "prompt": "a deer in the snow"}])
    assert library("run").json["planned"]["changed"] == 1
    second = place.read_bytes()
    assert second != first
    library.videos.rename(library.root.parent / "hidden")
    away.rename(library.videos)
    said = library("run")
    assert (said.code, said.json["planned"]["fetch"]) == (0, 1)
    assert place.read_bytes() == second
    (version,) = (library.root / "versions" / "a").iterdir()
    assert version.read_bytes() == first
    assert library.box.stats.created == 2
