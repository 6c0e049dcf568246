"""`State` on SQLite for the event loop: one thread writes, many commits share one flush."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Self

from batch.errors import RefusedError, StateError
from batch.output.direct import Answers
from batch.output.results import ResultsFile
from batch.output.sqlite import BUSY_TIMEOUT_S, Database
from batch.output.state import AddRow, Change

GROUPING_S = 0.05
SLOW_S = 5.0  # so long a commit may take before a word is said
LAST_PATIENCE_S = 1.0


class SqliteState(Answers):
    """`State` over a folder's database and results file.

    Use as a context manager; leaving it commits what is queued and ends the thread. Reads happen on
    the event loop, over a connection of their own: most are one row by an index. A write waits
    *patience_s* for a lock that another program holds; *on_wait* is called when that lasts.
    """

    def __init__(
        self,
        database: Database,
        results: ResultsFile,
        *,
        patience_s: float = BUSY_TIMEOUT_S,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        database.wait_for_locks(patience_s)
        self._reader = Database.open_to_read(database.path, beside_writer=True)
        super().__init__(self._reader)
        self._database = database
        self._results = results
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._last_write = 0.0
        self._on_wait: Callable[[], None] | None = on_wait
        self._thread = threading.Thread(target=self._work, name="state", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:
            self._reader.close()
            raise StateError(
                "the system grants no thread to write the state (ulimit -u or -v, or the limits of a"
                " container); nothing was sent. Raise that limit and run again"
            ) from error
        return self

    def __exit__(self, *_exc: object) -> None:
        self._queue.put(None)
        self._thread.join()
        self._reader.close()

    async def commit(self, *changes: Change) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._queue.put(_Entry(changes, done, loop))
        timer = loop.call_later(SLOW_S, self._tell_wait)
        try:
            await done
        finally:
            timer.cancel()

    def _tell_wait(self) -> None:
        on_wait, self._on_wait = self._on_wait, None
        if on_wait is not None:
            on_wait()

    def _work(self) -> None:
        open_for_more = True
        while open_for_more:
            entries: list[_Entry] = []
            written: list[tuple[list[_Entry], Exception | None]]
            try:
                open_for_more = self._take(entries)
                written = self._write_all(entries) if entries else []
            except Exception as error:  # noqa: BLE001 - what nobody settles is waited for for ever
                written = [(entries, error)]
            for together, failure in written:
                for loop in {entry.loop for entry in together}:
                    mine = [entry.done for entry in together if entry.loop is loop]
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(_settle, mine, failure)

    def _take(self, entries: list[_Entry]) -> bool:
        """Add what waits to *entries*; return whether more may come."""
        item = self._queue.get()
        while item is not None:
            entries.append(item)
            if len(entries) == 1:
                # After a pause at once; commits in quick succession share one flush per gap.
                gap_s = self._last_write + GROUPING_S - time.monotonic()
                if gap_s > 0:
                    time.sleep(gap_s)
                self._last_write = time.monotonic()
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return True
        return False

    def _write_all(self, entries: list[_Entry]) -> list[tuple[list[_Entry], Exception | None]]:
        """Write *entries* together; each by itself where one breaks a rule, to spare the others."""
        failure = self._write(entries)
        if isinstance(failure, RefusedError) and len(entries) > 1:
            return [([entry], self._write([entry])) for entry in entries]
        return [(entries, failure)]

    def _write(self, entries: list[_Entry]) -> Exception | None:
        changes = [change for entry in entries for change in entry.changes]
        try:
            self._database.write(changes)
            self._results.append([change.line for change in changes if isinstance(change, AddRow)])
        except Exception as error:  # noqa: BLE001 - handed to every waiting commit
            if not isinstance(error, RefusedError):
                self._database.wait_for_locks(LAST_PATIENCE_S)  # the run ends: no second long wait
            return error
        return None


class _Entry(NamedTuple):
    changes: tuple[Change, ...]
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


def _settle(waiting: list[asyncio.Future[None]], failure: Exception | None) -> None:
    for done in waiting:
        if done.done():
            continue
        if failure is None:
            done.set_result(None)
        else:
            done.set_exception(failure)
