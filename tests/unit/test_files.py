"""The output folder: at every step of a landing, what is at the final name is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from virtual_time import InlineExecutor, VirtualLoop, run

from batch.output import disk as folders
from batch.output import videos as files
from batch.output.videos import OutputFolder

FINAL, KEPT = "videos/deep/er/a.mp4", ".kling-batch/former/a.mp4"
STEPS = ((folders, "make"), (files, "_link"), (folders, "flush"), (files, "_move"))


class Killed(BaseException):
    """The process ends here."""


def land(root: Path, data: bytes = b"new", *, is_small: bool = False) -> None:
    async def main(loop: VirtualLoop) -> None:
        with OutputFolder(root, pool=InlineExecutor()) as folder:
            async with folder.part("kb-1") as part:
                await part.write(data)
                if is_small:
                    assert part.in_memory() == data
                    await folder.land_small(part, FINAL, keep_as=KEPT)
                    assert part.in_memory() is None, "it lands once"
                    return
                found = await folder.land(part, FINAL, keep_as=KEPT, check=Path.read_bytes)
                assert found == data, "what was checked is what has landed"

    run(main)


def test_a_video_appears_under_its_name_and_leaves_no_part(tmp_path: Path) -> None:
    land(tmp_path)
    assert (tmp_path / FINAL).read_bytes() == b"new"
    assert not (tmp_path / ".kling-batch/parts").exists()


def test_the_same_video_again_displaces_nothing(tmp_path: Path) -> None:
    land(tmp_path)
    land(tmp_path)
    assert not (tmp_path / KEPT).exists()


def test_another_video_keeps_the_former(tmp_path: Path) -> None:
    land(tmp_path, b"old")
    land(tmp_path, b"new")
    assert (tmp_path / KEPT).read_bytes() == b"old"
    assert (tmp_path / FINAL).read_bytes() == b"new"


@pytest.mark.parametrize("is_small", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 12))
def test_killed_at_any_step_the_final_name_holds_a_whole_video(
    tmp_path: Path, number: int, is_after: bool, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one or the new one, never none and never a part; and the old one is not lost."""
    land(tmp_path, b"old")
    count = 0

    def dying(work: Any) -> Any:
        def step(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and not is_after:
                raise Killed
            result = work(*arguments)
            if count == number and is_after:
                raise Killed
            return result

        return step

    for module, name in STEPS:
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    try:
        land(tmp_path, b"new", is_small=is_small)
    except Killed:
        assert (tmp_path / FINAL).read_bytes() in {b"old", b"new"}
        if (tmp_path / FINAL).read_bytes() == b"new":
            assert (tmp_path / KEPT).read_bytes() == b"old"
    monkeypatch.undo()
    land(tmp_path, b"new")
    assert (tmp_path / FINAL).read_bytes() == b"new"
    assert (tmp_path / KEPT).read_bytes() == b"old"


def test_what_fails_its_check_does_not_land(tmp_path: Path) -> None:
    def refuse(_path: Path) -> None:
        raise ValueError("no video")

    async def main(loop: VirtualLoop) -> None:
        with OutputFolder(tmp_path, pool=InlineExecutor()) as folder:
            async with folder.part("kb-1") as part:
                await part.write(b"rubbish")
                await folder.land(part, FINAL, keep_as=KEPT, check=refuse)

    with pytest.raises(ValueError, match="no video"):
        run(main)
    assert not (tmp_path / FINAL).exists()


def test_a_file_system_without_links_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: Any) -> None:
        raise OSError(95, "Operation not supported")

    land(tmp_path, b"old")
    monkeypatch.setattr(os, "link", refuse)
    land(tmp_path, b"new")
    assert (tmp_path / KEPT).read_bytes() == b"old"


def test_leftovers_of_a_dead_run_are_swept(tmp_path: Path) -> None:
    part = tmp_path / ".kling-batch/parts/kb-9.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    with OutputFolder(tmp_path, pool=InlineExecutor()):
        assert not part.exists()


def test_presence_is_a_matter_of_size(tmp_path: Path) -> None:
    land(tmp_path, b"four")
    with OutputFolder(tmp_path, pool=InlineExecutor()) as folder:
        assert folder.is_present(FINAL, 4)
        assert not folder.is_present(FINAL, 5)
        assert not folder.is_present("videos/none.mp4", 4)


def test_a_part_begins_anew_without_a_trace_of_before(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> tuple[int, str]:
        with OutputFolder(tmp_path, pool=InlineExecutor()) as folder:
            async with folder.part("kb-1") as part:
                await part.write(bytes(3 * 1024 * 1024))
                await part.restart()
                await part.write(b"short")
                await folder.land(part, FINAL, keep_as=KEPT, check=Path.read_bytes)
                return part.size, part.sha256

    size, _ = run(main)
    assert size == 5
    assert (tmp_path / FINAL).read_bytes() == b"short"


@pytest.mark.parametrize("piece", [1_000, 300_000], ids=["small pieces", "large pieces"])
def test_what_is_written_is_hashed_and_the_disk_begins_early(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte is announced at most once, and in order, while the file still grows."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(files, "_begin_write_back", lambda _file, *span: begun.append(span))
    data = os.urandom(11 * 1024 * 1024)

    async def main(loop: VirtualLoop) -> str:
        with OutputFolder(tmp_path, pool=InlineExecutor()) as folder:
            async with folder.part("kb-1") as part:
                for start in range(0, len(data), piece):
                    await part.write(data[start : start + piece])
                assert await folder.land(part, FINAL, keep_as=KEPT, check=Path.read_bytes) == data
                return part.sha256

    assert run(main) == hashlib.sha256(data).hexdigest()
    position = 0
    for start, length in begun:
        assert start == position
        assert length >= files.WRITE_BACK_BYTES
        position += length
    assert len(data) - position < 2 * files.WRITE_BACK_BYTES


def test_a_disk_that_takes_no_hint_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    data = os.urandom(2 * files.WRITE_BACK_BYTES)
    land(tmp_path, data)
    assert (tmp_path / FINAL).read_bytes() == data


def land_three(root: Path, names: tuple[str, ...] = ("a", "b", "c")) -> list[Any]:
    """Land small videos at the same moment; return what became of each."""

    async def one(folder: OutputFolder, name: str) -> None:
        async with folder.part(f"kb-{name}") as part:
            await part.write(name.encode())
            await folder.land_small(part, f"videos/{name}.mp4", keep_as=f"former/{name}.mp4")

    async def main(loop: VirtualLoop) -> list[Any]:
        with OutputFolder(root, pool=InlineExecutor()) as folder:
            await one(folder, "first")  # the others come in its gap
            return await asyncio.gather(
                *(one(folder, name) for name in names), return_exceptions=True
            )

    return run(main)


def test_small_videos_are_flushed_each_before_any_moves_and_their_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, move = os.fsync, files._move

    def noted_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("folder" if is_folder else "file")
        fsync(descriptor)

    def noted_move(part: Path, final: Path) -> None:
        steps.append("move")
        move(part, final)

    (tmp_path / "videos").mkdir()
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(files, "_move", noted_move)
    assert land_three(tmp_path) == [None] * 3
    assert steps == ["file", "move", "folder", *["file"] * 3, *["move"] * 3, "folder"]
    assert [(tmp_path / f"videos/{name}.mp4").read_text() for name in "abc"] == ["a", "b", "c"]


def test_a_small_video_that_cannot_be_written_takes_nobody_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = files._create

    def refuse(path: Path) -> int:
        if path.name == "kb-b.part":
            raise OSError(28, "No space left on device")
        return create(path)

    monkeypatch.setattr(files, "_create", refuse)
    first, second, third = land_three(tmp_path)
    assert (first, third) == (None, None)
    assert isinstance(second, OSError)
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "a.mp4",
        "c.mp4",
        "first.mp4",
    ]


def test_a_folder_that_cannot_be_flushed_is_everybodys_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = folders.flush
    count = 0

    def failing(folder: Path) -> None:
        nonlocal count
        count += folder.name == "videos"
        if count > 1:
            raise OSError(5, "Input/output error")
        flush(folder)

    (tmp_path / "videos").mkdir()
    monkeypatch.setattr(folders, "flush", failing)
    assert [type(outcome) for outcome in land_three(tmp_path)] == [OSError] * 3


def test_what_is_not_small_is_not_held_in_memory(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        with OutputFolder(tmp_path, pool=InlineExecutor()) as folder:
            async with folder.part("kb-1") as part:
                await part.write(bytes(files.HELD_BYTES + 1))
                assert part.in_memory() is None

    run(main)


def test_nothing_small_lands_in_a_folder_that_has_taken_the_place_of_ours(tmp_path: Path) -> None:
    root = tmp_path / "out"

    async def main(loop: VirtualLoop) -> None:
        with OutputFolder(root, pool=InlineExecutor()) as folder:
            async with folder.part("kb-1") as part:
                await part.write(b"small")
                root.rename(tmp_path / "moved")
                (root / ".kling-batch/parts").mkdir(parents=True)
                await folder.land_small(part, FINAL, keep_as=KEPT)

    with pytest.raises(OSError, match="moved or replaced"):
        run(main)
    assert not (root / FINAL).exists()
