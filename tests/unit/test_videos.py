"""Videos: at every step of a landing, the file at the final name is whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from virtual_time import InlineExecutor, VirtualLoop, run

from batch.output import disk
from batch.output.layout import Layout
from batch.output.videos import Videos

FINAL, KEPT = "videos/deep/er/a.mp4", "versions/deep/er/a/20261120T023108Z.mp4"
STEPS = ((disk, "make"), (disk, "link"), (disk, "flush"), (disk, "move"))


class Killed(BaseException):
    """The process ends here."""


def opened(root: Path) -> Videos:
    return Videos(Layout(root), pool=InlineExecutor())


def land(root: Path, data: bytes = b"new") -> None:
    async def main(loop: VirtualLoop) -> None:
        with opened(root) as folder:
            async with folder.part("kb-1") as part:
                await part.write(data)
                found = await folder.finish(part, Path.read_bytes)
                assert found == data, "what was checked is what has landed"
                if not await folder.is_same(part, FINAL):
                    await folder.keep(FINAL, KEPT)
                await folder.place(part, FINAL)

    run(main)


def test_video_appears_and_leaves_no_part(tmp_path: Path) -> None:
    land(tmp_path)
    assert (tmp_path / FINAL).read_bytes() == b"new"
    assert not (tmp_path / ".kling-batch/parts").exists()


def test_same_video_again_displaces_nothing(tmp_path: Path) -> None:
    land(tmp_path)
    land(tmp_path)
    assert not (tmp_path / KEPT).exists()


def test_another_video_keeps_the_former(tmp_path: Path) -> None:
    land(tmp_path, b"old")
    land(tmp_path, b"new")
    assert (tmp_path / KEPT).read_bytes() == b"old"
    assert (tmp_path / FINAL).read_bytes() == b"new"


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 12))
def test_killed_landing_leaves_a_whole_video(
    tmp_path: Path, number: int, is_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one or the new one, never none and never a part; and the old one is not lost."""
    land(tmp_path, b"old")
    count = 0

    def dying(work: Any) -> Any:
        def step(*arguments: Any, **how: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and not is_after:
                raise Killed
            result = work(*arguments, **how)
            if count == number and is_after:
                raise Killed
            return result

        return step

    for module, name in STEPS:
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    try:
        land(tmp_path, b"new")
    except Killed:
        assert (tmp_path / FINAL).read_bytes() in {b"old", b"new"}
        if (tmp_path / FINAL).read_bytes() == b"new":
            assert (tmp_path / KEPT).read_bytes() == b"old"
    monkeypatch.undo()
    land(tmp_path, b"new")
    assert (tmp_path / FINAL).read_bytes() == b"new"
    assert (tmp_path / KEPT).read_bytes() == b"old"


def test_video_is_flushed_before_it_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, move = os.fsync, disk.move

    def noted_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("folder" if is_folder else "file")
        fsync(descriptor)

    def noted_move(part: Path, final: Path) -> None:
        steps.append("move")
        move(part, final)

    (tmp_path / FINAL).parent.mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(disk, "move", noted_move)
    land(tmp_path)
    assert steps == ["file", "move", "folder"]


def test_video_that_fails_its_check_does_not_land(tmp_path: Path) -> None:
    def refuse(_path: Path) -> None:
        raise ValueError("no video")

    async def main(loop: VirtualLoop) -> None:
        with opened(tmp_path) as folder:
            async with folder.part("kb-1") as part:
                await part.write(b"rubbish")
                await folder.finish(part, refuse)

    with pytest.raises(ValueError, match="no video"):
        run(main)
    assert not (tmp_path / FINAL).exists()


def test_file_system_without_links_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_paths: Any) -> None:
        raise OSError(95, "Operation not supported")

    land(tmp_path, b"old")
    monkeypatch.setattr(os, "link", refuse)
    land(tmp_path, b"new")
    assert (tmp_path / KEPT).read_bytes() == b"old"


def test_leftover_parts_of_dead_run_are_removed(tmp_path: Path) -> None:
    part = tmp_path / ".kling-batch/parts/kb-9.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    with opened(tmp_path):
        assert not part.exists()


def test_twins_hold_the_same(tmp_path: Path) -> None:
    """Of the same size is not enough, and a hidden copy was never completed."""
    land(tmp_path, b"new")
    folder = (tmp_path / KEPT).parent
    folder.mkdir(parents=True)
    for name, data in {"b": b"new", "a": b"new", "c": b"old", "d": b"newer", ".e": b"new"}.items():
        (folder / f"{name}.mp4").write_bytes(data)
    os.link(tmp_path / FINAL, folder / "f.mp4")
    (folder / "g.mp4").mkdir()

    async def main(loop: VirtualLoop) -> list[str]:
        where = str(folder.relative_to(tmp_path))
        assert await opened(tmp_path).twins(tmp_path / "videos/none.mp4", where) == []
        found = await opened(tmp_path).twins(tmp_path / FINAL, where)
        return [name.rpartition("/")[2] for name in found]

    assert run(main) == ["a.mp4", "b.mp4", "f.mp4"]


@pytest.mark.parametrize("step", ["place", "keep"])
def test_replaced_output_folder_takes_no_video(tmp_path: Path, step: str) -> None:
    root = tmp_path / "out"

    async def main(loop: VirtualLoop) -> None:
        with opened(root) as folder:
            async with folder.part("kb-1") as part:
                await part.write(b"new")
                root.rename(tmp_path / "moved")
                (root / ".kling-batch/parts").mkdir(parents=True)
                await folder.finish(part, Path.read_bytes)
                if step == "place":
                    await folder.place(part, FINAL)
                await folder.keep(FINAL, KEPT)

    with pytest.raises(OSError, match="moved or replaced"):
        run(main)
    assert not (root / FINAL).exists()
