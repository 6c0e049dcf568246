"""What earlier runs have left of a job: an attempt whose answer is not known."""

from __future__ import annotations

from batch.attempt import Attempt, Intended, Lost, Unconfirmed
from batch.callbacks.hints import Hint
from batch.job import Failure, FailureKind
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
