"""What was paid for former versions of a job: how it ends, and which lines tell that."""

from __future__ import annotations

from batch import events
from batch.attempt import Attempt, Landed
from batch.output.row import SUPERSEDED, make_row, to_line
from batch.output.state import AddRow, Put, Withdraw
from batch.plan import Action, Decision
from batch.run.stages import Run


class Formers:
    """The attempts for former versions of a job, until each has ended.

    The last line of a job is its state. Where none of its own follows, that of a former version must
    not become it; and the line of an earlier run may say of one that it failed, or is unconfirmed.
    """

    def __init__(self, run: Run, decision: Decision) -> None:
        self._run = run
        self._decision = decision
        self._open = set(decision.former)

    async def end(self, attempt: Attempt, change: Put | Withdraw) -> None:
        """Commit the end of an attempt; with that of the last one the line of the video that stands."""
        run, decision = self._run, self._decision
        self._open.discard(attempt.external_task_id)
        stands = decision.is_done or decision.action is Action.ORPHANED
        lines = await self._standing() if stands and not self._open else []
        if not isinstance(attempt.state, Landed):
            await run.state.commit(change, *lines)
            return
        now = run.context.clock.now()
        row = make_row(attempt, run_id=run.run_id, tasks=1, now=now, warnings=(SUPERSEDED,))
        has_own = decision.action is not Action.RESTING and not decision.is_done
        await run.state.commit(change, *([AddRow(to_line(row))] if has_own else lines))
        run.context.notify(events.JobEnded(attempt.job_id, row, superseded=True))

    async def leave(self, attempt: Attempt) -> None:
        """Commit an attempt whose end is not known yet.

        One for what the job asks is of a round of `--force`, whose line said so: the video stands.
        """
        job, is_done = self._decision.job, self._decision.is_done
        is_rounds = job is not None and job.fingerprint == attempt.fingerprint
        lines = await self._standing() if is_done and is_rounds else []
        await self._run.state.commit(Put(attempt), *lines)

    async def _standing(self) -> list[AddRow]:
        run, job, stands = self._run, self._decision.job, self._decision.stands
        if stands is None:
            return []
        made = await run.state.attempt(stands)
        now, tags = run.context.clock.now(), () if job is None else job.tags
        row = make_row(made, run_id=run.run_id, tasks=self._decision.paid, now=now, tags=tags)
        return [AddRow(to_line(row))]
