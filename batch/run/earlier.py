"""What earlier runs have left of a job: an attempt whose answer is not known, and ids that are taken."""

from __future__ import annotations

from batch.attempt import Attempt, Intended, Lost, Unconfirmed
from batch.callbacks.hints import Hint
from batch.job import Failure, FailureKind, Job
from batch.run.gate import still_on_its_way
from batch.run.stages import Run

DIED = Failure(FailureKind.NETWORK, "the run that was about to submit it ended in between")
ASKED_AGAIN = Failure(
    FailureKind.NETWORK, "the answer to its submission was lost in an earlier run"
)


async def look_up(run: Run, attempt: Attempt, hint: Hint) -> Attempt:
    """Look up an attempt of an earlier run whose answer is not known; return any other as it is."""
    lookup, now = run.lookup, run.context.clock.now()
    match attempt.state:
        case Intended(since=since):
            lost = await lookup.lose(attempt, DIED)
            return await lookup.find(lost, hint, at_least_s=still_on_its_way(since, now))
        case Unconfirmed():
            return await lookup.find(await lookup.lose(attempt, ASKED_AGAIN), hint)
        case Lost(since=since):
            return await lookup.find(attempt, hint, at_least_s=still_on_its_way(since, now))
        case _:
            return attempt


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
