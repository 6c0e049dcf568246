"""No day and no month costs more than its budget, whenever requests are answered."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from scripted import attempt

from batch.attempt import Doubt, Failed, Lost, Open, PaidTask
from batch.job import Failure, FailureKind
from batch.library.allowances import Spending, allowances
from batch.manifest.limits import Limits
from batch.output.state import Payment
from batch.run.budget import DUST_USD, Budget
from batch.run.stop import Stop

BERLIN = ZoneInfo("Europe/Berlin")
NOON = time(12)
SAID = Failure(FailureKind.PROVIDER, "said so")
# The night in which summer time ends, and the last one of a month.
BEGINS = datetime(2026, 10, 24, 18, tzinfo=BERLIN).timestamp()
PER_DAY, PER_MONTH = 1.0, 2.5
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "created", "lost", "refused", "wait"]),
        st.sampled_from([0.21, 0.35, 0.07]),
        st.floats(0, 40_000),
    ),
    max_size=80,
)
LIMITS = Limits(budget_per_day_usd=PER_DAY, budget_per_month_usd=PER_MONTH, day_starts=NOON)


@given(STEPS)
def test_no_day_is_over_its_budget(steps: list[tuple[str, float, float]]) -> None:
    now = BEGINS
    found = allowances(LIMITS, BERLIN)
    budget = Budget(None, Stop(), now=lambda: now, allowances=found)
    waiting: list[Any] = []
    sent: list[tuple[float, float]] = []
    for number, (step, cost, seconds) in enumerate(steps):
        if step == "wait":
            now += seconds
        elif step == "reserve" and budget.reserve(cost):
            name = f"kb-{number}"
            budget.cover(name, cost)
            waiting.append((name, cost))
        elif step != "reserve" and waiting:
            name, usd = waiting.pop(0)
            state: Any = Open(PaidTask(f"8{number}", now))
            if step == "lost":
                state = Lost(now, Doubt(SAID))
            if step == "refused":
                state = Failed(SAID, now)
                budget.refund(usd, name)
            else:
                sent.append((now, usd))
            budget.book(_costing(name, usd, state))
    for allowance in found:
        sums: dict[Any, float] = defaultdict(float)
        for at, usd in sent:
            sums[allowance.span_of(at)] += usd
        assert all(total <= allowance.limit_usd + DUST_USD for total in sums.values())
    assert budget.spent_usd >= sum(usd for _, usd in sent) - DUST_USD


def _costing(name: str, usd: float, state: Any) -> Any:
    return replace(attempt(state, name=name), cost_usd=usd)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0.21, 0.35, None]), st.floats(0, 10**6)),
        max_size=60,
    ),
    st.lists(st.integers(0, 10**6), max_size=5),
)
def test_bookings_add_up_as_if_read_anew(
    bookings: list[tuple[int, float | None, float]], asked: list[int]
) -> None:
    """Sums that follow each booking are those of a fresh look at the same attempts."""
    span_of = allowances(LIMITS, BERLIN)[0].span_of
    spending, latest = Spending(), {}
    for number, usd, later in bookings:
        for moment in asked:
            spending.within(span_of(BEGINS + moment))
        payment = Payment(f"kb-{number}", attempt().phase, None, usd, BEGINS + later)
        spending.book(payment)
        latest[payment.external_task_id] = payment
    for moment in asked:
        span = span_of(BEGINS + moment)
        fresh = Spending(latest.values()).within(span)
        assert abs(spending.within(span) - fresh) < DUST_USD
