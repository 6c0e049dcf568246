"""How a job begins that is to be made: whether it may, its slot, and its new attempt."""

from __future__ import annotations

from batch.attempt import Attempt, Intended
from batch.job import Job
from batch.plan import Decision
from batch.run.gate import Ticket
from batch.run.stages import Run


def may_begin(run: Run, decision: Decision) -> bool:
    """Return whether a job of the plan is submitted in this run, as far as slot and budget allow."""
    if decision.held is not None or run.context.stop.feeding.is_set():
        return False
    return decision.job is None or not run.last_call.refuses(decision.job.request)


async def slot(run: Run, order: int) -> Ticket | None:
    """Wait for a slot. None: nothing more is submitted by now."""
    ticket = await run.gate.enter(order)
    if not run.context.stop.feeding.is_set():
        return ticket
    ticket.leave()
    return None


async def new_attempt(
    run: Run, job: Job, *, number: int, tries: int, cost_usd: float | None
) -> tuple[Attempt, int]:
    """Return an attempt that is planned, and the number of its id; its estimate has been set aside.

    Args:
        run: the run.
        job: whose request it is.
        number: of the attempt.
        tries: the number of the last id.
        cost_usd: its estimate.
    """
    external_task_id, tries = await next_id(run, job, tries)
    run.budget.cover(external_task_id, cost_usd)
    attempt = Attempt(
        external_task_id=external_task_id,
        job_id=job.id,
        fingerprint=job.fingerprint,
        number=number,
        request=job.request,
        state=Intended(since=run.context.clock.now()),
        cost_usd=cost_usd,
        account=run.context.account,
    )
    return attempt, tries


async def next_id(run: Run, job: Job, tries: int) -> tuple[str, int]:
    """Return the external id of the next attempt for the job's request, and its number.

    Jobs with the same request share its ids: whichever of them was made, one that a restored state
    has forgotten is the next that is free. An id whose request surely created nothing is used again,
    for the same reason: a second id would pay for a forgotten task again.

    Args:
        run: the run.
        job: whose request it is.
        tries: the number of the last attempt.
    """
    while True:
        tries += 1
        name = run.new_id(job.fingerprint, tries)
        if not await run.given.take(name, job.id):
            continue
        try:
            taken = await run.state.attempt(name)
        except KeyError:
            return name, tries
        if taken.created_nothing and taken.job_id == job.id:
            return name, tries
