"""The life of one job: an object that tells its story top to bottom.

It knows no engine and no terminal: state, provider, gate, time and observers come from outside.
Resuming is the same story, entered at the step that the state says.
"""

from __future__ import annotations

from dataclasses import replace

from batch import events
from batch.attempt import (
    Attempt,
    Failed,
    Generated,
    Intended,
    Landed,
    Lost,
    Open,
    PaidTask,
    Phase,
    TimedOut,
    Unconfirmed,
)
from batch.callbacks.hints import Hint
from batch.job import Job
from batch.output.row import make_row, to_line
from batch.output.state import AddRow, Put, Withdraw
from batch.plan import Decision, passes
from batch.plan.saved import told_held
from batch.run.begin import new_attempt
from batch.run.earlier import look_up
from batch.run.former import Formers
from batch.run.gate import Ticket
from batch.run.landing import NOTHING_TO_MAKE
from batch.run.stages import Run
from batch.run.stop import StopReason


class JobRun:
    """One job of a run.

    *order* is its place in the manifest. With a *ticket* the feeder has taken a slot for it and set
    its estimate aside. *parked* is set when the job ended unconfirmed and look-up may still prove
    itself in this run. *is_left*: it is left to the next run; *is_concluded*: its outcome is committed.
    *sent* are its attempts that this run may have paid for.
    """

    def __init__(
        self,
        run: Run,
        order: int,
        decision: Decision,
        ticket: Ticket | None = None,
        *,
        sent: frozenset[str] = frozenset(),
    ) -> None:
        self.decision = decision
        self.parked: Attempt | None = None
        self.is_left = False
        self.is_concluded = False
        self._run = run
        self._order = order
        self._ticket = ticket  # of the first new attempt
        self._held: dict[str, Ticket] = {}  # of the open attempts, by external id
        self._tries = decision.tries
        self._tasks = decision.paid
        self._failures = decision.failed_paid
        self._sent = sent
        self._formers = Formers(run, decision)
        self._has_ended = False

    async def live(self) -> None:
        """Collect what earlier versions have paid for, then bring this one home."""
        decision = self.decision
        try:
            await self._take_slots()
            for former in decision.former:
                await self._collect(await self._run.state.attempt(former))
            is_made = decision.is_done or decision.action in NOTHING_TO_MAKE
            if decision.job is not None and not is_made:
                await self._make(decision.job)
        finally:
            for ticket in (self._ticket, *self._held.values()):
                if ticket is not None:  # its attempt never got to the provider
                    ticket.leave()

    async def look_again(self) -> None:
        """Go on with a parked attempt, now that look-up has proved itself, or conclude it."""
        parked, self.parked = self.parked, None
        assert parked is not None
        if not self._run.lookup.is_proved or self._run.context.stop.leaving.is_set():
            await self.conclude(parked)
            return
        again = self.decision._replace(attempt=parked.external_task_id, former=())
        again = again._replace(tries=self._tries, paid=self._tasks, failed_paid=self._failures)
        second = JobRun(self._run, self._order, again, sent=self._sent)
        await second.live()
        self.is_left, self.is_concluded = second.is_left, second.is_concluded

    async def _take_slots(self) -> None:
        """Take the slots of all open attempts at once, although they are collected in turn."""
        own = () if self.decision.attempt is None else (self.decision.attempt,)
        for name in (*self.decision.former, *own):
            attempt = await self._run.state.attempt(name)
            if attempt.phase.holds_slot:
                self._held[name] = await self._run.gate.occupy(self._order, attempt)

    # -- the job's own video

    async def _make(self, job: Job) -> None:
        """Bring one video home, in as many attempts as that takes and may take."""
        attempt = await self._first_attempt(job)
        if attempt is None:
            self._leave()
            return
        restored = await self._run.landing.restore(attempt, file=job.video_path)
        if restored is not None:
            await self.conclude(restored)
            await self._run.landing.vacate(restored)
            return
        is_new = self.decision.attempt is None
        while True:
            had_task = attempt.task is not None
            reached, link = await self._at_provider(attempt, is_new=is_new)
            if reached is not None and isinstance(reached.state, Generated | Landed):
                reached = await self._run.landing.land(reached, link, file=job.video_path)
            if reached is None:
                if not self._has_ended:
                    self._leave()
                return
            self._tasks += reached.task is not None and not had_task
            attempt = reached
            if not self._is_worth_another(attempt):
                break
            self._failures += 1
            await self._run.state.commit(Put(attempt))
            attempt = await self._new_attempt(job, attempt.number + 1, attempt.cost_usd)
            is_new = True
        if self._is_to_be_parked(attempt):
            await self._run.state.commit(Put(attempt))
            self.parked = attempt
        else:
            await self.conclude(attempt)
            await self._run.landing.vacate(attempt)

    async def _first_attempt(self, job: Job) -> Attempt | None:
        """Return the attempt to go on with, or a new one; None where the budget does not cover it."""
        decision = self.decision
        if decision.attempt is not None:
            self._tasks += decision.attempt in self._run.rescuer.taken
            return (await self._run.state.attempt(decision.attempt)).wanted_again()
        if decision.held is not None:
            return None
        if self._ticket is None and not self._run.budget.reserve(decision.cost_usd):
            return None
        return await self._new_attempt(job, decision.number, decision.cost_usd)

    async def _new_attempt(self, job: Job, number: int, cost_usd: float | None) -> Attempt:
        attempt, self._tries = await new_attempt(
            self._run, job, number=number, tries=self._tries, cost_usd=cost_usd
        )
        return attempt

    def _is_worth_another(self, attempt: Attempt) -> bool:
        """Return whether the provider has failed the task, and a new attempt may heal that."""
        run, limits = self._run, self._run.context.limits
        match attempt.state:
            case Failed(failure=failure, task=PaidTask()) if passes(failure):
                return (
                    self.decision.held is None
                    and self._failures + 1 < limits.max_attempts
                    and len(self._sent) < (limits.max_attempts_per_run or limits.max_attempts)
                    and not run.context.stop.feeding.is_set()
                    and not run.last_call.has_passed(attempt.request)
                    and run.budget.reserve(attempt.cost_usd)
                )
            case _:
                return False

    def _is_to_be_parked(self, attempt: Attempt) -> bool:
        is_open_question = isinstance(attempt.state, Unconfirmed) and not attempt.state.doubt.exists
        is_leaving = self._run.context.stop.leaving.is_set()
        return is_open_question and not self._run.lookup.is_proved and not is_leaving

    # -- what was paid for a former version

    async def _collect(self, attempt: Attempt) -> None:
        """Bring home what was paid for a former version; it never takes the job's own file."""
        run = self._run
        reached, link = await self._at_provider(attempt, is_new=False, is_superseded=True)
        if reached is not None and isinstance(reached.state, Generated):
            reached = await run.landing.land(reached, link, file=None)
        if reached is None:
            return
        if reached.phase.is_finished:
            await self._formers.end(reached, Put(reached))
            await run.landing.clear_name(attempt.job_id)
        else:
            await self._formers.leave(reached)

    # -- at the provider

    async def _at_provider(
        self, attempt: Attempt, *, is_new: bool, is_superseded: bool = False
    ) -> tuple[Attempt | None, str | None]:
        """Bring an attempt to *Generated* or to its end. None: it was left where it is.

        One that has landed already, and whose file is missed, has nothing to do there.
        """
        run = self._run
        if not attempt.phase.holds_slot:
            return attempt, None
        if is_new:
            ticket, self._ticket = self._ticket, None
        else:
            ticket = self._held.pop(attempt.external_task_id, None)
        if ticket is None:
            ticket = await run.gate.enter(self._order)
        try:
            with run.hints.expect(attempt.external_task_id, attempt.token_hash) as hint:
                if is_new:
                    reached = await self._submit(attempt, ticket, hint)
                else:
                    reached = await self._resume(attempt, ticket, hint, is_superseded=is_superseded)
                if reached is None or isinstance(reached.state, Lost | Intended):
                    return None, None
                if isinstance(reached.state, Open | TimedOut):
                    return await run.poller.poll(reached, hint, is_fresh=is_new)
                return reached, None
        finally:
            ticket.leave()

    async def _resume(
        self, attempt: Attempt, ticket: Ticket, hint: Hint, *, is_superseded: bool
    ) -> Attempt | None:
        """Enter the story where an earlier run has left it."""
        run = self._run
        run.context.notify(events.Resumed(attempt.job_id, attempt.phase, attempt.task_id))
        attempt = await look_up(run, attempt, hint)
        if isinstance(attempt.state, Intended):
            run.budget.drop(attempt.external_task_id)
        else:
            run.budget.book(attempt)
        is_asked_for = run.context.policy.resubmit_unconfirmed and not is_superseded
        # Once a run: a worker that takes the job over was asked for nothing more.
        is_wanted = is_asked_for and attempt.external_task_id not in self._sent
        match attempt.state:
            case Intended() if is_superseded:  # absent, and not wanted
                await self._formers.end(attempt, Withdraw(attempt.external_task_id))
                return None
            case Intended() if self.decision.stands is not None:
                await self._let_stand(attempt, self.decision.stands)
                return None
            case Unconfirmed(doubt=doubt) if is_wanted:
                doubt = replace(doubt, on_request=True)
                attempt = attempt.to(Intended(run.context.clock.now(), doubt))
            case Intended():
                pass
            case _:
                return attempt
        if self.decision.held is not None:
            run.context.stop.ask(StopReason.SAVED_PLAN, told_held([self.decision]))
            return None
        if not run.budget.covers(attempt.external_task_id, attempt.cost_usd):
            return None
        # Until now the slot was taken whatever the limit says, for a task that may have been open.
        await ticket.requeue()
        return await self._submit(attempt, ticket, hint)

    async def _let_stand(self, absent: Attempt, stands: str) -> None:
        """Leave a round's request, which created nothing, to `--force`; the last row tells the video."""
        run, job = self._run, self.decision.job
        made = await run.state.attempt(stands)
        now, tags = run.context.clock.now(), () if job is None else job.tags
        row = make_row(made, run_id=run.run_id, tasks=self._tasks, now=now, tags=tags)
        await run.state.commit(Withdraw(absent.external_task_id), AddRow(to_line(row)))
        run.context.notify(events.JobEnded(made.job_id, row))
        self._has_ended = True

    async def _submit(self, attempt: Attempt, ticket: Ticket, hint: Hint) -> Attempt | None:
        """Submit, and give the estimate back if this run created nothing."""
        reached = await self._run.submitter.submit(attempt, ticket, hint)
        is_older = attempt.external_task_id in self._run.lookup.taken_over
        if reached is None or reached.phase is Phase.FAILED or is_older:
            self._run.budget.refund(attempt.cost_usd, attempt.external_task_id)
        else:
            self._sent |= {attempt.external_task_id}
        if reached is not None:
            self._run.budget.book(reached)
        return reached

    # -- what it comes to

    async def conclude(self, attempt: Attempt) -> None:
        """Commit an outcome together with its row."""
        run = self._run
        now = run.context.clock.now()
        paid, job = attempt.external_task_id in self._sent, self.decision.job
        tags = () if job is None else job.tags
        row = make_row(attempt, run_id=run.run_id, tasks=self._tasks, now=now, tags=tags, paid=paid)
        await run.state.commit(Put(attempt), AddRow(to_line(row)), *await self._unpinned(attempt))
        self.is_concluded = True
        run.context.notify(events.JobEnded(attempt.job_id, row))

    async def _unpinned(self, attempt: Attempt) -> list[Put]:
        """Return the end of the pins that a video ends by landing: its job asks for another one."""
        if not isinstance(attempt.state, Landed) or attempt.state.trouble is not None:
            return []
        pinned = [await self._run.state.attempt(item) for item in self.decision.unpins]
        return [Put(item.unpinned()) for item in pinned]

    def _leave(self) -> None:
        self.is_left = True
        self._run.context.notify(events.JobLeft(self.decision.job_id))
