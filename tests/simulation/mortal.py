"""A process that can die at any step, as by SIGKILL: nothing it does later has an effect.

Every step on the disk or the network calls `Life.point`. At the chosen step the process dies: its
coroutines never continue, and `point` refuses what a `finally` would still do to a file.
"""

from __future__ import annotations

import asyncio
import errno
import io
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, TypeVar

from batch.errors import StateError
from batch.output.results import ResultsFile
from batch.output.seen import MARKS
from batch.output.sqlite import Database
from batch.output.state import AddRow, Change
from batch.output.writer import SqliteState, _Entry

T = TypeVar("T")


class Died(BaseException):
    """The process is dead."""


class Life:
    """Counts the steps of a process; step *dies_at* is never done."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        self.steps: Counter[str] = Counter()
        self.count = 0
        self.died_of: str | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_dead(self) -> bool:
        return self.died_of is not None

    def point(self, name: str) -> None:
        """Pass a step, or die here.

        Raises:
            Died: now, or before.
        """
        if not self.is_dead:
            self.count += 1
            self.steps[name] += 1
            if self.count != self.dies_at:
                return
            self.died_of = name
            if self.loop is not None:
                self.loop.stop()
        raise Died(self.died_of)

    async def reach(self, name: str) -> None:
        """As `point`, for coroutines: in a dead process it never returns."""
        try:
            self.point(name)
        except Died:
            await asyncio.get_running_loop().create_future()


class _TornFile(io.RawIOBase):
    """A file opened to append. Each write may be short, and may be the last."""

    def __init__(self, file: Any, life: Life, rng: random.Random) -> None:
        super().__init__()
        self._file, self._life, self._rng = file, life, rng

    def write(self, data: Any) -> int:
        self._life.point("append: before")
        size = len(data) if self._rng.random() < 0.8 else self._rng.randint(1, len(data))
        written = int(self._file.write(bytes(data[:size])))
        self._life.point("append: after")
        return written

    def close(self) -> None:
        self._file.close()
        super().close()


def mortal_path(root: Path, life: Life, rng: random.Random) -> Path:
    """Return *root* as a path on and below which the process may die at every step."""

    class MortalPath(type(root)):  # type: ignore[misc]
        def __fspath__(self) -> str:
            name = "folder" if str(self) == str(root) else self.suffix or self.name
            if self.parent.name == MARKS:  # the library's id is chance
                name = "mark"
            life.point(f"path: {name}")
            return str(self)

        def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = io.open(self, mode, *args, **kwargs)  # noqa: UP020, SIM115 - the base's
            return _TornFile(file, life, rng) if mode == "ab" else file

    made: Path = MortalPath(str(root))
    return made


class MortalDisk(Executor):
    """Does blocking work on the loop, slightly later; may refuse it as a full disk does."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, life: Life, rng: random.Random, fault_rate: float
    ) -> None:
        self._loop, self._life, self._rng, self._fault_rate = loop, life, rng, fault_rate
        self._begun: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        is_running = self._rng.random() < 0.5
        if is_running:
            future.set_running_or_notify_cancel()

        def work() -> None:
            if work not in self._begun:
                return
            self._begun.remove(work)
            if not is_running and not future.set_running_or_notify_cancel():
                return
            self._work(future, fn, args, kwargs)

        self._begun.append(work)
        self._loop.call_later(self._rng.choice((0.0, 0.001, 0.05, 0.4)), work)
        return future

    def _work(self, future: Future[T], fn: Callable[..., T], args: Any, kwargs: Any) -> None:
        try:
            self._life.point("disk: before")
            if self._rng.random() < self._fault_rate:
                raise OSError(errno.ENOSPC, "No space left on device")
            result = fn(*args, **kwargs)
            self._life.point("disk: after")
        except Died:
            return
        except Exception as error:  # noqa: BLE001 - handed on, as a pool does
            future.set_exception(error)
        else:
            future.set_result(result)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Finish work already started, as a pool of threads does."""
        for work in list(self._begun):
            work()


class InlineState(SqliteState):
    """The state without its thread: commits within the gap share a transaction."""

    def __init__(
        self,
        database: Database,
        results: ResultsFile,
        *,
        life: Life,
        rng: random.Random,
        fault_rate: float,
    ) -> None:
        super().__init__(database, results)
        self._life, self._rng, self._fault_rate = life, rng, fault_rate
        self._pending: list[_Entry] = []

    def __enter__(self) -> InlineState:
        return self

    def __exit__(self, *_exc: object) -> None:
        if not self._life.is_dead:
            self._flush()

    def close(self) -> None:
        """Close the reading connection of a process that may have died."""
        self._reader.close()

    @property
    def database(self) -> Database:
        """The state as a reader sees it."""
        return self._reader

    async def commit(self, *changes: Change) -> None:
        await self._life.reach("commit: before")
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._pending.append(_Entry(changes, done, loop))
        if len(self._pending) == 1:
            loop.call_later(self._rng.choice((0.0, 0.001, 0.02)), self._flush)
        await done
        await self._life.reach("commit: after")

    def _flush(self) -> None:
        entries, self._pending = self._pending, []
        try:
            failure = self._attempt(entries)
        except Died:
            return
        for entry in entries:
            if entry.done.done() or entry.loop.is_closed():
                continue
            if failure is None:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(failure)

    def _attempt(self, entries: list[_Entry]) -> Exception | None:
        if not entries:
            return None
        self._life.point("store: before")
        if self._rng.random() < self._fault_rate:
            return StateError("the state cannot be written (a fault of the simulation)")
        failure = self._write(entries)
        self._life.point("store: after")
        return failure


def rows_in(changes: Iterable[Change]) -> list[str]:
    """Return the lines among *changes*."""
    return [change.line for change in changes if isinstance(change, AddRow)]
