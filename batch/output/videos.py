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
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import aiofiles.threadpool
from aiofiles.threadpool.binary import AsyncFileIO

from batch.errors import StateError
from batch.job import STATE_FOLDER
from batch.output import disk as folders
from batch.output.grouped import Grouped

CHUNK_BYTES = 2 * 1024 * 1024  # one thread hop for so much; 64 KiB costs 2.5 times the wall time
SMALL_BYTES = 16 * 1024
WRITE_BACK_BYTES = 4 * 1024 * 1024  # the disk is told to begin for each so much
HELD_BYTES = 256 * 1024  # of a small file, which waits in memory for its turn at the disk
GROUPING_S = 0.05  # small files that come within so long share a hop and a flush of the folder
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
        self._small = Grouped(self._land_small, self._pool, GROUPING_S)

    def __enter__(self) -> Self:
        shutil.rmtree(self.parts, ignore_errors=True)
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{self.parts} cannot be made: {error.strerror or error}") from error
        self._identity = self._place()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _place(self) -> tuple[int, int]:
        status = os.stat(self.parts)  # noqa: PTH116 - once per video
        return status.st_dev, status.st_ino

    def _check_place(self) -> None:
        """Nothing may land in a folder that has taken this one's place."""
        if self._place() != self._identity:
            raise OSError(errno.ESTALE, "the output folder was moved or replaced", str(self.root))

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

    async def keep(self, file: str, keep_as: str) -> None:
        """Give the video at *file*, if there is one, a second name.

        Raises:
            OSError: the disk or the permissions.
        """
        self._check_place()
        await self.run(_keep_if_there, self.root / file, self.root / keep_as)

    async def land(self, part: Part, file: str, *, keep_as: str, check: Callable[[Path], T]) -> T:
        """Check a complete *part* and move it to *file*: one hop to a thread for all of it.

        What was paid for is never destroyed: a former video is kept at *keep_as* before the new
        one takes its place, and at no moment is there none. Returns what *check* has found.

        Raises:
            OSError: the disk or the permissions; the final name is then as it was.
            Exception: whatever *check* raises; nothing has moved, and the part is still open.
        """
        self._check_place()
        return await self.run(_land, part, self.root / file, self.root / keep_as, check)

    async def land_small(self, part: Part, file: str, *, keep_as: str) -> None:
        """Move a *part* that is still in memory, and has been checked, to *file*; see `land`.

        Those that come at nearly the same time share the way to the disk, not their fate.

        Raises:
            OSError: the disk or the permissions.
        """
        await self._small.do(_Small(part, self.root / file, self.root / keep_as))

    def _land_small(self, landings: Sequence[_Small]) -> list[Exception | None]:
        self._check_place()
        return _land_small(landings)


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
        self._using = (
            threading.Lock()
        )  # a cancelled download must not close what a thread writes to
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

    def in_memory(self) -> bytes | None:
        """Return the whole content, if it is small and nothing of it was written yet."""
        if self._waiting_bytes != self.size or self.size > HELD_BYTES:
            return None
        self._waiting = [b"".join(self._waiting)]
        return self._waiting[0]

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

    def begin_sync(self) -> None:
        """Have the disk begin with what was written, without waiting for it."""
        with self._using:
            if self._descriptor is not None:
                _begin_write_back(self._descriptor, 0, self.size)

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


def _land(part: Part, final: Path, keep_as: Path, check: Callable[[Path], T]) -> T:
    part.finish()
    found = check(part.path)
    part.sync()
    _take_place(part, final, keep_as)
    folders.flush(final.parent)
    return found


class _Small(NamedTuple):
    """A small file on its way to its place."""

    part: Part
    final: Path
    keep_as: Path


def _land_small(landings: Sequence[_Small]) -> list[Exception | None]:
    """Write them all, then flush each, then move each, then flush each folder once.

    What goes wrong with one is told of that one; a folder that cannot be flushed, of all in it.
    """
    failures: list[Exception | None] = [None] * len(landings)

    def each(step: Callable[[_Small], None]) -> None:
        for number, landing in enumerate(landings):
            if failures[number] is None:
                try:
                    step(landing)
                except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
                    failures[number] = error

    flushed: dict[Path, OSError | None] = {}

    def flush(landing: _Small) -> None:
        folder = landing.final.parent
        if folder not in flushed:
            flushed[folder] = _trouble_of(folders.flush, folder)
        if (trouble := flushed[folder]) is not None:
            raise trouble

    each(_write)
    each(lambda landing: landing.part.sync())
    each(lambda landing: _take_place(landing.part, landing.final, landing.keep_as))
    each(flush)
    return failures


def _write(landing: _Small) -> None:
    landing.part.finish()
    landing.part.begin_sync()


def _trouble_of(work: Callable[[Path], None], path: Path) -> OSError | None:
    try:
        work(path)
    except OSError as error:
        return error
    return None


def _take_place(part: Part, final: Path, keep_as: Path) -> None:
    """Move a flushed part to its name; what is there and differs is kept before."""
    part.close()
    folders.make(final.parent)
    if final.exists() and not filecmp.cmp(part.path, final, shallow=False):
        _keep(final, keep_as)
    _move(part.path, final)


def _keep_if_there(final: Path, keep_as: Path) -> None:
    if final.is_file():
        _keep(final, keep_as)


def _keep(final: Path, keep_as: Path) -> None:
    """Give a former video its name; another one, if that name holds something else already."""
    folders.make(keep_as.parent)
    for number in itertools.count(1):
        name = keep_as if number == 1 else keep_as.with_suffix(f".{number}.mp4")
        if not name.exists():
            _link(final, name)
            folders.flush(name.parent)
            return
        if filecmp.cmp(name, final, shallow=False):
            return  # kept by a run that died right after


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, or another one
        _copy(source, target, beside=target.with_name(f".{target.name}"))


def _move(part: Path, final: Path) -> None:
    try:
        part.replace(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # videos/ lies on another file system than the state.
        _copy(part, final, beside=final.with_name(f".{part.name}"))
        part.unlink(missing_ok=True)


def _copy(source: Path, target: Path, *, beside: Path) -> None:
    """Copy to a hidden name *beside* the target, so that the last step is a rename all the same."""
    try:
        shutil.copyfile(source, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
