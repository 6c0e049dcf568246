"""What a run may spend: of its own budget, of the day's and of the month's."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from scripted import SAID, attempt

from batch.attempt import Attempt, Doubt, Failed, Intended, Lost, Open, PaidTask, Phase
from batch.days import local_minute
from batch.library.allowances import Spending, allowances
from batch.manifest.limits import Limits
from batch.output.state import Payment
from batch.run.budget import Budget
from batch.run.stop import Stop

BERLIN = ZoneInfo("Europe/Berlin")
NOON = time(12)
NIGHT = datetime(2026, 11, 28, 2, tzinfo=BERLIN).timestamp()
HOUR = 3600.0


class Night:
    """A budget, and the clock that it reads."""

    def __init__(self, *payments: Payment, budget: float | None = None, **limits: Any) -> None:
        self.now = NIGHT
        self.stop = Stop()
        self.budget = Budget(
            budget,
            self.stop,
            now=lambda: self.now,
            allowances=allowances(Limits(day_starts=NOON, **limits), BERLIN),
            spending=Spending(payments),
        )


def paid(name: str, at: float, usd: float = 0.21) -> Payment:
    return Payment(name, Phase.LANDED, f"8-{name}", usd, at)


def sent(at: float, usd: float = 0.21, name: str = "kb-1") -> Attempt:
    return replace(attempt(Open(PaidTask("8", at)), name=name), cost_usd=usd)


def test_earlier_runs_of_the_day_count() -> None:
    """Since yesterday noon; what was submitted before that is another day's."""
    night = Night(
        *(paid("before", NIGHT - 15 * HOUR, 9.0), paid("evening", NIGHT - 6 * HOUR, 0.80)),
        budget_per_day_usd=1.0,
    )
    assert night.budget.reserve(0.20)
    assert not night.budget.reserve(0.01)
    assert night.stop.sentence == (
        "the budget of $1.00 for one day (budget_per_day) is used up (estimated so far: $1.00, and"
        f" the next task: $0.01); run again after {local_minute(NIGHT + 10 * HOUR)} to go on"
    )


def test_month_is_named_where_it_ends_the_run() -> None:
    night = Night(
        paid("long ago", NIGHT - 20 * 24 * HOUR, 299.90),
        budget_per_day_usd=25.0,
        budget_per_month_usd=300.0,
    )
    assert not night.budget.reserve(0.21)
    assert "$300.00 for one month (budget_per_month) is used up" in night.stop.sentence


def test_run_budget_is_named_first() -> None:
    night = Night(budget=0.2, budget_per_day_usd=0.2)
    assert not night.budget.reserve(0.21)
    assert night.stop.sentence == (
        "the budget of $0.20 is used up (estimated so far: $0.00, and the next task: $0.21); raise it"
    )


def test_perhaps_paid_counts_as_paid() -> None:
    lost = Payment("lost", Phase.LOST, None, 0.9, NIGHT)
    assert not Night(lost, budget_per_day_usd=1.0).budget.reserve(0.21)


def test_noon_brings_a_new_day() -> None:
    night = Night(budget_per_day_usd=0.25)
    assert night.budget.reserve(0.21)
    night.budget.cover("kb-1", 0.21)
    night.budget.book(sent(NIGHT))
    assert not night.budget.reserve(0.21)
    night.now += 10 * HOUR
    assert night.budget.reserve(0.21)


def test_what_waits_over_noon_is_the_new_days() -> None:
    """Set aside before noon and sent after it, it leaves the new day that much less."""
    night = Night(budget_per_day_usd=0.25)
    assert night.budget.reserve(0.21)
    night.budget.cover("kb-1", 0.21)
    night.now += 10 * HOUR
    assert not night.budget.reserve(0.21)
    night.budget.book(sent(night.now))
    assert not night.budget.reserve(0.21)


def test_refused_request_gives_its_estimate_back() -> None:
    night = Night(budget_per_day_usd=0.25)
    assert night.budget.reserve(0.21)
    night.budget.cover("kb-1", 0.21)
    night.budget.refund(0.21, "kb-1")
    night.budget.book(replace(sent(NIGHT), state=Failed(SAID, NIGHT)))
    assert night.budget.reserve(0.21)


def test_resent_attempt_counts_once() -> None:
    """It was perhaps paid for today, was proved to be absent, and is sent again."""
    doubt = Payment("kb-1", Phase.LOST, None, 0.21, NIGHT - HOUR)
    night = Night(doubt, budget_per_day_usd=0.25)
    night.budget.drop("kb-1")
    assert night.budget.covers("kb-1", 0.21)
    assert night.budget.covers("kb-1", 0.21), "set aside already"
    night.budget.book(sent(NIGHT))
    assert not night.budget.reserve(0.05)


def test_found_task_counts_on_its_own_day() -> None:
    """A lost answer of today turns out to be a task of last week."""
    night = Night(Payment("kb-1", Phase.LOST, None, 0.21, NIGHT), budget_per_day_usd=0.25)
    assert not night.budget.reserve(0.21)
    night.budget.book(sent(NIGHT - 7 * 24 * HOUR))
    assert night.budget.reserve(0.21)


def test_attempt_in_doubt_counts_since_it_was_sent() -> None:
    night = Night(budget_per_day_usd=0.25)
    for state in (Intended(NIGHT), Lost(NIGHT, Doubt(SAID))):
        night.budget.book(replace(sent(NIGHT), state=state))
        assert not night.budget.reserve(0.21)
