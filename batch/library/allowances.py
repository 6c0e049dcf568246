"""What a day and a month may cost, and what they have cost so far.

Derived from the attempts in the state, like every other number (`batch.library.accounts`): a task counts
when it was submitted, an attempt that may have created one when it was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import tzinfo

from batch.days import Span, day_of, month_of
from batch.frozen import frozen
from batch.library.accounts import charged_usd
from batch.manifest.limits import Limits
from batch.output.state import Payment


@frozen
class Allowance:
    """The most that a day, or a month, may cost. *key* is the limit's name in the manifest."""

    key: str
    name: str
    limit_usd: float
    span_of: Callable[[float], Span]


def allowances(limits: Limits, zone: tzinfo | None = None) -> list[Allowance]:
    """Return what *limits* allow for a day and a month; a zone of None is the machine's."""
    starts = limits.day_starts
    found = []
    if limits.budget_per_day_usd is not None:
        limit_usd = limits.budget_per_day_usd
        found.append(
            Allowance("budget_per_day", "day", limit_usd, lambda at: day_of(at, starts, zone))
        )
    if limits.budget_per_month_usd is not None:
        limit_usd = limits.budget_per_month_usd
        found.append(
            Allowance("budget_per_month", "month", limit_usd, lambda at: month_of(at, starts, zone))
        )
    return found


class Spending:
    """What each attempt of a library costs and when it was sent; every attempt counts once."""

    def __init__(self, payments: Iterable[Payment] = ()) -> None:
        self._payments = {payment.external_task_id: payment for payment in payments}
        self._sums: dict[Span, float] = {}

    def within(self, span: Span) -> float:
        """Return the estimate of what was sent in a day or month."""
        if span not in self._sums:
            sent = (payment for payment in self._payments.values() if payment.at in span)
            self._sums[span] = charged_usd(sent)
        return self._sums[span]

    def book(self, payment: Payment) -> None:
        """Take in what an attempt has come to; what was booked of it before no longer counts."""
        self.drop(payment.external_task_id)
        self._payments[payment.external_task_id] = payment
        self._add(payment, 1)

    def drop(self, external_task_id: str) -> None:
        """Forget an attempt: it has created nothing."""
        payment = self._payments.pop(external_task_id, None)
        if payment is not None:
            self._add(payment, -1)

    def _add(self, payment: Payment, sign: int) -> None:
        for span in self._sums:
            if payment.at in span:
                self._sums[span] += sign * charged_usd([payment])


@frozen
class Standing:
    """An allowance now: what is spent of it, and the day or month that it is for."""

    allowance: Allowance
    span: Span
    spent_usd: float

    @property
    def left_usd(self) -> float:
        """What may still be spent."""
        return max(0.0, self.allowance.limit_usd - self.spent_usd)


def standings(
    found: Iterable[Allowance], payments_since: Callable[[float], list[Payment]], now: float
) -> list[Standing]:
    """Return how each allowance stands; without any, nothing is read.

    Args:
        found: the allowances.
        payments_since: returns what was sent since a moment.
        now: the moment.
    """
    spans = [(allowance, allowance.span_of(now)) for allowance in found]
    if not spans:
        return []
    spending = Spending(payments_since(min(span.begins for _, span in spans)))
    return [Standing(allowance, span, spending.within(span)) for allowance, span in spans]
