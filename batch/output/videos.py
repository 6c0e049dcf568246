"""The videos of an output folder: each becomes visible whole or not at all.

    .kling-batch/parts/<external id>.part  →  check  →  flush  →  rename  →  flush the folder

A death in between leaves a part file, which the next run removes, or a whole video that the state
does not know, which the next run downloads again, unpaid.
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
    """The videos of one output folder. Entering it creates the folder of part files.

    *had_any* tells whether a video was there then: none at all may be a disk that is not mounted.
    """

    def __init__(self, layout: Layout, *, workers: int = 4, pool: Executor | None = None) -> None:
        self.layout = layout
        # A pool of its own: slow disks must not delay the name look-ups of the default one.
        self._pool = pool or ThreadPoolExecutor(workers, thread_name_prefix="files")

    def __enter__(self) -> Self:
        parts = self.layout.parts
        shutil.rmtree(parts, ignore_errors=True)
        try:
            parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{parts} cannot be made: {error.strerror or error}") from error
        self._identity = self._place()
        self.had_any = next(self.layout.videos.rglob("*.mp4"), None) is not None
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.layout.parts, ignore_errors=True)

    def _place(self) -> tuple[int, int]:
        status = os.stat(self.layout.parts)  # noqa: PTH116 - once per video
        return status.st_dev, status.st_ino

    def _check_place(self) -> None:
        """Raise if another folder has taken this one's place: no video may land there."""
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

    def is_there(self, file: str) -> bool:
        """Return whether there is a file at *file* (relative to the folder)."""
        return (self.layout.root / file).is_file()

    def part(self, external_task_id: str) -> Part:
        """Return the part file of an attempt, empty and not yet open."""
        return Part(self.layout.part(external_task_id), self._pool)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run blocking *work* in a thread."""
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

        A former video is kept at *keep_as* before the new one takes its place; at no moment is
        there none. Returns the result of *check*.

        Raises:
            OSError: the disk or the permissions; the final name is then as it was.
            Exception: from *check*; nothing has moved, and the part is still open.
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
    """Move a flushed part to its name, after keeping a different video that is there."""
    part.close()
    disk.make(final.parent)
    if final.exists() and not filecmp.cmp(part.path, final, shallow=False):
        _keep(final, keep_as)
    disk.move(part.path, final)


def _keep_if_there(final: Path, keep_as: Path) -> None:
    if final.is_file():
        _keep(final, keep_as)


def _keep(final: Path, keep_as: Path) -> None:
    """Give a former video its second name; a numbered one if another file has that."""
    disk.make(keep_as.parent)
    for number in itertools.count(1):
        name = keep_as if number == 1 else keep_as.with_suffix(f".{number}.mp4")
        if not name.exists():
            disk.link(final, name)
            disk.flush(name.parent)
            return
        if filecmp.cmp(name, final, shallow=False):
            return  # kept by a run that died afterwards
