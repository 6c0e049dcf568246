"""The journal: commits for the event loop, many with one flush."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import NamedTuple, Self

from batch.output.changes import Change, Row
from batch.output.results_file import ResultsFile
from batch.output.sqlite import Store

GROUPING_S = 0.05


class Journal:
    """Commits changes for the event loop: one writer thread, one flush for all that waits.

    Use as a context manager; leaving it commits what is queued and ends the thread.
    """

    def __init__(self, store: Store, results: ResultsFile) -> None:
        self._store = store
        self._results = results
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._last_write = 0.0
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._queue.put(None)
        self._thread.join()

    async def commit(self, *changes: Change) -> None:
        """Return when *changes* are on disk. They get there also if the caller is cancelled.

        Raises:
            StateError: the state cannot be written; or it was, and its rows could not be appended
                to results.jsonl, which the next run makes up for.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._queue.put(_Entry(changes, done, loop))
        await done

    def _work(self) -> None:
        open_for_more = True
        while open_for_more:
            entries, open_for_more = self._take()
            if entries:
                failure = self._write(entries)
                loops = {entry.loop for entry in entries}
                for loop in loops:
                    mine = [entry.done for entry in entries if entry.loop is loop]
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(_settle, mine, failure)

    def _take(self) -> tuple[list[_Entry], bool]:
        entries: list[_Entry] = []
        item = self._queue.get()
        # At once after a silence; in a crowd, whoever comes within the gap shares one flush.
        gap_s = self._last_write + GROUPING_S - time.monotonic()
        if item is not None and gap_s > 0:
            time.sleep(gap_s)
        self._last_write = time.monotonic()
        while item is not None:
            entries.append(item)
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return entries, True
        return entries, False

    def _write(self, entries: list[_Entry]) -> Exception | None:
        changes = [change for entry in entries for change in entry.changes]
        try:
            self._store.write(changes)
            self._results.append([change.line for change in changes if isinstance(change, Row)])
        except Exception as error:  # noqa: BLE001 - handed to those who wait, whatever it is
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
