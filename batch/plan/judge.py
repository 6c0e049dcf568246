"""What to do with one job, by what is known of its attempts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime

from batch.attempt import RETENTION_S, Phase
from batch.days import day_of, local_date
from batch.job import Failure, FailureKind, Job, video_path
from batch.plan.decision import Action, Decision, IsPresent, Known, Move, Policy
from batch.plan.decisions import never_made

# Kinds that a new attempt can heal although nothing was changed.
HEALS_BY_ITSELF = frozenset(
    {
        FailureKind.GENERATION,
        FailureKind.PROVIDER,
        FailureKind.NETWORK,
        FailureKind.RATE_LIMITED,
        FailureKind.TIMEOUT,
    }
)


FREE_ACTIONS = frozenset({Action.UNCHANGED, Action.FETCH, Action.RESUME})  # nothing is paid


def passes(failure: Failure) -> bool:
    """Return whether a failure is known to pass, so that a new attempt at once may heal it."""
    return failure.kind in HEALS_BY_ITSELF and not failure.is_unexplained


def is_up_to_date(job: Job, attempts: Sequence[Known], is_present: IsPresent) -> bool:
    """Return whether one attempt alone has made a job's video, which is here: nothing is to be done.

    A job that is not may be up to date all the same; `decide` tells.
    """
    if len(attempts) != 1:
        return False
    (only,) = attempts
    return (
        only.phase is Phase.LANDED
        and only.fingerprint == job.fingerprint
        and only.pinned_for is None
        and only.file == video_path(job.id)
        and is_present(only)
    )


def decide(
    job: Job,
    attempts: Sequence[Known],
    policy: Policy,
    is_present: IsPresent,
    *,
    force: bool = False,
    move: Move | None = None,
    now: float = 0.0,
) -> Decision:
    """Return what to do with one job.

    Args:
        job: what the manifest asks for.
        attempts: all of them that are or become its own, in the order of their numbers.
        policy: what the person asked for.
        is_present: tells whether the video of an attempt that has landed is here.
        force: whether a round of `--force` is to regenerate it.
        move: the one by which it gets attempts of another id.
        now: the time.
    """
    if not attempts:
        return never_made(job)
    same = [attempt for attempt in attempts if attempt.fingerprint == job.fingerprint]
    pinned = None if force else _pinned(job, attempts)
    latest = pinned or _latest(same)
    if latest is not None and latest.phase is Phase.FAILED and not force:
        # A round of --force failed. The video that it was to replace stands, and only --force pays.
        latest = next((item for item in reversed(same) if item.phase is Phase.LANDED), latest)
    former = tuple(
        attempt.external_task_id
        for attempt in attempts
        if attempt is not latest and not attempt.phase.is_finished
    )
    if latest is None:
        action, reason, goes_on = Action.CHANGED, "the prompt or an option changed", False
    elif latest.phase is Phase.LANDED and not force:
        action, reason, goes_on = _judge_landed(job, latest, is_present, move)
    else:
        action, reason, goes_on = _judge(latest, same, policy, now=now)
    if action is Action.NEW:
        action = Action.CHANGED
    if pinned is not None:
        reason += f", pinned to the version of {_day(pinned.version_at)}"
    if move is not None:
        if action in FREE_ACTIONS:
            action, reason = Action.MOVED, f"same request; {reason}, nothing is paid"
        reason = f"was {move.old_id!r}, {reason}"
    if action is Action.UNCHANGED and not former:  # on most nights all of them
        return Decision(action, job.id, reason, job, is_pinned=pinned is not None)
    return Decision(
        action=action,
        job_id=job.id,
        reason=reason,
        job=job,
        attempt=latest.external_task_id if latest is not None and goes_on else None,
        stands=_stands(action, latest, same, policy),
        former=former,
        number=attempts[-1].number + 1,
        tries=sum(item.phase is not Phase.FAILED or item.task_id is not None for item in same),
        paid=sum(attempt.task_id is not None for attempt in same),
        failed_paid=_failed_paid(same),
        moved_from=None if move is None else move.old_id,
        before=_before(job, attempts) if action is Action.CHANGED else None,
        is_pinned=pinned is not None,
        unpins=tuple(
            item.external_task_id
            for item in attempts
            if item.pinned_for is not None and item is not latest
        ),
    )


def _stands(
    action: Action, latest: Known | None, same: Sequence[Known], policy: Policy
) -> str | None:
    """Return the attempt whose video stands beside an unfinished one: a former one, or a round's."""
    is_here = action in {Action.UNCHANGED, Action.MOVED}
    if is_here and latest is not None and latest.phase is Phase.LANDED:
        return latest.external_task_id
    if policy.force or action is Action.RESUBMIT:
        return None
    made = [item for item in same if item.phase is Phase.LANDED]
    return made[-1].external_task_id if made and not same[-1].phase.is_finished else None


def _has_video(same: Sequence[Known]) -> bool:
    return any(item.phase is Phase.LANDED for item in same)


def _pinned(job: Job, attempts: Sequence[Known]) -> Known | None:
    """Return the version that a person has restored, if it stands for what the job asks for."""
    found = (item for item in reversed(attempts) if item.pinned_for == job.fingerprint)
    return next(found, None)


def _latest(same: Sequence[Known]) -> Known | None:
    """Return the latest attempt; if its video was discarded, the latest whose video was not."""
    if same and same[-1].phase is Phase.DISCARDED:
        kept = (item for item in reversed(same) if item.phase is Phase.LANDED)
        return next(kept, same[-1])
    return same[-1] if same else None


def _before(job: Job, attempts: Sequence[Known]) -> str:
    """Return the attempt whose video stands in the library; the latest one if there is none."""
    standing = [item for item in attempts if item.file == job.video_path]
    return (standing or attempts)[-1].external_task_id


def orphan(job_id: str, attempts: Sequence[Known]) -> Decision:
    """Return the decision about an id that is no longer listed."""
    open_ids = tuple(a.external_task_id for a in attempts if not a.phase.is_finished)
    reason = "no longer in the manifest"
    if open_ids:
        reason += "; a task that may be paid for is still to be collected"
    same = [a for a in attempts if a.fingerprint == attempts[-1].fingerprint] if open_ids else []
    made = [a.external_task_id for a in same if a.phase is Phase.LANDED]
    return Decision(
        Action.ORPHANED,
        job_id,
        reason,
        stands=made[-1] if made else None,
        former=open_ids,
        paid=sum(a.task_id is not None for a in same),
    )


def _judge_landed(
    job: Job, latest: Known, is_present: IsPresent, move: Move | None
) -> tuple[Action, str, bool]:
    """Return action, reason, and whether the attempt goes on: its video may be missing."""
    file = latest.file or ""
    is_taken_over = move is not None and file == video_path(move.old_id)
    if (is_taken_over or file == job.video_path) and is_present(latest):
        if move is None or not is_taken_over:
            return Action.UNCHANGED, "up to date", False
        # Where another video stands in the way, the run brings this one to its place.
        return Action.UNCHANGED, "its video is taken over", not move.has_room
    return Action.FETCH, "its file is missing or was changed", True


def _judge(
    latest: Known, same: Sequence[Known], policy: Policy, *, now: float
) -> tuple[Action, str, bool]:
    """Return action, reason, and whether the latest attempt goes on; one that has landed does not."""
    match latest.phase:
        case Phase.LANDED:
            return Action.FORCED, "up to date, regenerated on request", False
        case Phase.DISCARDED if now < (latest.generated_at or 0.0) + RETENTION_S:
            return Action.FETCH, "its video was discarded, and the provider still keeps it", True
        case Phase.DISCARDED:
            return Action.NEW, "its video was discarded, and the provider no longer keeps it", False
        case Phase.GENERATED:
            return Action.FETCH, "made and paid for, not downloaded yet", True
        case Phase.OPEN | Phase.TIMED_OUT:
            return Action.RESUME, "a paid task is open", True
        case Phase.INTENDED | Phase.LOST:
            return Action.RESUME, "a submission whose answer is not known", True
        case Phase.UNCONFIRMED if policy.resubmit_unconfirmed:
            return Action.RESUBMIT, "unconfirmed: submitted again on request, if not found", True
        case Phase.UNCONFIRMED:
            return Action.RESUME, "unconfirmed: it is not known yet whether a task exists", True
    return _judge_failed(same, _failed_paid(same), policy)


def is_left_to_force(same: Sequence[Known], policy: Policy) -> bool:
    """Return whether a round of `--force` has something to do for a request: all its attempts are given.

    What has failed for good is no longer a round's to make.
    """
    latest = _latest(same)
    if latest is None or latest.phase is not Phase.FAILED:
        return latest is not None and latest.phase.has_landed
    return _has_video(same) and _judge_failed(same, _failed_paid(same), policy)[0] is Action.RETRY


def _judge_failed(
    same: Sequence[Known], failed_paid: int, policy: Policy
) -> tuple[Action, str, bool]:
    latest = same[-1]
    kind = FailureKind(latest.failure_kind or FailureKind.PROVIDER)
    told = f"{kind}: {latest.failure_message}" if latest.failure_message else f"{kind}"
    if failed_paid >= policy.max_attempts:
        reason = (
            f"failed {failed_paid} times, the most that max_attempts allows ({told}); change the job,"
            " or raise limits.max_attempts"
        )
        return Action.RESTING, reason, False
    # One more try in a later run, and then it rests: the words may be moderation in another wording.
    may_pass = not (latest.is_unexplained and _unexplained(same) > 1)
    is_healing = kind in HEALS_BY_ITSELF and may_pass
    rests_since = _rests_since(same, policy)
    if is_healing and rests_since is None:
        return Action.RETRY, f"failed before ({told})", False
    if policy.retry_failed:
        return Action.RETRY, f"failed before ({told}), retried on request", False
    if is_healing:
        reason = f"rests since {rests_since} ({told}); change it, or --retry-failed"
        return Action.RESTING, reason, False
    return Action.RESTING, f"failed ({told}); change the job, or use --retry-failed", False


def _unexplained(same: Sequence[Known]) -> int:
    """Count the latest failures in a row whose reasons are in words that are not known."""
    # An attempt without a task (never reached, throttled for too long) says nothing about the prompt.
    told = itertools.takewhile(
        lambda attempt: attempt.is_unexplained or attempt.task_id is None, reversed(same)
    )
    return sum(attempt.is_unexplained for attempt in told)


def _rests_since(same: Sequence[Known], policy: Policy) -> date | None:
    """Return the date of the latest failure, if those before it fill as many days as are allowed.

    A day with a failure is one in which a task failed at the provider, by when the run noticed.
    """
    if policy.give_up_after is None:
        return None
    failed_at = [item.failed_at for item in _failures(same) if item.failed_at is not None]
    days = {day_of(at, policy.day_starts).first for at in failed_at}
    return local_date(max(failed_at)) if len(days) >= policy.give_up_after else None


def _failures(same: Sequence[Known]) -> Iterator[Known]:
    """Iterate over the tasks that have failed since the last video, latest first."""
    for attempt in reversed(same):
        if attempt.phase.has_landed:
            break
        if attempt.phase is Phase.FAILED and attempt.task_id is not None:
            yield attempt


def _failed_paid(same: Sequence[Known]) -> int:
    return sum(1 for _ in _failures(same))


def _day(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds or 0.0, UTC).strftime("%Y-%m-%d")
