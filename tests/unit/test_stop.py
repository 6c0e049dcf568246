"""Why a run stops: the first reason counts, but being out of budget gives way to worse."""

from __future__ import annotations

import pytest

from batch.run.stop import LEAVES, Stop, StopReason

WORSE = [reason for reason in StopReason if reason is not StopReason.BUDGET]


@pytest.mark.parametrize("reason", WORSE)
def test_a_used_up_budget_hides_nothing_that_is_worse(reason: StopReason) -> None:
    """To run again helps against an empty budget, not against a refused key."""
    stop = Stop()
    assert stop.ask(StopReason.BUDGET, "spent")
    assert stop.ask(reason, "worse")
    assert (stop.reason, stop.sentence) == (reason, "worse")
    assert stop.leaving.is_set() == (reason in LEAVES)


@pytest.mark.parametrize("reason", WORSE)
def test_the_first_reason_counts(reason: StopReason) -> None:
    stop = Stop()
    assert stop.ask(reason, "first")
    assert not stop.ask(StopReason.BUDGET, "spent")
    assert not stop.ask(StopReason.ACCOUNT, "refused")
    assert (stop.reason, stop.sentence) == (reason, "first")


def test_leaving_is_news_also_when_nothing_is_submitted_any_more() -> None:
    stop = Stop()
    stop.ask(StopReason.ACCOUNT, "refused")
    assert stop.ask(StopReason.TERMINATED, "SIGTERM")
    assert not stop.ask(StopReason.DEADLINE, "time is up")
    assert stop.reason is StopReason.ACCOUNT
    assert stop.leaving.is_set()
