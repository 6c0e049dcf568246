"""Whether a request may go out now, by the rules of a fleet. Pure: the records are read before.

Slot, turn and budget are judged together and kept by the same transaction, so that no worker finds a
half of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from batch.frozen import frozen
from batch.library.allowances import Standing
from batch.manifest.limits import Limits, Rate
from batch.run.account import LATE_S, SPREAD, Traffic
from batch.run.budget import exceeded
from batch.run.stop import MILD, StopReason

AHEAD_S = 0.02  # a turn may be taken so early: then one question is enough for many
FAILED_OVER = (
    "a copy of the database has taken its place, and may have forgotten what was submitted last;"
    " nothing more is submitted. Run again: the next run looks for it"
)


@frozen
class Seen:
    """What the records say at the moment of one admission.

    *in_use* are the slots of the account that other attempts hold, *of_run* those of them that are
    this run's. *ceiling* is the most that the account may have, *interval_s* what its rate leaves
    between two requests. *is_held*: the attempt has a slot
    already. *is_covered*: this run has set its estimate aside before. *standings* say what was spent
    of day and month without this attempt. *stop* is the reason and the sentence of a stopped run,
    *refused* why the provider refuses the account. *is_open*: the run has not ended.
    *is_doubted*: the database is no longer the one of its handover, but a copy that took its place, and
    may have forgotten what was sent last.
    """

    now: float
    traffic: Traffic
    ceiling: int
    interval_s: float
    in_use: int = 0
    of_run: int = 0
    is_held: bool = False
    is_covered: bool = False
    reserved_usd: float = 0.0
    standings: tuple[Standing, ...] = ()
    deadline_at: float | None = None
    stop: tuple[str, str] | None = None
    refused: str | None = None
    is_open: bool = True
    is_doubted: bool = False


@frozen
class Asking:
    """One request that asks for admission, beside what is known of its attempt.

    *is_held*: the attempt has a slot already; *is_of_run*: this run has sent it; *is_covered*: and has
    set its estimate aside.
    """

    cost_usd: float | None
    is_held: bool = False
    is_of_run: bool = False
    is_covered: bool = False


@frozen
class Admit:
    """The request may go out in *in_s* seconds; *usd* more are set aside for it."""

    traffic: Traffic
    usd: float
    in_s: float = 0.0


@frozen
class Wait:
    """Not now: ask again in *for_s* seconds, or (*for_slot*) when a slot of the account is free."""

    traffic: Traffic
    for_s: float | None
    for_slot: bool = False


@frozen
class Deny:
    """Not in this run."""

    reason: StopReason
    sentence: str


def judge_all(seen: Seen, asking: Iterable[Asking], limits: Limits) -> list[Admit | Wait | Deny]:
    """Return whether requests may go out, each beside those that were admitted before it.

    The answers end with the first that is not admitted. The slots that *seen* counts are those of all
    attempts.
    """
    found: list[Admit | Wait | Deny] = []
    for one in asking:
        its = one.is_held and one.is_of_run
        others, of_run = seen.in_use - one.is_held, seen.of_run - its
        beside = replace(
            seen, in_use=others, of_run=of_run, is_held=one.is_held, is_covered=one.is_covered
        )
        verdict = judge(beside, one.cost_usd, limits)
        found.append(verdict)
        if not isinstance(verdict, Admit):
            break
        usd = verdict.usd
        seen = replace(
            seen,
            traffic=verdict.traffic,
            in_use=others + 1,
            of_run=of_run + 1,
            reserved_usd=seen.reserved_usd + usd,
            standings=tuple(replace(s, spent_usd=s.spent_usd + usd) for s in seen.standings),
        )
    return found


def judge(seen: Seen, cost_usd: float | None, limits: Limits) -> Admit | Wait | Deny:
    """Return whether a request may go out.

    Args:
        seen: what the records say.
        cost_usd: the estimate of what it costs.
        limits: those of its run; the rate is the account's.
    """
    usd = 0.0 if seen.is_covered else cost_usd or 0.0
    ended = _ended(seen)
    if ended is not None:
        return ended
    if not seen.is_covered:
        reached = exceeded(usd, limits.budget_usd, seen.reserved_usd, seen.standings)
        if reached is not None:
            return Deny(StopReason.BUDGET, reached)
    traffic = seen.traffic.risen(seen.in_use, seen.ceiling, seen.now)
    if not seen.is_held:
        if seen.in_use >= traffic.limit:
            rises = traffic.limit < seen.ceiling
            rises_in_s = traffic.raise_at - seen.now if rises else None
            return Wait(traffic, rises_in_s, for_slot=True)
        if seen.of_run >= limits.max_in_flight:
            return Wait(traffic, None, for_slot=True)
    due, after = _turn(traffic, seen, limits.submit_rate)
    in_s = max(due - seen.now, 0.0)
    return Admit(after, usd, in_s) if in_s <= AHEAD_S else Wait(traffic, in_s)


def _ended(seen: Seen) -> Deny | None:
    """Return why nothing of the run goes out any more."""
    if seen.stop is not None and seen.stop[0] not in MILD:
        return Deny(StopReason(seen.stop[0]), seen.stop[1])
    if seen.refused is not None:
        return Deny(StopReason.ACCOUNT, seen.refused)
    if not seen.is_open:
        return Deny(StopReason.TERMINATED, "the run has ended")
    if seen.is_doubted:
        return Deny(StopReason.STATE, FAILED_OVER)
    if seen.deadline_at is not None and seen.now >= seen.deadline_at:
        return Deny(StopReason.DEADLINE, "the deadline is reached")
    return None


def _turn(traffic: Traffic, seen: Seen, rate: Rate) -> tuple[float, Traffic]:
    """Return when the next turn is due, and the traffic once it is taken.

    Turns are a little farther apart than the rate asks for. Nearly so late one may come without the
    next being later for it, and still no window sees more requests than the rate.
    """
    spread_s = (SPREAD - 1.0) * seen.interval_s
    late_s = min(LATE_S, 0.99 * spread_s * max(1, int(rate.count)))
    return traffic.turn(seen.interval_s + spread_s, seen.now, late_s)


def known_limit(taught: int | None, ceiling: int) -> int:
    """Return the limit of slots, where a provider may have *taught* one."""
    return ceiling if taught is None else min(taught, ceiling)
