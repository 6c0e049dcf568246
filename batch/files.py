"""The output folder: part files, and how a video becomes visible whole or not at all.

    .kling-batch/parts/<external id>.part  →  check  →  flush  →  rename  →  flush the folder

If we die right here: a part file is left over, which the next run removes, or a whole video is
there that the state does not know, which the next run fetches again, free of charge.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import filecmp
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

STATE_FOLDER = ".kling-batch"
CHUNK_BYTES = 2 * 1024 * 1024  # one thread hop for so much; 64 KiB costs 2.5 times the wall time
HASH_INLINE_BYTES = 256 * 1024  # a fraction of a millisecond: less than the hop would cost
T = TypeVar("T")


class OutputFolder:
    """Where the videos of one manifest live. Creates what it needs, when it is entered."""

    def __init__(self, root: Path, *, workers: int = 4, pool: Executor | None = None) -> None:
        self.root = root
        self.state = root / STATE_FOLDER
        self.parts = self.state / "parts"
        # A pool of its own: the default one is shared with name look-ups, and slow disks must not
        # keep those waiting.
        self._pool = pool or ThreadPoolExecutor(workers, thread_name_prefix="files")

    def __enter__(self) -> Self:
        shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.parts, ignore_errors=True)

    def is_present(self, file: str, size: int) -> bool:
        """Tell whether *file* (relative to the folder) is there, with *size* bytes."""
        try:
            status = os.stat(f"{self.root}/{file}")  # noqa: PTH116 - a third of pathlib's time
        except OSError:
            return False
        return status.st_size == size

    def part(self, name: str) -> Part:
        """Return the part file of this name, empty and not yet open."""
        return Part(self.parts / f"{name}.part", self._pool)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do blocking *work* beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def land(self, part: Part, file: str, *, keep_as: str) -> bool:
        """Move a checked *part* to *file*; True if another video was there and is now at *keep_as*.

        What was paid for is never destroyed: a former video is kept under its new name before
        the new one takes its place, and at no moment is there none.

        Raises:
            OSError: the disk or the permissions; the final name is then as it was.
        """
        await part.close()
        return await self.run(_land, part.path, self.root / file, self.root / keep_as)


class Part:
    """A file that grows while a download goes on, with its hash. Use as an async context manager.

    It is opened with the first bytes, and removed at the end unless it has landed.
    """

    def __init__(self, path: Path, pool: Executor) -> None:
        self.path = path
        self.size = 0
        self._pool = pool
        self._hash = hashlib.sha256()
        self._file: AsyncFileIO | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of by the write before
            await self.close()
        if error is not None:
            self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """The hash of what is in the file now."""
        return self._hash.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Take a chunk in; it reaches the file when enough is together, or at `flush`.

        Raises:
            OSError: the disk.
        """
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes >= CHUNK_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Bring everything taken in to the file (not yet through the operating system's cache)."""
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._file is None:
            self._file = await aiofiles.open(self.path, "wb", buffering=0, executor=self._pool)
        if len(data) > HASH_INLINE_BYTES:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._hash.update, data)
        else:
            self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[await self._file.write(view) :]
        self.size += len(data)

    async def restart(self) -> None:
        """Begin anew: what was fetched is of no use."""
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._file is not None and self.size:
            await self._file.seek(0)
            await self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    async def close(self) -> None:
        """Close the file; what was written is in the operating system's hands."""
        if self._file is not None:
            file, self._file = self._file, None
            await file.close()


def _land(part: Path, final: Path, keep_as: Path) -> bool:
    """Flush, rename, flush the folder. One thread hop for all of it."""
    _make_folder(final.parent)
    kept = False
    if final.exists() and not filecmp.cmp(part, final, shallow=False):
        _make_folder(keep_as.parent)
        with contextlib.suppress(FileExistsError):
            _link(final, keep_as)
            _flush_folder(keep_as.parent)
        kept = True
    with part.open("rb") as file:
        os.fsync(file.fileno())
    _move(part, final)
    _flush_folder(final.parent)
    return kept


def _make_folder(folder: Path) -> None:
    """Create *folder* and make its name durable, parents first."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; the rename has happened all the same.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, or another one
        shutil.copy2(source, target)


def _move(part: Path, final: Path) -> None:
    try:
        part.replace(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # videos/ lies on another file system than the state: the copy gets a hidden name beside
        # the final one, so that the last step is a rename all the same.
        beside = final.with_name(f".{part.name}")
        try:
            shutil.copyfile(part, beside)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(final)
        finally:
            beside.unlink(missing_ok=True)
