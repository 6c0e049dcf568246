"""Whether a request may go out now, by the rules of a fleet. Pure: the records are read before.

Slot, turn and budget are judged together and kept by the same transaction, so that no worker finds a
half of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from batch.library.allowances import Standing
from batch.manifest.limits import Limits, Rate
from batch.run.account import LATE_S, SPREAD, Traffic
from batch.run.budget import exceeded
from batch.run.stop import MILD, StopReason

FAILED_OVER = (
    "a copy of the database has taken its place, and may have forgotten what was submitted last;"
    " nothing more is submitted. Run again: the next run looks for it"
)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Admit:
    """The request may go out; *usd* more are set aside for it."""

    traffic: Traffic
    usd: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now: ask again in *for_s* seconds, or (*for_slot*) when a slot of the account is free."""

    traffic: Traffic
    for_s: float | None
    for_slot: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """Not in this run."""

    reason: StopReason
    sentence: str


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
    return Admit(after, usd) if due <= seen.now else Wait(traffic, due - seen.now)


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

    Turns are a little farther apart than the rate asks for. That is how late one may come without
    the next being later for it, and still no window sees more requests than the rate.
    """
    spread_s = (SPREAD - 1.0) * seen.interval_s
    late_s = min(LATE_S, spread_s * max(1, int(rate.count)))
    return traffic.turn(seen.interval_s + spread_s, seen.now, late_s)


def known_limit(taught: int | None, ceiling: int) -> int:
    """Return the limit of slots, where a provider may have *taught* one."""
    return ceiling if taught is None else min(taught, ceiling)
