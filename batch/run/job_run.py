"""The life of one job: one coroutine that tells its story top to bottom.

It knows no engine and no terminal: store, provider, pacing, time and observers come from outside.
Resuming is the same coroutine, entered at the step that the state says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from batch import events
from batch.callbacks.hints import Hint, Hints
from batch.clock import Clock
from batch.events import Event
from batch.job import (
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
from batch.output.changes import Put, Row, Withdraw
from batch.output.row import make_row, to_line
from batch.output.sqlite import Store
from batch.output.writer import Journal
from batch.plan import HEALS_BY_ITSELF, Action, Decision
from batch.run.budget import Budget
from batch.run.gate import Slots
from batch.run.landing import Landing, former_file
from batch.run.lookup import LookUp
from batch.run.poll import Poller
from batch.run.stop import Stop
from batch.run.submit import Submitter, still_on_its_way
from batch.run.tally import Tally

OUT_OF_PROVIDER = (Generated, Landed, Failed)  # states that take no slot there
NOTHING_TO_MAKE = frozenset({Action.RESTING, Action.UNCHANGED, Action.ORPHANED})
DIED = Failure(FailureKind.NETWORK, "the run that was about to submit it ended in between")
ASKED_AGAIN = Failure(
    FailureKind.NETWORK, "the answer to its submission was lost in an earlier run"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run says once about all of its attempts: to whom they go, and how often again."""

    base_url: str
    account: str
    max_attempts: int = 3
    resubmit_unconfirmed: bool = False


class Life:
    """Lives the jobs of a run, as many at once as the runner starts."""

    def __init__(
        self,
        *,
        run_id: str,
        submitter: Submitter,
        poller: Poller,
        landing: Landing,
        lookup: LookUp,
        store: Store,
        journal: Journal,
        slots: Slots,
        budget: Budget,
        tally: Tally,
        stop: Stop,
        clock: Clock,
        notify: Callable[[Event], None],
        price: Callable[[Job], tuple[float, bool]],
        new_id: Callable[[], str],
        hints: Hints,
        terms: Terms,
    ) -> None:
        self._run_id = run_id
        self._submitter = submitter
        self._poller = poller
        self._landing = landing
        self._lookup = lookup
        self._store = store
        self._journal = journal
        self._slots = slots
        self._budget = budget
        self._tally = tally
        self._stop = stop
        self._clock = clock
        self._notify = notify
        self._price = price
        self._new_id = new_id
        self._hints = hints
        self._terms = terms
        self._occupied: set[str] = set()  # attempts whose slots were taken ahead of their turn
        self.parked: list[tuple[int, Decision, Attempt]] = []  # to be looked for once more

    async def live(self, order: int, decision: Decision, *, is_admitted: bool) -> None:
        """Collect what earlier versions have paid for, then make this one.

        *order* is the job's place in the manifest; *is_admitted* tells that the caller has waited
        for a slot and a turn and has set the estimate aside.
        """
        # The last line of a job is its state: where none of its own will follow, the former
        # version's must not become that.
        has_line = decision.action not in {Action.UNCHANGED, Action.RESTING}
        with self._slots_ahead(decision):
            for former in decision.former:
                await self._collect(order, self._store.attempt(former), has_line=has_line)
            if decision.job is not None and decision.action not in NOTHING_TO_MAKE:
                await self._make(order, decision, decision.job, is_admitted=is_admitted)

    @contextmanager
    def _slots_ahead(self, decision: Decision) -> Iterator[None]:
        """One task after the other is collected, but all that are open have their slots at once."""
        own = (decision.attempt,) if decision.attempt is not None else ()
        ahead = {
            external_task_id
            for external_task_id in [*decision.former, *own][1:]
            if not isinstance(self._store.attempt(external_task_id).state, OUT_OF_PROVIDER)
        }
        self._occupied |= ahead
        for _ in ahead:
            self._slots.occupy()
        try:
            yield
        finally:
            for external_task_id in ahead & self._occupied:  # whose turn never came: a bug of ours
                self._occupied.discard(external_task_id)
                self._slots.release()

    async def _make(self, order: int, decision: Decision, job: Job, *, is_admitted: bool) -> None:
        """Bring one video home, in as many attempts as that takes and may take, and tell of it."""
        tasks, failures = decision.paid, decision.failed_paid
        if decision.attempt is not None:
            attempt = self._store.attempt(decision.attempt)
        else:
            if not is_admitted and not self._budget.reserve(decision.cost_usd):
                self._tally.left.append(job.id)
                return
            attempt = self._new_attempt(job, decision.number, decision.cost_usd)
        is_new = decision.attempt is None
        restored = await self._landing.restore(attempt, file=job.video_path)
        if restored is not None:
            await self.conclude(restored, tasks=tasks)
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
                landed = await self._landing.land(attempt, link, file=job.video_path)
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
                self.parked.append(
                    (order, replace(decision, paid=tasks, failed_paid=failures), attempt)
                )
                return
            await self.conclude(attempt, tasks=tasks)
            return

    async def _collect(self, order: int, attempt: Attempt, *, has_line: bool) -> None:
        """Bring home what was paid for a former version; it never takes the job's own file."""
        reached, link = await self._at_provider(order, attempt, is_new=False, is_superseded=True)
        if reached is not None and isinstance(reached.state, Generated):
            file = former_file(attempt.job_id, attempt.external_task_id)
            reached = await self._landing.land(reached, link, file=file)
        if reached is None:
            return
        if not isinstance(reached.state, Landed):
            await self._journal.commit(Put(reached))
            return
        self._tally.superseded += 1
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
        elif not is_new and attempt.external_task_id not in self._occupied:
            self._slots.occupy()
        self._occupied.discard(attempt.external_task_id)
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
                attempt = await self._submitter.look_up(
                    attempt, hint, at_least_s=still_on_its_way(since, self._clock.now())
                )
        if isinstance(attempt.state, Open) and not isinstance(state, Open):
            self._tally.adopted += 1
        if isinstance(attempt.state, Intended):
            return await self._send_again(order, attempt, hint, is_superseded=is_superseded)
        if isinstance(attempt.state, Unconfirmed) and self._terms.resubmit_unconfirmed:
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
        if not self._budget.covers(attempt.external_task_id, attempt.cost_usd):
            return None
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
            self._budget.refund(attempt.cost_usd)
        elif reached.task_id is not None:
            self._tally.tasks_created += 1
        return reached

    # -- what it comes to

    async def conclude(self, attempt: Attempt, *, tasks: int) -> None:
        """Commit an outcome together with its line."""
        row = make_row(attempt, run_id=self._run_id, tasks=tasks, now=self._clock.now())
        await self._journal.commit(Put(attempt), Row(to_line(row)))
        self._tally.outcomes[row["status"]] += 1
        if row["status"] != "succeeded":
            self._tally.troubles.append(row)
        self._notify(events.JobEnded(attempt.job_id, row))

    def _is_worth_another(self, attempt: Attempt, failures: int) -> bool:
        """Tell whether the provider has failed the task, and a new attempt may heal that."""
        match attempt.state:
            case Failed(failure=failure, task_id=str()) if failure.kind in HEALS_BY_ITSELF:
                return (
                    failures + 1 < self._terms.max_attempts
                    and not self._stop.feeding.is_set()
                    and self._budget.reserve(attempt.cost_usd)
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
        self._budget.cover(external_task_id)  # its estimate was set aside before this was called
        return Attempt(
            external_task_id=external_task_id,
            job_id=job.id,
            fingerprint=job.fingerprint,
            number=number,
            request=job.request,
            state=Intended(since=self._clock.now()),
            cost_usd=cost_usd if cost_usd is not None else self._price(job)[0],
            base_url=self._terms.base_url,
            account=self._terms.account,
        )

    def _leave(self, attempt: Attempt) -> None:
        self._tally.left.append(attempt.job_id)
