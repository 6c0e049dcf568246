"""A run: a feeder, and one coroutine per job that tells its story top to bottom.

The feeder waits for a slot and a turn before it starts a job, so what is in flight, not what is
listed, decides how much a run needs. A job's failure is data; only a state that cannot be written
ends the run at once. Resuming is the same coroutine, entered at the step that the state says.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from batch import events
from batch.changes import Put, Row, Withdraw
from batch.clock import Clock
from batch.download import Downloader
from batch.errors import ExitCode, StateError
from batch.events import Event
from batch.hints import Hint, Hints
from batch.job import (
    STATE_FOLDER,
    Attempt,
    Failed,
    Failure,
    FailureKind,
    Generated,
    Intended,
    Job,
    Landed,
    Lost,
    Open,
    TimedOut,
    Unconfirmed,
)
from batch.journal import Journal
from batch.lookup import LookUp
from batch.pacing import Pacer, Slots
from batch.plan import HEALS_BY_ITSELF, PAYING, Action, Decision, Plan
from batch.poll import Poller
from batch.results import make_row, to_line
from batch.stop import EXIT_CODES, Stop, StopReason
from batch.store import Store
from batch.submit import Submitter, still_on_its_way

LANDING_BACKLOG = 1000  # jobs that may wait for their download before the feeder waits for them
NOTHING_TO_MAKE = frozenset({Action.RESTING, Action.UNCHANGED, Action.ORPHANED})
DIED = Failure(FailureKind.NETWORK, "the run that was about to submit it ended in between")
ASKED_AGAIN = Failure(
    FailureKind.NETWORK, "the answer to its submission was lost in an earlier run"
)


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """What bounds a run."""

    max_downloads: int = 4
    max_attempts: int = 3
    deadline_s: float | None = None
    budget_usd: float | None = None
    resubmit_unconfirmed: bool = False
    base_url: str = ""
    account: str = ""


@dataclass(slots=True)
class Tally:
    """What a run has done."""

    outcomes: Counter[str] = field(default_factory=Counter)
    tasks_created: int = 0
    adopted: int = 0
    superseded: int = 0
    cost_usd: float = 0.0
    left: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    troubles: list[dict[str, Any]] = field(default_factory=list)


class Runner:
    """Brings a plan about."""

    def __init__(
        self,
        *,
        run_id: str,
        submitter: Submitter,
        poller: Poller,
        downloader: Downloader,
        lookup: LookUp,
        store: Store,
        journal: Journal,
        pacer: Pacer,
        slots: Slots,
        max_in_flight: int,
        stop: Stop,
        clock: Clock,
        notify: Callable[[Event], None],
        price: Callable[[Job], tuple[float, bool]],
        new_id: Callable[[], str],
        policy: RunPolicy,
        hints: Hints | None = None,
    ) -> None:
        self._run_id = run_id
        self._submitter = submitter
        self._poller = poller
        self._downloader = downloader
        self._lookup = lookup
        self._store = store
        self._journal = journal
        self._pacer = pacer
        self._slots = slots
        self._stop = stop
        self._clock = clock
        self._notify = notify
        self._price = price
        self._new_id = new_id
        self._policy = policy
        self._alive = asyncio.Semaphore(max_in_flight + LANDING_BACKLOG)
        self._downloads = asyncio.Semaphore(policy.max_downloads)
        self._parked: list[tuple[int, Decision, Attempt]] = []
        self._hints = hints or Hints()
        self._reserved: set[str] = set()  # attempts whose estimate this run has set aside
        self.tally = Tally()

    async def run(self, plan: Plan) -> Tally:
        """Do everything that *plan* says, and return what came of it.

        Raises:
            StateError: the state cannot be written. What is on disk is true; what was in flight
                is picked up by the next run.
        """
        timer = None
        if self._policy.deadline_s is not None:
            timer = asyncio.get_running_loop().call_later(self._policy.deadline_s, self._time_is_up)
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
        if self._stop.feeding.is_set() or not self._reserve(decision.cost_usd):
            return False
        await self._alive.acquire()
        await self._slots.acquire(order)
        if await self._pacer.turn(self._stop.feeding):
            return True
        self._slots.release()
        self._alive.release()
        self._refund(decision.cost_usd)
        return False

    def _start(
        self, group: asyncio.TaskGroup, order: int, decision: Decision, *, is_admitted: bool = False
    ) -> None:
        task = self._guard(order, decision, is_admitted=is_admitted)
        group.create_task(task, name=f"job {decision.job_id}")

    async def _guard(self, order: int, decision: Decision, *, is_admitted: bool) -> None:
        """The boundary: a bug in one job ends the feeding, not the jobs that are paid for."""
        try:
            await self._job(order, decision, is_admitted=is_admitted)
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
        parked, self._parked = self._parked, []
        for order, decision, attempt in parked:
            if self._lookup.is_proved and not self._stop.leaving.is_set():
                await self._alive.acquire()
                again = replace(decision, attempt=attempt.external_task_id, former=())
                self._start(group, order, again)
            else:
                await self._conclude(attempt, tasks=decision.paid)

    # -- the life of one job

    async def _job(self, order: int, decision: Decision, *, is_admitted: bool) -> None:
        """Collect what earlier versions have paid for, then make this one."""
        # The last line of a job is its state: where none of its own will follow, the former
        # version's must not become that.
        has_line = decision.action not in {Action.UNCHANGED, Action.RESTING}
        for former in decision.former:
            await self._collect(order, self._store.attempt(former), has_line=has_line)
        if decision.job is not None and decision.action not in NOTHING_TO_MAKE:
            await self._make(order, decision, decision.job, is_admitted=is_admitted)

    async def _make(self, order: int, decision: Decision, job: Job, *, is_admitted: bool) -> None:
        """Bring one video home, in as many attempts as that takes and may take, and tell of it."""
        tasks, failures = decision.paid, decision.failed_paid
        if decision.attempt is not None:
            attempt = self._store.attempt(decision.attempt)
        else:
            if not is_admitted and not self._reserve(decision.cost_usd):
                self.tally.left.append(job.id)
                return
            attempt = self._new_attempt(job, decision.number, decision.cost_usd)
        is_new = decision.attempt is None
        restored = await self._restore(attempt, file=job.video_path)
        if restored is not None:
            await self._conclude(restored, tasks=tasks)
            return
        while True:
            had_task = attempt.task_id is not None
            reached, link = await self._at_provider(
                order, attempt, is_new=is_new, has_slot=is_admitted
            )
            if reached is None:
                self._leave(attempt)
                return
            tasks += reached.task_id is not None and not had_task
            attempt = reached
            if isinstance(attempt.state, Generated):
                landed = await self._land(attempt, link, file=job.video_path)
                if landed is None:
                    self._leave(attempt)
                    return
                attempt = landed
            if self._is_worth_another(attempt, failures):
                failures += 1
                await self._journal.commit(Put(attempt))
                attempt = self._new_attempt(job, attempt.number + 1, attempt.cost_usd)
                is_new, is_admitted = True, False
                continue
            if self._is_to_be_parked(attempt):
                await self._journal.commit(Put(attempt))
                self._parked.append(
                    (order, replace(decision, paid=tasks, failed_paid=failures), attempt)
                )
                return
            await self._conclude(attempt, tasks=tasks)
            return

    async def _collect(self, order: int, attempt: Attempt, *, has_line: bool) -> None:
        """Bring home what was paid for a former version; it never takes the job's own file."""
        reached, link = await self._at_provider(order, attempt, is_new=False, is_superseded=True)
        if reached is not None and isinstance(reached.state, Generated):
            file = _former_file(attempt.job_id, attempt.external_task_id)
            reached = await self._land(reached, link, file=file)
        if reached is None:
            return
        if not isinstance(reached.state, Landed):
            await self._journal.commit(Put(reached))
            return
        self.tally.superseded += 1
        note = "superseded: the job was changed or removed while this task was open"
        row = make_row(
            reached, run_id=self._run_id, tasks=1, now=self._clock.now(), warnings=(note,)
        )
        rows = [Row(to_line(row))] if has_line else []
        await self._journal.commit(Put(reached), *rows)
        self._notify(events.JobEnded(reached.job_id, row, superseded=True))

    async def _at_provider(
        self,
        order: int,
        attempt: Attempt,
        *,
        is_new: bool,
        has_slot: bool = False,
        is_superseded: bool = False,
    ) -> tuple[Attempt | None, str | None]:
        """Bring an attempt to *Generated* or to its end. None: it was left where it is."""
        state = attempt.state
        if isinstance(state, Landed):
            attempt = attempt.to(
                Generated(state.task_id, state.submitted_at, state.generated_at, state.request_id)
            )
            await self._journal.commit(Put(attempt))
        if isinstance(attempt.state, Generated | Failed):
            return attempt, None
        if is_new and not has_slot:
            await self._slots.acquire(order)
        elif not is_new:
            self._slots.occupy()
        try:
            with self._hints.expect(attempt.external_task_id, attempt.token_hash) as hint:
                if is_new:
                    reached = await self._submit(order, attempt, hint, has_turn=has_slot)
                else:
                    reached = await self._go_on(order, attempt, hint, is_superseded=is_superseded)
                if reached is None or isinstance(reached.state, Lost | Intended):
                    return None, None
                if isinstance(reached.state, Open | TimedOut):
                    return await self._poller.poll(reached, is_fresh=is_new, hint=hint)
                return reached, None
        finally:
            self._slots.release()

    async def _go_on(
        self, order: int, attempt: Attempt, hint: Hint, *, is_superseded: bool
    ) -> Attempt | None:
        """Enter the story where an earlier run has left it."""
        state = attempt.state
        self._notify(events.Resumed(attempt.job_id, type(state).__name__))
        match state:
            case Intended(since=since):
                attempt = await self._submitter.find(
                    attempt, DIED, hint=hint, at_least_s=still_on_its_way(since, self._clock.now())
                )
            case Unconfirmed(exists=exists):
                attempt = await self._submitter.find(attempt, ASKED_AGAIN, exists=exists, hint=hint)
            case Lost(since=since):
                attempt = await self._lookup.find(
                    attempt, hint, at_least_s=still_on_its_way(since, self._clock.now())
                )
        if isinstance(attempt.state, Open) and not isinstance(state, Open):
            self.tally.adopted += 1
        if isinstance(attempt.state, Intended):
            return await self._send_again(order, attempt, hint, is_superseded=is_superseded)
        if isinstance(attempt.state, Unconfirmed) and self._policy.resubmit_unconfirmed:
            if is_superseded:
                return attempt
            return await self._send_again(
                order, attempt, hint, is_superseded=False, unsure=attempt.state
            )
        return attempt

    async def _send_again(
        self,
        order: int,
        attempt: Attempt,
        hint: Hint,
        *,
        is_superseded: bool,
        unsure: Unconfirmed | None = None,
    ) -> Attempt | None:
        """Send the same request under the same id: it is surely absent, or the person said so."""
        if is_superseded:
            await self._journal.commit(Withdraw(attempt.external_task_id))
            return None
        is_reserved = attempt.external_task_id in self._reserved
        if not is_reserved and not self._reserve(attempt.cost_usd):
            return None
        self._reserved.add(attempt.external_task_id)
        # Until now the slot was taken whatever the limit says, for a task that may have been there.
        self._slots.release()
        await self._slots.acquire(order)
        return await self._submit(order, attempt, hint, resent=True, unsure=unsure)

    async def _submit(
        self,
        order: int,
        attempt: Attempt,
        hint: Hint,
        *,
        has_turn: bool = False,
        resent: bool = False,
        unsure: Unconfirmed | None = None,
    ) -> Attempt | None:
        """Submit, and keep the account of what that costs."""
        reached = await self._submitter.submit(
            attempt,
            order=order,
            has_turn=has_turn,
            resent=resent,
            unsure=unsure,
            hint=hint,
        )
        if reached is None or isinstance(reached.state, Failed):
            self._refund(attempt.cost_usd)
        elif reached.task_id is not None:
            self.tally.tasks_created += 1
        return reached

    async def _land(self, attempt: Attempt, link: str | None, *, file: str) -> Attempt | None:
        """Download, and have what was there before kept as a former version."""
        async with self._downloads:
            if self._stop.leaving.is_set():
                return None
            keep_as = await self._make_way(attempt, file)
            if isinstance(keep_as, Failure):
                state = attempt.state
                assert isinstance(state, Generated)
                return attempt.to(replace(state, trouble=keep_as))
            return await self._downloader.download(attempt, link, file=file, keep_as=keep_as)

    async def _restore(self, attempt: Attempt, *, file: str) -> Attempt | None:
        """Bring back a video that is kept as a former version; None if it is not here."""
        state = attempt.state
        if not isinstance(state, Landed) or state.file == file:
            return None
        async with self._downloads:
            keep_as = await self._make_way(attempt, file)
            if isinstance(keep_as, Failure):
                return None
            return await self._downloader.restore(attempt, file=file, keep_as=keep_as)

    async def _make_way(self, attempt: Attempt, file: str) -> str | Failure:
        """Keep the video that *attempt*'s will take the place of, and record where; return that.

        A failure instead, when the disk does not let it be kept: then nothing may take its place.

        Committed before the place is taken: at no moment does the state call one the other.
        """
        holders = [
            holder
            for holder in self._store.landed_at(attempt.job_id, file)
            if holder.external_task_id != attempt.external_task_id
        ]
        if not holders:
            return _former_file(attempt.job_id, f"before-{attempt.external_task_id}")
        keep_as = _former_file(attempt.job_id, holders[-1].external_task_id)
        failure = await self._downloader.keep(file, keep_as)
        if failure is not None:
            return failure
        await self._journal.commit(*(_moved(holder) for holder in holders))
        return keep_as

    # -- what it comes to

    async def _conclude(self, attempt: Attempt, *, tasks: int) -> None:
        """Commit an outcome together with its line."""
        row = make_row(attempt, run_id=self._run_id, tasks=tasks, now=self._clock.now())
        await self._journal.commit(Put(attempt), Row(to_line(row)))
        self.tally.outcomes[row["status"]] += 1
        if row["status"] != "succeeded":
            self.tally.troubles.append(row)
        self._notify(events.JobEnded(attempt.job_id, row))

    def _is_worth_another(self, attempt: Attempt, failures: int) -> bool:
        """Tell whether the provider has failed the task, and a new attempt may heal that."""
        match attempt.state:
            case Failed(failure=failure, task_id=str()) if failure.kind in HEALS_BY_ITSELF:
                return (
                    failures + 1 < self._policy.max_attempts
                    and not self._stop.feeding.is_set()
                    and self._reserve(attempt.cost_usd)
                )
            case _:
                return False

    def _is_to_be_parked(self, attempt: Attempt) -> bool:
        match attempt.state:
            case Unconfirmed(exists=False):
                return not self._lookup.is_proved and not self._stop.leaving.is_set()
            case _:
                return False

    def _new_attempt(self, job: Job, number: int, cost_usd: float | None) -> Attempt:
        external_task_id = self._new_id()
        self._reserved.add(external_task_id)  # its estimate was set aside before this was called
        return Attempt(
            external_task_id=external_task_id,
            job_id=job.id,
            fingerprint=job.fingerprint,
            number=number,
            request=job.request,
            state=Intended(since=self._clock.now()),
            cost_usd=cost_usd if cost_usd is not None else self._price(job)[0],
            base_url=self._policy.base_url,
            account=self._policy.account,
        )

    def _reserve(self, cost_usd: float | None) -> bool:
        """Set the estimate aside before anything is sent; False when the budget is used up."""
        budget = self._policy.budget_usd
        if budget is not None and self.tally.cost_usd + (cost_usd or 0.0) > budget + 1e-9:
            sentence = (
                f"the budget of ${budget:.2f} is used up (estimated so far:"
                f" ${self.tally.cost_usd:.2f}); run again to go on"
            )
            if self._stop.ask(StopReason.BUDGET, sentence):
                self._notify(events.Stopping(sentence))
            return False
        self.tally.cost_usd += cost_usd or 0.0
        return True

    def _refund(self, cost_usd: float | None) -> None:
        """Nothing was created: the estimate is free again."""
        self.tally.cost_usd -= cost_usd or 0.0

    def _leave(self, attempt: Attempt) -> None:
        self.tally.left.append(attempt.job_id)

    def _time_is_up(self) -> None:
        sentence = "the deadline is reached; open tasks are left to the next run"
        if self._stop.ask(StopReason.DEADLINE, sentence):
            self._notify(events.Stopping(sentence))


def _former_file(job_id: str, owner: str) -> str:
    return f"{STATE_FOLDER}/former/{job_id}.{owner}.mp4"


def _moved(holder: Attempt) -> Put:
    state = holder.state
    assert isinstance(state, Landed)
    file = _former_file(holder.job_id, holder.external_task_id)
    return Put(holder.to(replace(state, file=file)))


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of the errors that ended the group, return the first that is no group."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
