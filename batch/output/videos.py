"""The videos of an output folder: each becomes visible whole or not at all.

    .kling-batch/parts/<external id>.part  →  check  →  flush  →  rename  →  flush the folder

What is in the way gets a second name under versions/ after the check and before the rename. A death
in between leaves a part file, which the next run removes, or a whole video that the state does not
know, which the next run downloads again, unpaid.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import filecmp
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

    def __init__(self, layout: Layout, *, pool: Executor | None = None) -> None:
        self.layout = layout
        # A pool of its own: slow disks must not delay the name look-ups of the default one.
        self._pool = pool or ThreadPoolExecutor(4, thread_name_prefix="files")

    def __enter__(self) -> Self:
        parts = self.layout.parts
        shutil.rmtree(parts, ignore_errors=True)
        try:
            parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{parts} cannot be made: {error.strerror or error}") from error
        self._identity = self._place()
        self.had_any = False
        with contextlib.suppress(OSError):  # a disk that has gone away
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

    def part(self, external_task_id: str) -> Part:
        """Return the part file of an attempt, empty and not yet open."""
        return Part(self.layout.part(external_task_id), self._pool)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run blocking *work* in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def modified_at(self, file: str) -> float | None:
        """Return when *file* (relative to the folder) was last written to; None if it is not there."""
        try:
            return (self.layout.root / file).stat().st_mtime
        except OSError:
            return None

    def is_file(self, file: str) -> bool:
        """Return whether *file* can be read: not so a folder or a pipe."""
        return (self.layout.root / file).is_file()

    async def finish(self, part: Part, check: Callable[[Path], T]) -> T:
        """Complete a part file, check it, and flush it to the disk. Return the result of *check*.

        Raises:
            OSError: the disk.
            Exception: from *check*; the part is still open.
        """
        return await self.run(_finish, part, check)

    async def place(self, part: Part, file: str) -> None:
        """Move a finished part to *file* in one step; what was there is replaced.

        Raises:
            OSError: the disk or the permissions; the final name is then as it was.
        """
        self._check_place()
        await self.run(_place, part, self.layout.root / file)

    async def keep(self, file: str, name: str) -> None:
        """Give the video at *file*, if there is one, a second *name* unless that is there already.

        Raises:
            OSError: the disk or the permissions.
        """
        self._check_place()
        root = self.layout.root
        await self.run(_keep, root / file, root / name)

    async def drop(self, name: str, file: str) -> None:
        """Remove *name*, and the files beside it, if it holds the same as *file*.

        It stays where the disk does not let it go.
        """
        self._check_place()
        await self.run(_drop, self.layout.root, name, file)

    async def twins(self, video: Path, folder: str) -> list[str]:
        """Return the videos in *folder* that hold the same as *video*, sorted."""
        return await self.run(_twins, self.layout.root, video, folder)

    async def of_size(self, folder: str, sizes: set[int]) -> list[str]:
        """Return the videos in *folder* that have one of *sizes*, sorted."""
        return await self.run(_of_size, self.layout.root, folder, sizes)

    async def is_same(self, part: Part, file: str) -> bool:
        """Return whether *file* holds the same as a finished part."""
        return await self.run(_is_same, part.path, self.layout.root / file)


def _finish(part: Part, check: Callable[[Path], T]) -> T:
    part.finish()
    found = check(part.path)
    part.sync()
    return found


def _place(part: Part, final: Path) -> None:
    part.close()
    disk.make(final.parent)
    disk.move(part.path, final)
    disk.flush(final.parent)


def _keep(final: Path, name: Path) -> None:
    if final.is_file() and not name.exists():
        disk.make(name.parent)
        disk.link(final, name)
        disk.flush(name.parent)


def _drop(root: Path, name: str, file: str) -> None:
    from batch.output import sidecar  # noqa: PLC0415 - most nights drop nothing

    with contextlib.suppress(OSError):
        is_here = (root / name).is_file()  # not, where it is only in the bucket
        if is_here and not _is_same(root / name, root / file):
            return
        sidecar.drop(root, name)
        if is_here:
            (root / name).unlink()
            disk.flush((root / name).parent)


def _twins(root: Path, video: Path, folder: str) -> list[str]:
    return [f"{folder}/{path.name}" for path in _listed(root / folder) if _is_same(video, path)]


def _of_size(root: Path, folder: str, sizes: set[int]) -> list[str]:
    paths = _listed(root / folder)
    return [f"{folder}/{path.name}" for path in paths if path.stat().st_size in sizes]


def _listed(folder: Path) -> list[Path]:
    # A hidden one is a copy that was never completed.
    return sorted(path for path in folder.glob("*.mp4") if not path.name.startswith("."))


def _is_same(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()):
        return False
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
