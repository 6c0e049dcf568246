"""The feeder: starts the jobs of a plan, one coroutine each (see `batch.run.job_run`).

It waits for a slot before it starts a job, so what is in flight, not what is listed, decides how
much a run needs. A job's failure is data. A state that cannot be written ends the run too, but only
when every request under way is answered: the task ids in those answers are all that is left of them.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator

from batch import events
from batch.errors import NO_MEMORY, StateError
from batch.manifest.limits import Order
from batch.plan import Action, Decision, Decisions
from batch.run.begin import may_begin, slot
from batch.run.gate import Ticket
from batch.run.job_run import JobRun
from batch.run.stages import Run
from batch.run.stop import StopReason

AWAITED = "nothing more is submitted, and answers under way are awaited"
LANDING_BACKLOG = 1000  # jobs that may wait for their download before the feeder waits for them


class Feeder:
    """Carries out the decisions of a plan."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._alive = asyncio.Semaphore(run.context.limits.max_in_flight + LANDING_BACKLOG)
        self._parked: list[JobRun] = []
        self._unwritable: StateError | None = None

    async def feed(self, decisions: Decisions) -> None:
        """Do everything that *decisions* say; the observers are told what came of it.

        Raises:
            StateError: the state could not be written, or memory ran out. Nothing was submitted after
                that; what was in flight is picked up by the next run.
        """
        await self._run.rescuer.take_in()
        timer = self._set_timer()
        try:
            async with asyncio.TaskGroup() as group:
                await self._start_all(decisions, group)
            async with asyncio.TaskGroup() as group:
                for job_run in self._parked:
                    await self._alive.acquire()
                    self._start(group, job_run, again=True)
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        finally:
            if timer is not None:
                timer.cancel()
        if self._run.last_call.has_refused:
            self._run.context.stop.ask(StopReason.LAST_CALL, self._run.last_call.sentence)
        if self._unwritable is not None:
            raise self._unwritable

    async def _start_all(self, decisions: Decisions, group: asyncio.TaskGroup) -> None:
        """Start the jobs: first what is paid for already, then the rest as slots come."""
        for order, decision in decisions.kept():
            if not decision.is_fresh:
                await self._alive.acquire()
                self._start(group, JobRun(self._run, order, decision))
        await asyncio.sleep(0)  # what is open already takes its slots before anything new does
        for order, decision in in_order(decisions, self._run.context.limits.order):
            ticket = await self._admit(order, decision)
            if ticket is None:
                self._run.context.notify(events.JobLeft(decision.job_id))
            else:
                self._start(group, JobRun(self._run, order, decision, ticket))
                await asyncio.sleep(0)  # it goes on its way before the next one is begun
        self._run.lessons.begin_tail()

    async def _admit(self, order: int, decision: Decision) -> Ticket | None:
        """Set the estimate aside and wait for a slot. None: the job is left to the next run."""
        budget = self._run.budget
        if not may_begin(self._run, decision) or not budget.reserve(decision.cost_usd):
            return None
        await self._alive.acquire()
        ticket = await slot(self._run, order)
        if ticket is None:
            self._alive.release()
            budget.refund(decision.cost_usd)
        return ticket

    def _start(self, group: asyncio.TaskGroup, job_run: JobRun, *, again: bool = False) -> None:
        task = self._guard(job_run, again=again)
        group.create_task(task, name=f"job {job_run.decision.job_id}")

    async def _guard(self, job_run: JobRun, *, again: bool) -> None:
        """Report a bug in one job; it ends the feeding, not the jobs that are paid for."""
        job_id, context = job_run.decision.job_id, self._run.context
        try:
            await (job_run.look_again() if again else job_run.live())
            if job_run.parked is not None:
                self._parked.append(job_run)
        except (StateError, MemoryError) as error:
            told = error if isinstance(error, StateError) else StateError(NO_MEMORY)
            self._unwritable = self._unwritable or told
            context.stop.ask(StopReason.STATE, f"{told}; {AWAITED}")
        except Exception as error:  # noqa: BLE001 - told as a bug of ours, with its traceback
            report = "".join(traceback.format_exception(error))
            context.notify(events.BugFound(job_id, report))
            context.stop.feeding.set()
        finally:
            self._alive.release()

    def _set_timer(self) -> asyncio.TimerHandle | None:
        deadline = self._run.last_call.deadline
        if deadline is None:
            return None
        left_s = deadline - self._run.context.clock.monotonic()
        return asyncio.get_running_loop().call_later(left_s, self._time_is_up)

    def _time_is_up(self) -> None:
        self._run.context.stop.ask(StopReason.DEADLINE, self._run.last_call.is_over)


def in_order(decisions: Decisions, order: Order) -> Iterator[tuple[int, Decision]]:
    """Yield what is to be paid for, each with its place, in the order in which it is fed.

    What failed before comes last: one sick job on top would eat every budget.
    """
    first = {Order.NEW_FIRST: Action.NEW, Order.CHANGED_FIRST: Action.CHANGED}.get(order)

    def rank(action: Action) -> int:
        return 2 if action is Action.RETRY else int(first is not None and action is not first)

    places = (place for place, _ in decisions.fresh())
    ranked = (
        decisions[place]
        for wanted in range(3)
        for place, action in decisions.fresh()
        if rank(action) == wanted
    )
    return zip(places, ranked, strict=True)


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first of the errors that ended a group which is not a group itself."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
