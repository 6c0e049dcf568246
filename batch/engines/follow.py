"""Follow a run that the workers carry out: the same words, summary and exit code as on one machine.

A follower that ends stops nothing. Only where a run is stopped or done and no worker ends it, it does: none
is alive, none has its key, or those that have it lack its folder, or cannot write there.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from batch import events
from batch.clock import Clock
from batch.engines.chores import beside
from batch.engines.conclude import conclude, summary_of
from batch.engines.ending import Ending
from batch.engines.terms import Terms
from batch.errors import AwayError, BatchError, ExitCode, StateError
from batch.events import Event
from batch.output.fleet import BEAT_S, Fleet, OpenRun, Progress
from batch.output.row import is_superseded
from batch.output.store import Store
from batch.run.signals import on_stop
from batch.run.stop import LEAVES, StopReason
from batch.run.summary import Summary
from batch.waker import Waker, sleep

T = TypeVar("T")
Reader = Callable[[], AbstractContextManager[Store]]
LOOKS_S = 1.0
LEAVES_WITHIN_S = 5.0  # after the second signal, whether or not the database answers
QUIET_S = 15.0  # so long nothing was done any more: no worker will end the run
NO_WORKER = (
    "no worker of the fleet is alive that has this run's key: the run waits. Start one with `kling-batch"
    " worker`, on any machine that has the engine's address, the key and the folder; with --base-url, if"
    " the run has one"
)
NOT_TAKEN_UP = (
    "no worker has taken up a job of this run so far: those that have its key are busy with other runs, or"
    " do not find its folder at the path where it was planned (is the disk mounted?); their logs say which"
)
FORGOTTEN = (
    "the database does not know the run {} any more: a copy of it, or a backup, has taken its place, and"
    " what was submitted last may be forgotten. Run again: the next run looks for it"
)
SOFTLY = (
    "nothing more is submitted, open tasks are left to the next run, downloads under way finish; once"
    " more to leave the workers to it"
)


class LeftError(BatchError):
    """A person has insisted to leave a run that has not ended."""

    def __init__(self, number: signal.Signals) -> None:
        is_term = number is signal.SIGTERM
        self.exit_code = ExitCode.TERMINATED if is_term else ExitCode.INTERRUPTED
        super().__init__(
            f"left at the second {number.name}; the workers end the run (`kling-batch run --join`)"
        )


@dataclass
class Follower:
    """Follows one run.

    Args:
        run: as it was handed over.
        fleet: the shared records.
        ending: ends the run, if no worker does.
        name: a worker's, for the time of that.
        clock: the time.
        notify: is told what happens.
        looks_s: between two looks.
        quiet_s: for which nothing was done any more, before the run is ended here.
    """

    run: OpenRun
    fleet: Fleet
    ending: Ending
    name: str
    clock: Clock
    notify: Callable[[Event], None]
    looks_s: float = LOOKS_S
    quiet_s: float = QUIET_S
    _held_at: float = 0.0
    _insisted: list[signal.Signals] = field(default_factory=list)
    _asked: Waker = field(default_factory=Waker)
    _stops: list[tuple[StopReason, str]] = field(default_factory=list)
    _has_said_stop: bool = False
    _has_said_none: bool = False
    _idle_since: float | None = None  # until the run is seen taken up, or that it is not was said

    async def follow(self, library: Reader, *, handle_signals: bool = False) -> Summary:
        """Follow the run to its end; return its summary.

        Args:
            library: the library, to read.
            handle_signals: the first SIGINT or SIGTERM stops the run softly, the second ends this.

        Raises:
            LeftError: the second signal came while the database did not answer.
            StateError: the run is not known any more, or the database has not answered for too long.
        """
        with self._signals() if handle_signals else _nothing():
            task = asyncio.create_task(self._follow(library))
            try:
                while not task.done() and not self._insisted:
                    await asyncio.wait({task}, timeout=self.looks_s)
                await asyncio.wait({task}, timeout=LEAVES_WITHIN_S)
                if not task.done():
                    raise LeftError(self._insisted[0])
                return task.result()
            finally:
                task.cancel()

    async def _follow(self, library: Reader) -> Summary:
        progress = await self._progress()
        self._held_at = self._idle_since = self.clock.monotonic()
        rows = _Rows(library, self.run.run_id)
        while progress.exit_code is None and not self._insisted:
            await self._stop()
            self._tell(progress, await asyncio.to_thread(rows.new))
            await self._tell_idle(progress)
            await self._end_without_workers(progress)
            await sleep(self.looks_s, self._asked)
            self._asked.clear()
            progress = await self._progress()
        self._tell(progress, await asyncio.to_thread(rows.new))
        return await self._summary(library, progress)

    async def _progress(self) -> Progress:
        """Return how far the run is, as soon as the database answers."""
        found = await self.fleet.progress(self.run.run_id)
        if found is None:
            raise StateError(FORGOTTEN.format(self.run.run_id))
        return found

    async def _stop(self) -> None:
        while self._stops:
            reason, sentence = self._stops[0]
            await self.fleet.stop(self.run.run_id, reason.value, sentence)
            self._stops.pop(0)

    def _tell(self, progress: Progress, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            job_id = str(row["job_id"])
            self.notify(events.JobEnded(job_id, row, superseded=is_superseded(row)))
        if progress.stop is not None and not self._has_said_stop:
            self._has_said_stop = True
            self.notify(events.Stopping(progress.stop[1]))
        if progress.workers:
            self._has_said_none = False
        elif progress.exit_code is None and not self._has_said_none:
            self._has_said_none = True
            self.notify(events.Warned(NO_WORKER))

    async def _tell_idle(self, progress: Progress) -> None:
        """Say once that workers are there, and that none takes the run up: each refuses its folder."""
        now, since = self.clock.monotonic(), self._idle_since
        if since is None:
            return
        if not progress.workers:
            self._idle_since = now
        elif now - since >= self.quiet_s:
            self._idle_since = None
            if progress.stop is None and not await self.fleet.is_taken_up(self.run.run_id):
                self.notify(events.Warned(NOT_TAKEN_UP))

    async def _end_without_workers(self, progress: Progress) -> None:
        """End a run in which nothing will be done any more, where no worker does."""
        now = self.clock.monotonic()
        is_left = progress.stop is not None and progress.stop[0] in LEAVES
        if progress.is_held:
            self._held_at = now
        is_quiet = now - self._held_at >= self.quiet_s
        if not is_quiet and not (is_left and not progress.workers):
            return
        run = await self.fleet.run_of(self.run.run_id)
        if run is None:
            return
        outcome = await self.fleet.outcome(run.run_id)
        async with self._alive():
            try:
                exit_code, record = await asyncio.to_thread(
                    self.ending.write, run, Terms.of(run), outcome
                )
            except AwayError:
                return
            await self.fleet.end(run.run_id, int(exit_code), record)

    @asynccontextmanager
    async def _alive(self) -> AsyncIterator[None]:
        """Be a worker: if this process is stopped in the block, others take what it holds."""

        async def beat() -> None:
            while True:
                with suppress(StateError):
                    await self.fleet.beat(self.name, ())
                await asyncio.sleep(BEAT_S)

        await self.fleet.beat(self.name, ())  # takes what another holds
        try:
            async with beside(beat()):
                yield
        finally:
            await self.fleet.leave(self.name)
            await self.fleet.bury(self.name, lambda: None)  # it had no jobs

    async def _summary(self, library: Reader, progress: Progress) -> Summary:
        run, terms = replace(self.run, stop=progress.stop), Terms.of(self.run)
        outcome = await self.fleet.outcome(run.run_id)
        found = conclude(run, terms, outcome, None)
        known = await self._read(library, lambda store: store.known())
        seconds = round(max(self.clock.now() - run.began_at, 0.0), 3)
        if self._insisted:
            left = LeftError(self._insisted[0])
            found = replace(found, exit_code=left.exit_code, stopped=str(left))
            return summary_of(run, terms, outcome, found, known, seconds=seconds)
        recorded = await self._read(library, lambda store: _record_of(store, run.run_id))
        assert progress.exit_code is not None
        found = replace(
            found, exit_code=ExitCode(progress.exit_code), stopped=recorded.get("stopped")
        )
        more = {"warnings": tuple(recorded.get("warnings", ())), "uploads": recorded.get("uploads")}
        return summary_of(run, terms, outcome, found, known, seconds=seconds, **more)

    async def _read(self, library: Reader, read: Callable[[Store], T]) -> T:
        """Return what *read* does, as soon as the database answers."""
        while True:
            with suppress(AwayError):
                return await asyncio.to_thread(_reading, library, read)
            await self._progress()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(number: signal.Signals) -> None:
            is_int = number is signal.SIGINT
            reason = StopReason.INTERRUPTED if is_int else StopReason.TERMINATED
            self._stops.append((reason, f"{number.name}: {SOFTLY}"))
            self._asked.set()

        def insist(number: signal.Signals) -> None:
            self._insisted.append(number)
            self._asked.set()

        with on_stop(ask, insist):
            yield


class _Rows:
    """The rows of a run as they come, over a connection that is made anew when it is lost."""

    def __init__(self, library: Reader, run_id: str) -> None:
        self._library = library
        self._named = f'"run_id":"{run_id}"'
        self._seen = 0

    def new(self) -> list[dict[str, Any]]:
        """Return the rows since the last call; none where the database does not answer. Blocks."""
        found = []
        with suppress(StateError):
            for line in _reading(self._library, lambda store: list(store.result_lines(self._seen))):
                self._seen += 1
                if self._named in line:
                    found.append(json.loads(line))
        return found


def _reading(library: Reader, read: Callable[[Store], T]) -> T:
    with library() as store:
        return read(store)


def _record_of(store: Store, run_id: str) -> dict[str, Any]:
    for known in store.runs(5):
        if known[0] == run_id and known[4]:
            record: dict[str, Any] = json.loads(known[4])
            return record
    return {}


@contextmanager
def _nothing() -> Iterator[None]:
    yield
