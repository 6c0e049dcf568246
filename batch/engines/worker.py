"""A worker: executes the jobs that the engine delivers, and does its share for the fleet.

    every beat    say "alive"; hear which runs are stopped, who is dead, which run is settled
    a delivery    claim → carry out → settle
    a dead one    its jobs are queued again, by one of those that notice it
    a settled run its parked jobs once more; then it is ended, by one of those that notice it

Two rules keep all this harmless, whoever is wrong about whom: what is committed names its claim, and
all calls to the fleet may be repeated.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from batch import events
from batch.attempt import Account
from batch.engines.carry import Opened, carry_out
from batch.engines.chores import Chores
from batch.engines.clock import FleetClock
from batch.engines.engine import Engine, Fate
from batch.engines.runs import House, Runs
from batch.engines.stop import Tell
from batch.errors import BatchError, ClaimLostError, RefusedError, StateError, UsageError
from batch.events import Event
from batch.output.fleet import BEAT_S, CLAIM, Assignment, Fleet, JobState, Work
from batch.run.stop import StopReason
from batch.waker import Waker, sleep

MOST_TAKEOVERS = 5  # a job over which so many workers have died is not tried again in this run
SPARE_ROOM = 32  # jobs beside those at the provider: they download, or wait for a slot
SWEEP_EVERY = 6  # beats


@dataclass(frozen=True, slots=True)
class Times:
    """How long a worker waits for what, in seconds.

    *drain_s* for downloads when it is to end; *unreachable_s* for the state before it ends by itself;
    *refused_s* with the jobs of a run that it is not meant for.
    """

    beat_s: float = BEAT_S
    drain_s: float = 60.0
    unreachable_s: float = 600.0
    refused_s: float = 10.0


class Worker:
    """One process of a fleet. *name* is its own, and no later one's.

    Args:
        name: of this process.
        accounts: those whose keys it has.
        fleet: the shared records.
        engine: delivers the jobs.
        house: opens runs, and concludes them.
        clock: is set at every beat.
        notify: is told every event.
        times: how long it waits for what.
    """

    def __init__(
        self,
        name: str,
        accounts: Sequence[Account],
        *,
        fleet: Fleet,
        engine: Engine,
        house: House,
        clock: FleetClock,
        notify: Callable[[Event], None] = lambda _event: None,
        times: Times = Times(),
    ) -> None:
        self.name = name
        self._accounts = accounts
        self._fleet = fleet
        self._engine = engine
        self._house = house
        self._clock = clock
        self._notify = notify
        self._times = times
        self._runs = Runs(fleet, house, self._tell, notify)
        self._lives: dict[tuple[str, str], set[asyncio.Task[Any]]] = {}
        self._busy: set[asyncio.Task[Any]] = set()  # with what it can end
        self._is_idle = Waker()
        self._has_none = Waker()  # of the jobs that were delivered: a run may be settled
        self._chores = Chores(self._say, notify)
        self._untold: dict[tuple[str, StopReason], str] = {}
        self._said: set[str] = set()
        self._ending = Waker()
        self._cut_off = Waker()
        self._beats = 0
        self._reached_at = clock.monotonic()

    async def work(self, ending: Waker) -> bool:
        """Work until *ending* is set; False if it ended since the state could not be reached."""
        self._ending = ending
        while not await self._beat():
            if await sleep(self._times.beat_s, ending, self._cut_off):
                return not self._cut_off.is_set()
        rooms = dict.fromkeys(self._accounts, SPARE_ROOM)
        async with self._runs, self._engine.working(rooms, self.live):
            while not (ending.is_set() or self._cut_off.is_set()):
                await sleep(self._times.beat_s, ending, self._cut_off, self._has_none)
                self._has_none.clear()
                await self._beat()
            if not self._cut_off.is_set():
                await self._drain()
            await self._chores.end()
        if not self._cut_off.is_set():
            await self._fleet.leave(self.name)
        return not self._cut_off.is_set()

    # -- jobs

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
            self._give_up(error)
            return await self._hold()
        finally:
            lives.discard(task)
            if not lives and self._lives.get(key) is lives:
                del self._lives[key]
            self._rest(task)
            if not self._lives:
                self._has_none.set()

    async def _live(self, run_id: str, job_id: str) -> Fate:
        if self._ending.is_set() or self._cut_off.is_set():
            return await self._hold()
        try:
            opened = await self._runs.get(run_id)
        except UsageError as error:
            self._say(f"run {run_id}: {error}")
            await sleep(self._times.refused_s, self._ending, self._cut_off)
            return Fate.BACK
        if opened is None:
            return Fate.DONE
        await self._make_room(opened)
        assignment = await self._fleet.claim(run_id, job_id, self.name)
        if assignment is None:
            return Fate.DONE
        CLAIM.set(assignment.claim)
        state = await self._carry_out(opened, assignment)
        if state is JobState.LEFT and self._ending.is_set() and not opened.stop.leaves_run:
            return await self._hold()  # left by this worker, not by the run
        if state is None:
            return Fate.DONE
        if state is not JobState.DONE:  # why, before the run may be ended for it
            await self._tell_all()
        await self._fleet.settle(assignment.claim, state)
        return Fate.DONE

    async def _carry_out(self, opened: Opened, assignment: Assignment) -> JobState | None:
        job_id = assignment.claim.job_id
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        self._is_idle.clear()
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
            f"a bug ended the work on job {job_id!r} ({last}); see the log of worker {self.name}"
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
            self._is_idle.set()

    # -- beats

    async def _beat(self) -> bool:
        """Say that this worker is alive, and do what it hears; False if nothing answers."""
        try:
            pulse = await self._fleet.beat(self.name, self._accounts)
        except StateError as error:
            if self._clock.monotonic() - self._reached_at > self._times.unreachable_s:
                self._give_up(error)
            return False
        self._reached_at = self._clock.monotonic()
        self._clock.set(pulse.now)
        for run_id, (reason, sentence) in pulse.stops.items():
            opened = self._runs.find(run_id)
            if opened is not None:
                opened.stop.hear(StopReason(reason), sentence)
        self._chores.do(("tell",), self._tell_all)
        for worker in pulse.dead:
            self._chores.do(("bury", worker), partial(self._bury, worker))
        for run_id in pulse.settled:
            self._chores.do(("end", run_id), partial(self._end, run_id))
        if self._beats % SWEEP_EVERY == SWEEP_EVERY - 1:
            self._chores.do(("sweep",), self._sweep)
        self._beats += 1
        return True

    async def _bury(self, worker: str) -> None:
        if await self._fleet.bury(worker, partial(self._engine.take_over, worker)):
            self._notify(events.Warned(f"the worker {worker} is gone: its jobs are taken over"))

    async def _end(self, run_id: str) -> None:
        """Have parked jobs looked at once more; after that, end the run."""
        opened = await self._runs.get(run_id)
        if opened is None:
            return
        account = opened.handed.account

        def enqueue(transaction: Any, jobs: Sequence[Work]) -> None:
            places = [(place, work.job_id) for place, work in enumerate(jobs)]
            self._engine.enqueue(transaction, run_id, account, places, look=2)

        if await self._fleet.look_again(run_id, enqueue):
            return
        run = await self._fleet.run_of(run_id)
        if run is None:
            return
        outcome = await self._fleet.outcome(run_id)
        exit_code, record = await self._house.conclude(replace(opened, handed=run), outcome)
        await self._fleet.end(run_id, int(exit_code), record)
        await self._runs.close(run_id)
        await self._engine.forget(run_id)

    async def _sweep(self) -> None:
        """Find jobs that were lost on their way, and close runs that others have ended."""
        await self._engine.take_over_unknown(await self._fleet.workers())
        for run_id, job_id in await self._fleet.astray(self.name):
            run = None if (run_id, job_id) in self._lives else await self._fleet.run_of(run_id)
            if run is not None:
                await self._engine.deliver_again(run_id, run.account, job_id)
        for opened in self._runs:
            run_id = opened.handed.run_id
            is_idle = not any(run_id == key[0] for key in self._lives)
            if is_idle and await self._fleet.run_of(run_id) is None:
                await self._runs.close(run_id)

    # -- stops

    def _tell(self, run_id: str) -> Tell:
        def tell(reason: StopReason, sentence: str) -> None:
            self._untold[run_id, reason] = sentence
            self._chores.do(("tell",), self._tell_all)

        return tell

    async def _tell_all(self) -> None:
        """Stop the runs everywhere that were stopped here; what fails is told at a later beat."""
        while self._untold:
            (run_id, reason), sentence = next(iter(self._untold.items()))
            await self._fleet.stop(run_id, reason.value, sentence)
            self._untold.pop((run_id, reason), None)

    # -- the end

    async def _drain(self) -> None:
        """Let downloads and requests that are under way end; all else is left to other workers."""
        for opened in self._runs:
            opened.stop.end_here()
        until = self._clock.monotonic() + self._times.drain_s
        if not self._busy:
            return
        while (left_s := until - self._clock.monotonic()) > 0:
            if await sleep(min(left_s, self._times.beat_s), self._is_idle, self._cut_off):
                return
            await self._beat()

    def _give_up(self, error: BatchError) -> None:
        """End, so that another worker, or a later one, takes over."""
        self._say(f"{error}; this worker ends, to begin anew")
        self._cut_off.set()

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._notify(events.Warned(sentence))
