"""The jobs that an engine delivers to a worker: each is claimed, carried out, and settled."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from batch import events
from batch.attempt import Account
from batch.engines.carry import Opened, carry_out
from batch.engines.engine import Engine, Fate
from batch.engines.leave import Leave
from batch.engines.runs import Runs
from batch.engines.stop import Stops
from batch.errors import BatchError, ClaimLostError, RefusedError, StateError, UsageError
from batch.events import Event
from batch.output.fleet import CLAIM, Assignment, Fleet, JobState
from batch.run.stop import StopReason
from batch.waker import Waker

MOST_TAKEOVERS = 5  # a job over which so many workers have died is not tried again in this run
SPARE_ROOM = 32  # jobs beside those at the provider: they download, or wait for a slot


class Deliveries:
    """What is delivered to one worker.

    Args:
        worker: its name.
        fleet: the shared records.
        engine: delivers the jobs.
        runs: those that the worker has open.
        stops: tells the fleet which runs are to stop.
        leave: when the worker ends.
        notify: is told every event.
    """

    def __init__(
        self,
        worker: str,
        *,
        fleet: Fleet,
        engine: Engine,
        runs: Runs,
        stops: Stops,
        leave: Leave,
        notify: Callable[[Event], None],
    ) -> None:
        self._worker = worker
        self._fleet = fleet
        self._engine = engine
        self._runs = runs
        self._stops = stops
        self._leave = leave
        self._notify = notify
        self._lives: dict[tuple[str, str], set[asyncio.Task[Any]]] = {}
        self._busy: set[asyncio.Task[Any]] = set()  # with what the worker can end
        self.is_idle = Waker()
        self.has_none = Waker()  # of the jobs that were delivered: a run may be settled

    def arriving(self, accounts: Sequence[Account]) -> AbstractAsyncContextManager[None]:
        """Have jobs of *accounts* delivered while the block runs."""
        return self._engine.working(dict.fromkeys(accounts, SPARE_ROOM), self.live)

    @property
    def is_busy(self) -> bool:
        """Whether something is under way that a worker lets end before it ends itself."""
        return bool(self._busy)

    def has(self, run_id: str, job_id: str) -> bool:
        """Return whether a job is under way here."""
        return (run_id, job_id) in self._lives

    def has_some_of(self, run_id: str) -> bool:
        """Return whether some job of a run is under way here."""
        return any(run_id == key[0] for key in self._lives)

    async def live(self, run_id: str, job_id: str) -> Fate:
        """Carry out a job that the engine delivers; returns only when it is known how it came out."""
        key, task = (run_id, job_id), asyncio.current_task()
        assert task is not None
        lives = self._lives.setdefault(key, set())
        former = [life for life in lives if life is not task]
        lives.add(task)
        try:
            for life in former:  # woken up, this worker may be handed its own job again
                life.cancel()
            if former:
                await asyncio.wait(former)
            return await self._live(run_id, job_id)
        except ClaimLostError:
            return Fate.LOST
        except StateError as error:
            self._leave.give_up(error)
            return await self._hold()
        finally:
            lives.discard(task)
            if not lives and self._lives.get(key) is lives:
                del self._lives[key]
            self._rest(task)
            if not self._lives:
                self.has_none.set()

    async def _live(self, run_id: str, job_id: str) -> Fate:
        if self._leave.is_near:
            return await self._hold()
        try:
            opened = await self._runs.get(run_id)
        except UsageError as error:
            return await self._refuse(run_id, error)
        if opened is None:
            return Fate.DONE
        await self._make_room(opened)
        assignment = await self._fleet.claim(run_id, job_id, self._worker)
        if assignment is None:
            return Fate.DONE
        CLAIM.set(assignment.claim)
        state = await self._carry_out(opened, assignment)
        if state is JobState.LEFT and self._leave.is_asked and not opened.stop.leaves_run:
            return await self._hold()  # left by this worker, not by the run
        if state is None:
            return Fate.DONE
        if state is not JobState.DONE:  # why, before the run may be ended for it
            await self._stops.tell()
        await self._fleet.settle(assignment.claim, state)
        return Fate.DONE

    async def _refuse(self, run_id: str, error: UsageError) -> Fate:
        self._leave.say(f"run {run_id}: {error}")
        await self._leave.within(self._leave.times.refused_s)
        return Fate.BACK

    async def _carry_out(self, opened: Opened, assignment: Assignment) -> JobState | None:
        job_id = assignment.claim.job_id
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        self.is_idle.clear()
        if assignment.takeovers > MOST_TAKEOVERS:
            return self._bug(opened, job_id, f"{assignment.takeovers} workers have died over it")
        try:
            return await carry_out(opened, assignment)
        except RefusedError as error:
            opened.stop.ask(StopReason.STATE, f"{error}; nothing more is submitted")
            return JobState.LEFT
        except BatchError:
            raise
        except Exception as error:  # noqa: BLE001 - told as a bug of ours, with its traceback
            return self._bug(opened, job_id, "".join(traceback.format_exception(error)))

    def _bug(self, opened: Opened, job_id: str, report: str) -> JobState:
        self._notify(events.BugFound(job_id, report))
        last = report.strip().splitlines()[-1]
        sentence = (
            f"a bug ended the work on job {job_id!r} ({last}); see the log of worker {self._worker}"
        )
        opened.stop.ask(StopReason.BUG, sentence)
        return JobState.BUG

    async def _make_room(self, opened: Opened) -> None:
        room = opened.terms.limits.max_in_flight + SPARE_ROOM
        await self._engine.make_room(opened.handed.account, room)

    async def _hold(self) -> Fate:
        """Keep a delivery until this worker has ended, so that it is taken over then."""
        task = asyncio.current_task()
        assert task is not None
        self._rest(task)
        await Waker().wait()
        raise AssertionError("a held delivery was let go")

    def _rest(self, task: asyncio.Task[Any]) -> None:
        self._busy.discard(task)
        if not self._busy:
            self.is_idle.set()
