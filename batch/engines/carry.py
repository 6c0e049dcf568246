"""One job that a worker has claimed: what is still to be done for it, and how that comes out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from batch.attempt import Landed, Phase, Unconfirmed
from batch.engines.stop import SharedStop
from batch.engines.terms import Terms, decision_of
from batch.frozen import frozen
from batch.output.fleet import Assignment, JobState, OpenRun
from batch.output.videos import Videos
from batch.plan import COSTING, PAYING, Action, Decision, IsPresent, Known, Policy, decide, orphan
from batch.run.begin import may_begin, slot
from batch.run.job_run import JobRun
from batch.run.stages import Run


@frozen
class Opened:
    """A run that a worker has opened: as it was handed over, and its stages here."""

    handed: OpenRun
    terms: Terms
    stop: SharedStop
    run: Run
    is_present: IsPresent


async def carry_out(opened: Opened, assignment: Assignment) -> JobState | None:
    """Do what is still to be done for a claimed job.

    Returns:
        How it came out; None where the commit of its outcome has settled it.

    Raises:
        ClaimLostError: another worker has claimed it since.
        StateError: the state cannot be written.
    """
    run, order = opened.run, assignment.work.order
    decision = await _decision(opened, assignment)
    failed = _failed_here(decision, assignment)
    if failed is not None and not _goes_on(opened, decision, assignment):
        # What has failed in this run is not tried again: that is all that is left to say of it.
        job_run = JobRun(run, order, decision._replace(action=Action.RESTING), sent=assignment.sent)
        await job_run.live()
        await job_run.conclude(await run.state.attempt(failed))
        return None
    ticket = None
    if decision.is_fresh:
        ticket = await slot(run, order) if may_begin(run, decision) else None
        if ticket is None:
            return JobState.LEFT
    job_run = JobRun(run, order, decision, ticket, sent=assignment.sent)
    if assignment.is_second_look and decision.attempt is not None:
        await _look_again(run, job_run, decision.attempt)
    else:
        await job_run.live()
    if job_run.parked is not None:
        return JobState.PARKED
    if job_run.is_concluded:
        return None
    return JobState.LEFT if job_run.is_left else JobState.DONE


def decide_anew(
    assignment: Assignment, planned: Decision, policy: Policy, is_present: IsPresent, now: float
) -> Decision:
    """Return what is to be done with a job that has begun.

    What a person has asked for once was done when it began: to force it, or to try again what rests,
    would pay for it twice.
    """
    known = assignment.known
    if planned.job is None:
        return orphan(planned.job_id, known)
    policy = replace(policy, force=False, retry_failed=False)
    decision = decide(planned.job, known, policy, is_present, now=now)
    if decision.action in COSTING:
        cost_usd = planned.cost_usd
        if cost_usd is None:
            cost_usd = next((a.cost_usd for a in reversed(known) if a.cost_usd is not None), None)
        decision = decision._replace(cost_usd=cost_usd)
    return decision._replace(held=planned.held)


async def _decision(opened: Opened, assignment: Assignment) -> Decision:
    planned = decision_of(assignment.work)
    if not (assignment.has_begun or assignment.is_second_look):
        known = await _known(opened, planned)
        if known is None:
            return planned
        assignment = replace(assignment, known=known)
    context, away = opened.run.context, await _away(opened, assignment.known)

    def is_present(item: Known) -> bool:
        return item.file in away or opened.is_present(item)

    return decide_anew(assignment, planned, context.policy, is_present, context.clock.now())


async def _known(opened: Opened, planned: Decision) -> tuple[Known, ...] | None:
    """Return the attempts of a job of which one that was planned with is gone; None if none is.

    Whoever had the job before may have withdrawn it, since it was never sent, and died: that leaves no
    other trace in the records.
    """
    named = {*planned.former, planned.attempt} - {None}
    known = await opened.run.state.known_of(planned.job_id) if named else ()
    return tuple(known) if named - {item.external_task_id for item in known} else None


async def _away(opened: Opened, known: tuple[Known, ...]) -> frozenset[str]:
    """Return the files of videos that need not be here, since the bucket has them."""
    target, state = opened.terms.target, opened.run.state
    if target is None or not target.removes:
        return frozenset()
    found = set()
    for item in known:
        made = (await state.attempt(item.external_task_id)).state
        if isinstance(made, Landed):
            for sha256 in made.contents:
                found |= {made.file} if await state.uploads(target.url, sha256=sha256) else set()
    return frozenset(found)


def _failed_here(decision: Decision, assignment: Assignment) -> str | None:
    """Return the attempt for the job's request that has failed in this run, if it is the latest."""
    job = decision.job
    same: list[Known] = [
        item for item in assignment.known if job and item.fingerprint == job.fingerprint
    ]
    if same and same[-1].phase is Phase.FAILED and same[-1].external_task_id in assignment.sent:
        return same[-1].external_task_id
    return None


def _goes_on(opened: Opened, decision: Decision, assignment: Assignment) -> bool:
    """Return whether another attempt may follow one that has failed in this run."""
    limits = opened.run.context.limits
    most = limits.max_attempts_per_run or limits.max_attempts
    return decision.action in PAYING and len(assignment.sent) < most


async def _look_again(run: Run, job_run: JobRun, external_task_id: str) -> None:
    attempt = await run.state.attempt(external_task_id)
    if not isinstance(attempt.state, Unconfirmed):  # it has got further since it was parked
        await job_run.live()
        return
    await run.lookup.proof.learn()
    job_run.parked = attempt
    await job_run.look_again()


def presence(videos: Videos) -> IsPresent:
    """Return what tells whether the file of an attempt is there in its size."""

    def is_present(item: Known) -> bool:
        with suppress(OSError):
            return (videos.layout.root / str(item.file)).stat().st_size == item.bytes
        return False

    return is_present
