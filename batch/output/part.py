"""A part file: a download that grows on disk with its hash."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Executor
from io import FileIO
from pathlib import Path
from typing import Any, Self

import aiofiles.threadpool
from aiofiles.threadpool.binary import AsyncFileIO

CHUNK_BYTES = 2 * 1024 * 1024  # one thread hop for so much; 64 KiB costs 2.5 times the wall time
SMALL_BYTES = 16 * 1024
WRITE_BACK_BYTES = 4 * 1024 * 1024  # the disk is told to begin for each so much


class Part:
    """A file that grows while a download goes on, with its hash. Use as an async context manager.

    It is opened with the first bytes, and removed at the end unless it has landed.
    """

    def __init__(self, path: Path, pool: Executor) -> None:
        self.path = path
        self.size = 0
        self._pool = pool
        self._hash = hashlib.sha256()
        self._descriptor: int | None = None
        self._raw: FileIO | None = None
        self._is_over = False
        self._using = threading.Lock()  # a cancelled download must not close under a writer
        self._file: AsyncFileIO | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._is_over = True
        self.close()
        if error is not None:
            self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """The hash of what is in the file now."""
        return self._hash.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Take a chunk in; it reaches the file when enough is together, at the latest in `finish`.

        Raises:
            OSError: the disk.
        """
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        self.size += len(chunk)
        if self._waiting_bytes >= CHUNK_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        if self._file is None:
            # The descriptor stays ours, so that the last hop can flush and close it by itself.
            self._descriptor = await loop.run_in_executor(self._pool, _create, self.path)
            self._raw = _HashedFile(self._descriptor, self._hash, self._using)
            self._file = aiofiles.threadpool.wrap(self._raw, loop=loop, executor=self._pool)
        await self._file.writelines(self._take_waiting())

    def _take_waiting(self) -> list[bytes]:
        pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return pieces

    async def restart(self) -> None:
        """Begin anew: what was fetched is of no use."""
        self._take_waiting()
        self.close()  # it is created empty again, whoever had opened it
        self._hash = hashlib.sha256()
        self.size = 0

    def copy_from(self, source: Path) -> None:
        """Fill the part with a file that is here already. Blocks."""
        with source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self.size += len(chunk)
                self._waiting.append(chunk)
                self.finish()

    def finish(self) -> None:
        """Write what still waits. Blocks: for a thread, in the hop that lands the file."""
        with self._using:
            if self._is_over:
                raise ValueError("the download was given up")
            if self._descriptor is None:
                self._descriptor = _create(self.path)
            _append(self._descriptor, self._take_waiting(), self._hash)

    def sync(self) -> None:
        """Bring what was written through the operating system's cache. Blocks."""
        with self._using:
            assert self._descriptor is not None
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; waits for a write under way, and lets none begin after."""
        with self._using:
            if self._raw is not None:
                self._raw.close()
                self._raw = None
            if self._descriptor is not None:
                descriptor, self._descriptor, self._file = self._descriptor, None, None
                os.close(descriptor)


class _HashedFile(FileIO):
    """A file that hashes what it writes, so that one hop to a thread does both."""

    def __init__(self, descriptor: int, sha256: hashlib._Hash, using: threading.Lock) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._sha256 = sha256
        self._using = using
        self._size = self._on_its_way = 0

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write and hash all of *lines*."""
        with self._using:
            descriptor = self.fileno()
            self._size += _append(descriptor, list(lines), self._sha256)
            waiting = self._size - self._on_its_way
            if waiting >= WRITE_BACK_BYTES:
                _begin_write_back(descriptor, self._on_its_way, waiting)
                self._on_its_way = self._size


def _append(descriptor: int, pieces: list[bytes], sha256: hashlib._Hash) -> int:
    """Write and hash *pieces*; return how many bytes they were.

    Large ones are not joined: the copy would hold the interpreter's lock, and with it the event
    loop, while hashing and writing let go of it. For small ones a call each would be dearer.
    """
    size = sum(map(len, pieces))
    if size < len(pieces) * SMALL_BYTES:
        pieces = [b"".join(pieces)]
    for piece in pieces:
        sha256.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]
    return size


def _begin_write_back(descriptor: int, start: int, length: int) -> None:
    """Have the disk begin with these bytes now, so that the flush at the end finds few left."""
    if hasattr(os, "posix_fadvise"):
        # Linux begins to write what it is told will not be needed. It is a hint, and a file system
        # that does not take it loses nothing.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
