"""The videos of an output folder: each becomes visible whole or not at all.

    .kling-batch/parts/<external id>.part  →  check  →  flush  →  rename  →  flush the folder

If we die right here: a part file is left over, which the next run removes, or a whole video is
there that the state does not know, which the next run fetches again, free of charge.
"""

from __future__ import annotations

import asyncio
import errno
import filecmp
import itertools
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from batch.errors import StateError
from batch.output import disk
from batch.output.layout import Layout
from batch.output.part import Part

T = TypeVar("T")


class Videos:
    """Where the videos of one manifest live. Makes the folder of its part files when entered."""

    def __init__(self, layout: Layout, *, workers: int = 4, pool: Executor | None = None) -> None:
        self.layout = layout
        # A pool of its own: the default one is shared with name look-ups, and slow disks must not
        # keep those waiting.
        self._pool = pool or ThreadPoolExecutor(workers, thread_name_prefix="files")

    def __enter__(self) -> Self:
        parts = self.layout.parts
        shutil.rmtree(parts, ignore_errors=True)
        try:
            parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{parts} cannot be made: {error.strerror or error}") from error
        self._identity = self._place()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.layout.parts, ignore_errors=True)

    def _place(self) -> tuple[int, int]:
        status = os.stat(self.layout.parts)  # noqa: PTH116 - once per video
        return status.st_dev, status.st_ino

    def _check_place(self) -> None:
        """Nothing may land in a folder that has taken this one's place."""
        if self._place() != self._identity:
            root = str(self.layout.root)
            raise OSError(errno.ESTALE, "the output folder was moved or replaced", root)

    def is_present(self, file: str, size: int) -> bool:
        """Return whether *file* (relative to the folder) is there, with *size* bytes."""
        try:
            status = os.stat(f"{self.layout.root}/{file}")  # noqa: PTH116 - a third of pathlib's time
        except OSError:
            return False
        return status.st_size == size

    def part(self, external_task_id: str) -> Part:
        """Return the part file of an attempt, empty and not yet open."""
        return Part(self.layout.part(external_task_id), self._pool)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do blocking *work* beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def keep(self, file: str, keep_as: str) -> None:
        """Give the video at *file*, if there is one, a second name.

        Raises:
            OSError: the disk or the permissions.
        """
        self._check_place()
        root = self.layout.root
        await self.run(_keep_if_there, root / file, root / keep_as)

    async def land(self, part: Part, file: str, *, keep_as: str, check: Callable[[Path], T]) -> T:
        """Check a complete *part* and move it to *file*: one hop to a thread for all of it.

        What was paid for is never destroyed: a former video is kept at *keep_as* before the new
        one takes its place, and at no moment is there none. Returns what *check* has found.

        Raises:
            OSError: the disk or the permissions; the final name is then as it was.
            Exception: whatever *check* raises; nothing has moved, and the part is still open.
        """
        self._check_place()
        root = self.layout.root
        return await self.run(_land, part, root / file, root / keep_as, check)


def _land(part: Part, final: Path, keep_as: Path, check: Callable[[Path], T]) -> T:
    part.finish()
    found = check(part.path)
    part.sync()
    _take_place(part, final, keep_as)
    disk.flush(final.parent)
    return found


def _take_place(part: Part, final: Path, keep_as: Path) -> None:
    """Move a flushed part to its name; what is there and differs is kept before."""
    part.close()
    disk.make(final.parent)
    if final.exists() and not filecmp.cmp(part.path, final, shallow=False):
        _keep(final, keep_as)
    disk.move(part.path, final)


def _keep_if_there(final: Path, keep_as: Path) -> None:
    if final.is_file():
        _keep(final, keep_as)


def _keep(final: Path, keep_as: Path) -> None:
    """Give a former video its name; another one, if that name holds something else already."""
    disk.make(keep_as.parent)
    for number in itertools.count(1):
        name = keep_as if number == 1 else keep_as.with_suffix(f".{number}.mp4")
        if not name.exists():
            disk.link(final, name)
            disk.flush(name.parent)
            return
        if filecmp.cmp(name, final, shallow=False):
            return  # kept by a run that died right after
