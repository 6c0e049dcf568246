"""A run: a feeder, and one coroutine per job (see `batch.run.job_run`).

The feeder waits for a slot and a turn before it starts a job, so what is in flight, not what is
listed, decides how much a run needs. A job's failure is data; only a state that cannot be written
ends the run at once.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import replace

from batch import events
from batch.errors import ExitCode, StateError
from batch.events import Event
from batch.plan import PAYING, Decision, Plan
from batch.run.budget import Budget
from batch.run.gate import Pacer, Slots
from batch.run.job_run import Life
from batch.run.lookup import LookUp
from batch.run.stop import EXIT_CODES, Stop, StopReason
from batch.run.tally import Tally

LANDING_BACKLOG = 1000  # jobs that may wait for their download before the feeder waits for them


class Runner:
    """Brings a plan about."""

    def __init__(
        self,
        *,
        life: Life,
        lookup: LookUp,
        pacer: Pacer,
        slots: Slots,
        budget: Budget,
        tally: Tally,
        stop: Stop,
        notify: Callable[[Event], None],
        max_in_flight: int,
        deadline_s: float | None = None,
    ) -> None:
        self._life = life
        self._lookup = lookup
        self._pacer = pacer
        self._slots = slots
        self._budget = budget
        self._stop = stop
        self._notify = notify
        self._deadline_s = deadline_s
        self._alive = asyncio.Semaphore(max_in_flight + LANDING_BACKLOG)
        self.tally = tally

    async def run(self, plan: Plan) -> Tally:
        """Do everything that *plan* says, and return what came of it.

        Raises:
            StateError: the state cannot be written. What is on disk is true; what was in flight
                is picked up by the next run.
        """
        timer = None
        if self._deadline_s is not None:
            timer = asyncio.get_running_loop().call_later(self._deadline_s, self._time_is_up)
        try:
            async with asyncio.TaskGroup() as group:
                await self._feed(plan.decisions, group)
            async with asyncio.TaskGroup() as group:
                await self._second_look(group)
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        finally:
            if timer is not None:
                timer.cancel()
        return self.tally

    def exit_code(self, plan: Plan) -> ExitCode:
        """Say how the run ended."""
        if self.tally.bugs:
            return ExitCode.BUG
        reason = self._stop.reason
        is_limit = reason in {StopReason.DEADLINE, StopReason.BUDGET}
        if reason is not None and (self.tally.left or not is_limit):
            return EXIT_CODES[reason]
        if plan.resting or any(status != "succeeded" for status in self.tally.outcomes):
            return ExitCode.JOBS_FAILED
        return ExitCode.OK

    # -- feeding

    async def _feed(self, decisions: list[Decision], group: asyncio.TaskGroup) -> None:
        """Start the jobs: first what is paid for already, then the rest as slots and turns come."""
        fresh: list[tuple[int, Decision]] = []
        for order, decision in enumerate(decisions):
            if decision.action in PAYING and not decision.former:
                fresh.append((order, decision))
            else:
                await self._alive.acquire()
                self._start(group, order, decision)
        await asyncio.sleep(0)  # what is open already takes its slots before anything new does
        for position, (order, decision) in enumerate(fresh):
            if not await self._admit(order, decision):
                self.tally.left.extend(left.job_id for _, left in fresh[position:])
                return
            self._start(group, order, decision, is_admitted=True)

    async def _admit(self, order: int, decision: Decision) -> bool:
        """Wait for a slot and a turn. False: the run submits nothing more."""
        if self._stop.feeding.is_set() or not self._budget.reserve(decision.cost_usd):
            return False
        await self._alive.acquire()
        await self._slots.acquire(order)
        if await self._pacer.turn(self._stop.feeding):
            return True
        self._slots.release()
        self._alive.release()
        self._budget.refund(decision.cost_usd)
        return False

    def _start(
        self, group: asyncio.TaskGroup, order: int, decision: Decision, *, is_admitted: bool = False
    ) -> None:
        task = self._guard(order, decision, is_admitted=is_admitted)
        group.create_task(task, name=f"job {decision.job_id}")

    async def _guard(self, order: int, decision: Decision, *, is_admitted: bool) -> None:
        """The boundary: a bug in one job ends the feeding, not the jobs that are paid for."""
        try:
            await self._life.live(order, decision, is_admitted=is_admitted)
        except StateError:
            raise
        except Exception as error:  # noqa: BLE001 - told as a bug of ours, with its traceback
            self.tally.bugs.append("".join(traceback.format_exception(error)))
            self.tally.left.append(decision.job_id)
            self._stop.feeding.set()
        finally:
            self._alive.release()

    async def _second_look(self, group: asyncio.TaskGroup) -> None:
        """Look again for what could not be confirmed, if look-up has proved itself since."""
        parked, self._life.parked = self._life.parked, []
        for order, decision, attempt in parked:
            if self._lookup.is_proved and not self._stop.leaving.is_set():
                await self._alive.acquire()
                again = replace(decision, attempt=attempt.external_task_id, former=())
                self._start(group, order, again)
            else:
                await self._life.conclude(attempt, tasks=decision.paid)

    def _time_is_up(self) -> None:
        sentence = "the deadline is reached; open tasks are left to the next run"
        if self._stop.ask(StopReason.DEADLINE, sentence):
            self._notify(events.Stopping(sentence))


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of the errors that ended the group, return the first that is no group."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
