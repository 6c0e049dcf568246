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

CHUNK_BYTES = 2 * 1024 * 1024  # per hop to a thread; 64 KiB takes 2.5 times the wall time
SMALL_BYTES = 16 * 1024
WRITE_BACK_BYTES = 4 * 1024 * 1024  # the disk begins with every so many


class Part:
    """A file that grows during a download, with its hash. Use as an async context manager.

    It is created with the first bytes, and removed if the block fails.
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
        """The hash of the bytes in the file."""
        return self._hash.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Take in a chunk; it reaches the file with the next full `CHUNK_BYTES` or in `finish`.

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
        """Discard all bytes so far."""
        self._take_waiting()
        self.close()  # the next write creates it empty
        self._hash = hashlib.sha256()
        self.size = 0

    def copy_from(self, source: Path) -> None:
        """Fill the part from another file. Blocks."""
        with source.open("rb") as file:
            self.fill(iter(lambda: file.read(CHUNK_BYTES), b""))

    def fill(self, chunks: Iterable[bytes]) -> None:
        """Fill the part with *chunks*. Blocks."""
        for chunk in chunks:
            self.size += len(chunk)
            self._waiting.append(chunk)
            self.finish()

    def finish(self) -> None:
        """Write the chunks that still wait. Blocks: for a thread, in the hop that lands the file."""
        with self._using:
            if self._is_over:
                raise ValueError("the download was given up")
            if self._descriptor is None:
                self._descriptor = _create(self.path)
            _append(self._descriptor, self._take_waiting(), self._hash)

    def sync(self) -> None:
        """Flush the file to the disk. Blocks."""
        with self._using:
            assert self._descriptor is not None
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file once a write in progress has ended; no later one begins."""
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
    loop, while hashing and writing release it. For small ones a call each would take longer.
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
    """Have the disk begin with these bytes now, so that the flush at the end is short."""
    if hasattr(os, "posix_fadvise"):
        # Linux begins to write bytes that are declared as no longer needed. A file system may ignore
        # the hint.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
