"""The budgets of a run: estimates are set aside before a request, and given back if it made nothing.

    reserve(usd)        before a slot is waited for: does run, day and month have that much left?
    cover(id, usd)      the estimate set aside is for this attempt
    book(attempt)       it was sent, and counts on the day of its submission from now on
    refund(usd, id)     it made nothing

What is set aside and not sent yet counts in the day that it is now: a request that goes out after the
day's end was never in a day that could not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from batch.attempt import Attempt
from batch.days import local_minute
from batch.library.allowances import Allowance, Spending, Standing
from batch.output.state import Payment
from batch.run.stop import Stop, StopReason

DUST_USD = 1e-9  # what adding up cents in binary may be off by


class Budget:
    """What a run may spend, by estimate. What it does not cover is left to the next run.

    Args:
        limit_usd: the most for this run; None for no limit.
        stop: told which limit was reached.
        now: returns the wall-clock time.
        allowances: the most for a day and a month.
        spending: what the library's attempts cost before this run, and when they were sent.
    """

    def __init__(
        self,
        limit_usd: float | None,
        stop: Stop,
        *,
        now: Callable[[], float],
        allowances: Sequence[Allowance] = (),
        spending: Spending | None = None,
    ) -> None:
        self._limit_usd = limit_usd
        self._stop = stop
        self._now = now
        self._allowances = allowances
        self._spending = spending or Spending()
        self._covered: dict[str, float] = {}  # by attempt: the estimate that this run has set aside
        self._unsent: set[str] = set()  # those of them that are not booked yet
        self._set_aside_usd = 0.0  # for what is not sent yet
        self.spent_usd = 0.0

    def reserve(self, cost_usd: float | None) -> bool:
        """Set an estimate aside; False when that is too much, and then the run stops for it."""
        cost_usd = cost_usd or 0.0
        reached = self._reached(cost_usd)
        if reached is not None:
            self._stop.ask(StopReason.BUDGET, reached)
            return False
        self.spent_usd += cost_usd
        self._set_aside_usd += cost_usd
        return True

    def cover(self, external_task_id: str, cost_usd: float | None) -> None:
        """Record for which attempt an estimate is set aside: sent again, it costs nothing more."""
        self._covered[external_task_id] = cost_usd or 0.0
        self._unsent.add(external_task_id)

    def covers(self, external_task_id: str, cost_usd: float | None) -> bool:
        """Return whether an attempt may be sent again; sets its estimate aside if none was yet."""
        if external_task_id not in self._covered:
            if not self.reserve(cost_usd):
                return False
            self.cover(external_task_id, cost_usd)
        return True

    def refund(self, cost_usd: float | None, external_task_id: str | None = None) -> None:
        """Give an estimate back: nothing was created."""
        self.spent_usd -= cost_usd or 0.0
        is_unsent = external_task_id is None or external_task_id in self._unsent
        if is_unsent:
            self._set_aside_usd -= cost_usd or 0.0
        if external_task_id is not None:
            self._covered.pop(external_task_id, None)
            self._unsent.discard(external_task_id)

    def book(self, attempt: Attempt) -> None:
        """Count an attempt on the day on which it was sent; a refused one costs nothing."""
        name = attempt.external_task_id
        if name in self._unsent:
            self._unsent.remove(name)
            self._set_aside_usd -= self._covered[name]
        if not self._allowances:  # nobody asks what a day has cost
            return
        item = Payment(name, attempt.phase, attempt.task_id, attempt.cost_usd, attempt.sent_at)
        self._spending.book(item)

    def drop(self, external_task_id: str) -> None:
        """Record that an attempt that was in doubt has created nothing."""
        self._spending.drop(external_task_id)

    def _reached(self, cost_usd: float) -> str | None:
        now = self._now()
        standings = []
        for allowance in self._allowances:
            span = allowance.span_of(now)
            spent_usd = self._spending.within(span) + self._set_aside_usd
            standings.append(Standing(allowance, span, spent_usd))
        return exceeded(cost_usd, self._limit_usd, self.spent_usd, standings)


def exceeded(
    cost_usd: float, limit_usd: float | None, spent_usd: float, standings: Iterable[Standing] = ()
) -> str | None:
    """Return which limit an estimate would exceed, in a sentence; None if it exceeds none.

    Args:
        cost_usd: the estimate.
        limit_usd: the budget of the run, if it has one.
        spent_usd: what the run has set aside so far.
        standings: what is spent of day and month.
    """
    if limit_usd is not None and spent_usd + cost_usd > limit_usd + DUST_USD:
        advice = "run again to go on" if cost_usd <= limit_usd else "raise it"
        told = _told(spent_usd, cost_usd)
        return f"the budget of ${limit_usd:.2f} is used up ({told}); {advice}"
    for standing in standings:
        allowance, spent = standing.allowance, standing.spent_usd
        if spent + cost_usd > allowance.limit_usd + DUST_USD:
            advice = f"run again after {local_minute(standing.span.ends)} to go on"
            if cost_usd > allowance.limit_usd:
                advice = "raise it"
            return (
                f"the budget of ${allowance.limit_usd:.2f} for one {allowance.name}"
                f" ({allowance.key}) is used up ({_told(spent, cost_usd)}); {advice}"
            )
    return None


def _told(spent_usd: float, cost_usd: float) -> str:
    return f"estimated so far: ${spent_usd:.2f}, and the next task: ${cost_usd:.2f}"
