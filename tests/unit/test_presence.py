"""Presence: a `stat` for each video, and a look at those that somebody has written to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from downloads import FILE, VIDEO
from fake_provider import video
from sample_jobs import job, tried
from scripted import SAID, landed

from batch.attempt import Landed, PaidTask
from batch.job import Video
from batch.output.sqlite import Database
from batch.output.state import AddRow, Change, Put
from batch.run.presence import EDITED, Presence
from batch.sandbox.video.clips import render

LANDED_AT = 1_790_000_100.0
LATER = LANDED_AT + 3600.0
HERE = replace(
    landed("8", FILE, len(VIDEO)),
    landed_at=LANDED_AT,
    sha256=hashlib.sha256(VIDEO).hexdigest(),
    video=Video(5.042, 240, 240),
)
EDIT = video("8", 7000)
LONGER = render("simulation", "", "1:1", 10).content()


class Library:
    """A state with one landed video, and its file."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        self.database = database
        (root / FILE).parent.mkdir()
        self.put(VIDEO, LANDED_AT - 1.0)
        self.record(HERE)

    def put(self, data: bytes, modified_at: float) -> None:
        (self.root / FILE).write_bytes(data)
        os.utime(self.root / FILE, (modified_at, modified_at))

    def record(self, state: Landed) -> None:
        self.database.write([Put(tried(state, job()))])

    def look(self) -> tuple[bool, list[Change]]:
        """Return whether the video is here, and what was recorded of it."""
        presence = Presence(self.root, self.database)
        (item,) = self.database.known()["a"]
        is_here = presence(item)
        changes = presence.changes("r-1", LATER, [job()._replace(tags=("t1",))])
        self.database.write(changes)
        return is_here, changes

    @property
    def state(self) -> Landed:
        state = self.database.attempt("kb-0").state
        assert isinstance(state, Landed)
        return state


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Database.open(tmp_path / "state.db") as database:
        yield Library(tmp_path, database)


def test_video_left_alone_is_not_read(library: Library) -> None:
    library.put(bytes(len(VIDEO)), LANDED_AT)
    assert library.look() == (True, [])


def test_missing_video_is_not_here(library: Library) -> None:
    (library.root / FILE).unlink()
    assert library.look() == (False, [])


@pytest.mark.parametrize("modified_at", [LANDED_AT - 1.0, LATER])
def test_edited_video_is_kept_and_read_once(library: Library, modified_at: float) -> None:
    library.put(EDIT, modified_at)
    is_here, changes = library.look()
    assert (is_here, len(changes)) == (True, 1)
    assert library.state.is_edited
    assert library.state.contents == {HERE.sha256, hashlib.sha256(EDIT).hexdigest()}
    assert replace(library.state, checked=None) == HERE
    library.put(bytes(len(EDIT)), modified_at)
    assert library.look() == (True, []), "it was read again"
    library.put(bytes(len(EDIT)), LATER + 1.0)
    assert library.look() == (False, [])


def test_copied_library_is_read_once(library: Library) -> None:
    """Its files have new times and the same contents."""
    library.put(VIDEO, LATER)
    is_here, changes = library.look()
    assert (is_here, len(changes)) == (True, 1)
    assert not library.state.is_edited
    assert library.look() == (True, [])


def test_video_of_another_attempt_at_the_same_place_is_no_edit(library: Library) -> None:
    """A restored state may say of both that they stand there."""
    library.put(EDIT, LATER)
    other = replace(HERE, task=PaidTask("9", 1.0), bytes=len(EDIT))
    other = replace(other, sha256=hashlib.sha256(EDIT).hexdigest())
    library.database.write([Put(tried(other, job(prompt="an owl"), "kb-1", 2))])
    presence = Presence(library.root, library.database)
    here = {item.external_task_id: presence(item) for item in library.database.known()["a"]}
    assert here == {"kb-0": False, "kb-1": True}


@pytest.mark.parametrize(
    "data",
    [VIDEO[:-1], bytes(len(VIDEO)), b"", b"<html>", LONGER],
    ids=["cut", "zeroed", "empty", "a page", "of another length"],
)
def test_spoilt_video_is_not_here(library: Library, data: bytes) -> None:
    library.put(data, LATER)
    assert library.look() == (False, [])


def test_edit_may_have_the_length_that_landed(library: Library) -> None:
    """The provider made ten seconds where five were asked for; that is no news."""
    library.record(replace(HERE, video=Video(10.042, 240, 240)))
    library.put(LONGER, LATER)
    assert library.look()[0]


def test_video_that_is_back_gets_a_row(library: Library) -> None:
    """Its last row said that it has failed."""
    library.record(replace(HERE, trouble=SAID))
    is_here, changes = library.look()
    assert is_here
    (line,) = [change.line for change in changes if isinstance(change, AddRow)]
    row = json.loads(line)
    assert (row["status"], row["file"], row["sha256"]) == ("succeeded", FILE, HERE.sha256)
    assert (row["run_id"], row["attempts"], row["warnings"]) == ("r-1", 1, [])
    assert library.state == HERE
    assert library.look() == (True, [])


@pytest.mark.parametrize("is_same_request", [False, True])
def test_video_of_another_job_is_no_edit(library: Library, is_same_request: bool) -> None:
    """Its disk was away while the two were renamed. A copy for the same request may be meant."""
    other = job("b") if is_same_request else job("b", "a dog")
    there = replace(HERE, task=PaidTask("9", 1.0), file="videos/b.mp4", bytes=len(EDIT))
    there = replace(there, sha256=hashlib.sha256(EDIT).hexdigest())
    library.database.write([Put(tried(there, other, "kb-9"))])
    (library.root / there.file).write_bytes(EDIT)
    library.put(EDIT, LATER)
    assert library.look()[0] is is_same_request


def test_video_of_a_job_in_the_same_file_is_no_edit(library: Library) -> None:
    """An earlier release has left two attempts recorded there."""
    there = replace(HERE, task=PaidTask("9", 1.0), bytes=len(EDIT))
    there = replace(there, sha256=hashlib.sha256(EDIT).hexdigest())
    library.database.write([Put(tried(there, job("0", "a dog"), "kb-9"))])
    library.put(EDIT, LATER)
    assert library.look() == (False, [])


def test_row_of_edited_video_says_so(library: Library) -> None:
    library.record(replace(HERE, trouble=SAID))
    library.put(EDIT, LATER)
    _, changes = library.look()
    (line,) = [change.line for change in changes if isinstance(change, AddRow)]
    row = json.loads(line)
    assert (row["warnings"], row["tags"]) == ([EDITED], ["t1"])


@pytest.mark.parametrize(
    ("unsettled", "file", "is_looked_at"),
    [
        (set(), FILE, False),  # as the plan has done
        ({"a"}, FILE, True),
        (set(), "versions/a/1.mp4", True),
    ],
    ids=["stands", "unsettled", "former"],
)
def test_rest_is_what_a_plan_passes_over(
    library: Library, unsettled: set[str], file: str, is_looked_at: bool
) -> None:
    library.put(EDIT, LATER)
    (library.root / file).parent.mkdir(parents=True, exist_ok=True)
    (library.root / FILE).rename(library.root / file)
    library.record(replace(HERE, file=file))
    presence = Presence(library.root, library.database)
    items = library.database.known()["a"]
    assert list(presence.look_at_rest(items, unsettled)) == items
    changes = presence.changes("r-1", LATER)
    assert [type(change) for change in changes] == [Put] * is_looked_at
    list(presence.look_at_rest(items, unsettled))
    assert presence.changes("r-1", LATER) == changes, "it was looked at twice"


def test_missed_video_of_the_rest_gets_no_row(library: Library) -> None:
    """The last row of a job is its state."""
    library.record(replace(HERE, trouble=SAID))
    presence = Presence(library.root, library.database)
    list(presence.look_at_rest(library.database.known()["a"], {"a"}))
    assert presence.changes("r-1", LATER) == []
