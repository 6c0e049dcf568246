"""What to do with each job, and why: a pure function of the manifest and what is known.

`kling-batch plan` prints it, `kling-batch run` does it.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from batch.attempt import Phase
from batch.job import Failure, FailureKind, Job

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


def passes(failure: Failure) -> bool:
    """Return whether a failure is known to pass, so that a new attempt at once may heal it."""
    return failure.kind in HEALS_BY_ITSELF and not failure.is_unexplained


class Action(StrEnum):
    """What a run does with a job."""

    NEW = "new"  # never submitted: pay
    CHANGED = "changed"  # submitted with other options before: pay
    RETRY = "retry"  # failed, and a new attempt may heal it: pay
    FORCED = "forced"  # up to date, regenerated on request: pay
    RESUME = "resume"  # a task is (or may be) there: ask for it
    RESUBMIT = "resubmit"  # unconfirmed, and sent again on request: may pay again
    FETCH = "fetch"  # the video is made and paid for, the file is not here
    UNCHANGED = "unchanged"  # nothing to do
    RESTING = "resting"  # failed, and only the person can heal it
    ORPHANED = "orphaned"  # known here, no longer in the manifest


PAYING = frozenset({Action.NEW, Action.CHANGED, Action.RETRY, Action.FORCED})
COSTING = PAYING | {Action.RESUBMIT}


class Known(NamedTuple):
    """What a plan needs to know of an attempt; a hundred thousand of them fit into memory."""

    external_task_id: str
    job_id: str
    number: int
    fingerprint: str
    phase: Phase
    task_id: str | None
    failure_kind: str | None
    file: str | None
    bytes: int | None
    cost_usd: float | None
    landed_at: float | None
    failure_message: str | None = None
    is_unexplained: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one job.

    *job* is None for an orphan. *attempt* is the external id of the attempt to go on with, if any.
    *former* are attempts for earlier versions of the job whose tasks are still to be collected.
    *paid* counts the tasks already made for this fingerprint, *failed_paid* those of them that
    failed since the last success; *cost_usd* is the estimate for what is to be paid now.
    """

    action: Action
    job_id: str
    reason: str
    job: Job | None = None
    attempt: str | None = None
    former: tuple[str, ...] = ()
    number: int = 1
    paid: int = 0
    failed_paid: int = 0
    cost_usd: float | None = None
    price_known: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """What the person asked for on the command line."""

    force: bool = False
    retry_failed: bool = False
    resubmit_unconfirmed: bool = False
    max_attempts: int = 3
    select: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """The decisions that need something done, in the manifest's order, and counts of all."""

    decisions: list[Decision] = field(default_factory=list)
    counts: Counter[Action] = field(default_factory=Counter)
    resting: list[Decision] = field(default_factory=list)
    orphans: list[Decision] = field(default_factory=list)

    @property
    def cost_usd(self) -> float:
        """The estimate for everything that is to be paid."""
        return sum(decision.cost_usd or 0.0 for decision in self.decisions)

    @property
    def has_unknown_price(self) -> bool:
        """Whether some price is a guess (the dearest that is known)."""
        return any(not decision.price_known for decision in self.decisions)


def make_plan(
    jobs: Iterable[Job],
    known: Mapping[str, Sequence[Known]],
    *,
    policy: Policy,
    is_present: Callable[[str, int], bool],
    price: Callable[[Job], tuple[float, bool]],
) -> Plan:
    """Decide about every job.

    Args:
        jobs: what the manifest asks for.
        known: attempts by job id, each job's in the order of their numbers.
        policy: what the person asked for.
        is_present: tells whether a file (relative to the output folder) is there in that size.
        price: estimates a job in USD, and tells whether the price is known.
    """
    plan = Plan()
    listed: set[str] = set()
    for job in jobs:
        listed.add(job.id)
        if not is_selected(job.id, job.tags, policy.select):
            continue
        decision = _decide(job, known.get(job.id, ()), policy, is_present)
        if decision.action in COSTING:
            cost_usd, price_known = price(job)
            decision = replace(decision, cost_usd=cost_usd, price_known=price_known)
        _add(plan, decision)
    for job_id, attempts in known.items():
        if job_id not in listed and is_selected(job_id, (), policy.select):
            _add(plan, _orphan(job_id, attempts))
    return plan


def is_selected(job_id: str, tags: Sequence[str], patterns: Sequence[str]) -> bool:
    """Tell whether one of *patterns* (globs over ids, or `tag:NAME`) takes the job in."""
    if not patterns:
        return True
    return any(
        fnmatch.fnmatchcase(job_id, pattern)
        or (
            pattern.startswith("tag:")
            and any(fnmatch.fnmatchcase(tag, pattern[4:]) for tag in tags)
        )
        for pattern in patterns
    )


def _add(plan: Plan, decision: Decision) -> None:
    plan.counts[decision.action] += 1
    if decision.action is Action.ORPHANED:
        plan.orphans.append(decision)
        if decision.former:
            plan.decisions.append(decision)
    elif decision.action is Action.RESTING:
        plan.resting.append(decision)
        if decision.former:
            plan.decisions.append(decision)
    elif decision.action is not Action.UNCHANGED or decision.former:
        plan.decisions.append(decision)


def _orphan(job_id: str, attempts: Sequence[Known]) -> Decision:
    open_ids = tuple(a.external_task_id for a in attempts if not a.phase.is_finished)
    reason = "no longer in the manifest"
    if open_ids:
        reason += "; a task that may be paid for is still to be collected"
    return Decision(Action.ORPHANED, job_id, reason, former=open_ids)


def _decide(
    job: Job,
    attempts: Sequence[Known],
    policy: Policy,
    is_present: Callable[[str, int], bool],
) -> Decision:
    same = [attempt for attempt in attempts if attempt.fingerprint == job.fingerprint]
    latest = same[-1] if same else None
    former = tuple(
        attempt.external_task_id
        for attempt in attempts
        if attempt is not latest and not attempt.phase.is_finished
    )
    action, reason, goes_on = _judge(job, same, policy, is_present)
    if action is Action.NEW and attempts:
        action, reason = Action.CHANGED, "the prompt or an option changed"
    return Decision(
        action=action,
        job_id=job.id,
        reason=reason,
        job=job,
        attempt=latest.external_task_id if latest is not None and goes_on else None,
        former=former,
        number=attempts[-1].number + 1 if attempts else 1,
        paid=sum(attempt.task_id is not None for attempt in same),
        failed_paid=_failed_paid(same),
    )


def _judge(
    job: Job,
    same: Sequence[Known],
    policy: Policy,
    is_present: Callable[[str, int], bool],
) -> tuple[Action, str, bool]:
    """Return action, reason, and whether the latest attempt goes on."""
    if not same:
        return Action.NEW, "not made yet", False
    latest = same[-1]
    match latest.phase:
        case Phase.LANDED:
            here = latest.file == job.video_path and is_present(job.video_path, latest.bytes or 0)
            if policy.force:
                return Action.FORCED, "up to date, regenerated on request", False
            if here:
                return Action.UNCHANGED, "up to date", False
            return Action.FETCH, "its file is missing or was changed", True
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


def _judge_failed(
    same: Sequence[Known], failed_paid: int, policy: Policy
) -> tuple[Action, str, bool]:
    latest = same[-1]
    kind = FailureKind(latest.failure_kind or FailureKind.PROVIDER)
    told = f"{kind}: {latest.failure_message}" if latest.failure_message else f"{kind}"
    if failed_paid >= policy.max_attempts:
        reason = f"failed {failed_paid} times, the most that max_attempts allows ({told})"
        return Action.RESTING, reason, False
    # One more try in a later run, and then it rests: the words may be moderation in another wording.
    may_pass = not (latest.is_unexplained and _unexplained(same) > 1)
    if kind in HEALS_BY_ITSELF and may_pass:
        return Action.RETRY, f"failed before ({told})", False
    if policy.retry_failed:
        return Action.RETRY, f"failed before ({told}), retried on request", False
    return Action.RESTING, f"failed ({told}); change the job, or use --retry-failed", False


def _unexplained(same: Sequence[Known]) -> int:
    """Count the latest failures in a row whose reasons are in words that are not known."""
    # An attempt without a task (never reached, throttled for too long) says nothing about the prompt.
    told = itertools.takewhile(
        lambda attempt: attempt.is_unexplained or attempt.task_id is None, reversed(same)
    )
    return sum(attempt.is_unexplained for attempt in told)


def _failed_paid(same: Sequence[Known]) -> int:
    count = 0
    for attempt in reversed(same):
        if attempt.phase is Phase.LANDED:
            break
        count += attempt.phase is Phase.FAILED and attempt.task_id is not None
    return count
