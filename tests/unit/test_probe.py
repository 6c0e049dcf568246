"""The probe: files are written where videos will lie, and nothing is left of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from batch.errors import StateError
from batch.output.probe import BLOCK, NAME, try_places


def everything(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


def test_writable_places_are_left_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "videos/there").mkdir(parents=True)
    (tmp_path / "videos/there/a.mp4").write_bytes(b"mine")
    before = everything(tmp_path)
    try_places(tmp_path, ["videos/there/a.mp4", "videos/new/deeper/b.mp4", "videos/c.mp4"])
    assert everything(tmp_path) == before


def test_death_while_trying_stops_no_later_run(tmp_path: Path) -> None:
    """What it has left is removed: half a probe, a whole one, and one of the longest name."""
    (tmp_path / "videos").mkdir()
    (tmp_path / ".kling-batch").mkdir()
    long = f"videos/{'a' * 60}.mp4"
    for left in (f"videos/{NAME}", f".kling-batch/{NAME}", f"videos/{NAME.ljust(64, 'k')}"):
        (tmp_path / left).write_bytes(BLOCK if "videos" in left else b"")
    try_places(tmp_path, [long])
    assert everything(tmp_path) == [tmp_path / ".kling-batch", tmp_path / "videos"]


def test_file_of_a_person_is_no_probe(tmp_path: Path) -> None:
    """Whatever it is called, it stays."""
    (tmp_path / "videos").mkdir()
    names = [NAME, NAME.ljust(64, "k"), "k" * 5, "k" * 64]
    for name in names:
        (tmp_path / "videos" / name).write_bytes(b"mine")
    try_places(tmp_path, ["videos/a.mp4", f"videos/{'a' * 60}.mp4"])
    assert [(tmp_path / "videos" / name).read_bytes() for name in names] == [b"mine"] * 4


def test_nothing_to_write_tries_nothing(tmp_path: Path) -> None:
    try_places(tmp_path / "away", [])
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    "file",
    [
        f"videos/{'k' * 300}.mp4",
        f"videos/{'狐' * 90}.mp4",
        f"videos/{'k' * 300}/a.mp4",
        f"videos/{'/'.join(['k' * 200] * 21)}.mp4",
    ],
    ids=["name", "bytes", "folder", "path"],
)
def test_name_too_long_for_the_disk_is_told(tmp_path: Path, file: str) -> None:
    with pytest.raises(StateError, match="longer name than its disk takes .* Nothing was sent"):
        try_places(tmp_path, ["videos/short.mp4", file])
    assert everything(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bite")
def test_folder_of_another_user_is_named(tmp_path: Path) -> None:  # pragma: no cover
    (tmp_path / "videos").mkdir(mode=0o555)
    with pytest.raises(StateError, match="videos cannot be written .* owner or permissions"):
        try_places(tmp_path, ["videos/a.mp4"])


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_results_that_take_no_row_are_told(tmp_path: Path, kind: str) -> None:
    """Before anything is paid for, and without waiting for who reads the pipe."""
    results = tmp_path / "results.jsonl"
    if kind == "folder":
        results.mkdir()
    elif kind == "pipe":
        os.mkfifo(results)
    else:
        results.symlink_to(tmp_path / "away/results.jsonl")
    with pytest.raises(StateError, match=r"results\.jsonl .* Nothing was sent"):
        try_places(tmp_path, ["videos/a.mp4"])
    assert everything(tmp_path) == [results]


def test_results_are_left_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"{}\n")
    try_places(tmp_path, ["videos/a.mp4"])
    assert (tmp_path / "results.jsonl").read_bytes() == b"{}\n"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "correct its owner or permissions"),
        (errno.EROFS, "correct its owner or permissions"),
        (errno.EMFILE, "raise ulimit -n"),
        (errno.EIO, "is its disk away or failing"),
        (errno.ENOSPC, "make room"),
    ],
)
def test_advice_is_for_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(*_: object, **_how: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StateError, match=f"{os.strerror(number)}.*; {advice}.*Nothing was sent"):
        try_places(tmp_path, ["videos/a.mp4"])
