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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from batch import events
from batch.attempt import Account
from batch.engines.chores import Chores
from batch.engines.clock import FleetClock
from batch.engines.deliveries import Deliveries
from batch.engines.engine import Engine
from batch.engines.leave import Leave, Times
from batch.engines.runs import House, Runs
from batch.engines.stop import Stops
from batch.errors import StateError
from batch.events import Event
from batch.output.fleet import Fleet, Work
from batch.run.stop import StopReason
from batch.waker import Waker

SWEEP_EVERY = 6  # beats


class Worker:
    """One process of a fleet. *name* is its own, and no later one's.

    Args:
        name: of this process.
        accounts: those whose keys it has.
        fleet: the shared records.
        engine: delivers the jobs.
        house: opens runs, and concludes them.
        clock: is set at every beat.
        times: how long it waits for what.
        notify: is told every event.
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
        times: Times,
        notify: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self.name = name
        self._accounts = accounts
        self._fleet = fleet
        self._engine = engine
        self._house = house
        self._clock = clock
        self._notify = notify
        self._leave = Leave(times, notify)
        self._chores = Chores(self._leave.say, notify)
        self._stops = Stops(fleet, self._chores)
        self._runs = Runs(fleet, house, self._stops.of, notify)
        self._deliveries = Deliveries(
            name,
            fleet=fleet,
            engine=engine,
            runs=self._runs,
            stops=self._stops,
            leave=self._leave,
            notify=notify,
        )
        self._beats = 0
        self._reached_at = clock.monotonic()

    async def work(self, ending: Waker) -> bool:
        """Work until *ending* is set; False if it ended since the state could not be reached."""
        leave, beat_s = self._leave, self._leave.times.beat_s
        leave.asked_by(ending)
        # Where nothing answers, a beat itself ends, after `unreachable_s`.
        long_s = 2 * leave.times.unreachable_s
        while not await self._beat_within(long_s, leave.within):
            if await leave.within(beat_s):
                return not leave.is_cut_off
        has_none = self._deliveries.has_none
        async with self._runs, self._deliveries.arriving(self._accounts):
            while not leave.is_near:
                await leave.within(beat_s, has_none)
                has_none.clear()
                await self._beat_within(long_s, leave.within)
            if not leave.is_cut_off:
                await self._drain()
            await self._chores.end()
        if not leave.is_cut_off:
            with suppress(TimeoutError):  # Postgres is away; its silence says the same, 30 s later
                await asyncio.wait_for(self._fleet.leave(self.name), leave.times.leave_s)
        return not leave.is_cut_off

    # -- beats

    async def _beat_within(self, seconds: float, within: Callable[..., Awaitable[bool]]) -> bool:
        """Beat; False if nothing has answered *within* that time, which ends with the worker."""
        done = Waker()
        beat = asyncio.create_task(self._beat())
        beat.add_done_callback(lambda _beat: done.set())
        try:
            await within(seconds, done)
            return beat.done() and beat.result()
        finally:
            beat.cancel()

    async def _beat(self) -> bool:
        """Say that this worker is alive, and do what it hears; False if nothing answers."""
        try:
            pulse = await self._fleet.beat(self.name, self._accounts)
        except StateError as error:
            if self._clock.monotonic() - self._reached_at > self._leave.times.unreachable_s:
                self._leave.give_up(error)
            return False
        self._reached_at = self._clock.monotonic()
        self._clock.set(pulse.now)
        for run_id, (reason, sentence) in pulse.stops.items():
            opened = self._runs.find(run_id)
            if opened is not None:
                opened.stop.hear(StopReason(reason), sentence)
        self._stops.begin_to_tell()
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
            is_here = self._deliveries.has(run_id, job_id)
            run = None if is_here else await self._fleet.run_of(run_id)
            if run is not None:
                await self._engine.deliver_again(run_id, run.account, job_id)
        for opened in self._runs:
            run_id = opened.handed.run_id
            is_here = self._deliveries.has_some_of(run_id)
            if not is_here and await self._fleet.run_of(run_id) is None:
                await self._runs.close(run_id)

    # -- the end

    async def _drain(self) -> None:
        """Let downloads and requests that are under way end; all else is left to other workers."""
        for opened in self._runs:
            opened.stop.end_here()
        leave, deliveries = self._leave, self._deliveries
        times, beat_s = leave.times, leave.times.beat_s
        until = self._clock.monotonic() + times.drain_s
        while deliveries.is_busy and (left_s := until - self._clock.monotonic()) > 0:
            within_s = min(left_s, beat_s)
            if await leave.cut_off_within(within_s, deliveries.is_idle):
                return
            await self._beat_within(beat_s, leave.cut_off_within)
