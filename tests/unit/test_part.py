"""Part files: every byte is written and hashed once, and the disk begins early."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from virtual_time import InlineExecutor, VirtualLoop, run

from batch.output import part as part_module
from batch.output.part import WRITE_BACK_BYTES, Part


def written(path: Path, pieces: list[bytes]) -> str:
    """Write *pieces* to a part file and return its hash."""

    async def main(loop: VirtualLoop) -> str:
        async with Part(path, InlineExecutor()) as part:
            for piece in pieces:
                await part.write(piece)
            part.finish()
            return part.sha256

    return run(main)


def test_restarted_part_holds_nothing_of_before(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> tuple[int, str]:
        async with Part(tmp_path / "part", InlineExecutor()) as part:
            await part.write(bytes(3 * 1024 * 1024))
            await part.restart()
            await part.write(b"short")
            part.finish()
            return part.size, part.sha256

    assert run(main) == (5, hashlib.sha256(b"short").hexdigest())
    assert (tmp_path / "part").read_bytes() == b"short"


@pytest.mark.parametrize("piece", [1_000, 300_000], ids=["small pieces", "large pieces"])
def test_growing_part_is_hashed_and_flushed_early(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte is announced at most once, and in order, while the file still grows."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(part_module, "_begin_write_back", lambda _file, *span: begun.append(span))
    data = os.urandom(11 * 1024 * 1024)
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]

    assert written(tmp_path / "part", pieces) == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "part").read_bytes() == data
    position = 0
    for start, length in begun:
        assert start == position
        assert length >= WRITE_BACK_BYTES
        position += length
    assert len(data) - position < 2 * WRITE_BACK_BYTES


def test_refused_write_back_hint_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    data = os.urandom(2 * WRITE_BACK_BYTES)
    written(tmp_path / "part", [data])
    assert (tmp_path / "part").read_bytes() == data


def test_failed_download_removes_its_part(tmp_path: Path) -> None:
    async def main(loop: VirtualLoop) -> None:
        async with Part(tmp_path / "part", InlineExecutor()) as part:
            await part.write(bytes(3 * 1024 * 1024))
            raise ConnectionError

    with pytest.raises(ConnectionError):
        run(main)
    assert not (tmp_path / "part").exists()
