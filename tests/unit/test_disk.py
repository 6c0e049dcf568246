"""Files that appear whole or not at all, and what a death has left of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from batch.output.disk import LEFT_S, write_whole


def test_what_a_death_has_left_is_removed(tmp_path: Path) -> None:
    """But for what is young, and what belongs to another file."""
    old, young = tmp_path / ".page[1].html.0a1b2c3d.part", tmp_path / ".page[1].html.ffffffff.part"
    other = tmp_path / ".other.html.0a1b2c3d.part"
    for left in (old, young, other):
        left.write_text("half")
    for left in (old, other):
        os.utime(left, (0, time.time() - LEFT_S - 1))
    write_whole(tmp_path / "page[1].html", b"whole")
    assert (tmp_path / "page[1].html").read_bytes() == b"whole"
    assert set(tmp_path.iterdir()) == {tmp_path / "page[1].html", young, other}


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt("no")])
def test_a_file_that_cannot_be_written_leaves_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "page.html"
    target.write_bytes(b"former")

    def refuse(_part: Path, _target: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(type(error), match="no"):
        write_whole(target, b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]


def test_nothing_is_written_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that others can write to, the place of the part is nobody's to take."""
    monkeypatch.setattr(os, "urandom", bytes)
    theirs = tmp_path / ".page.html.00000000.part"
    theirs.symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "page.html", b"new")
    assert not (tmp_path / "mine").exists()
