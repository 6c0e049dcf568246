"""Why a run stops: the first reason counts, but being out of budget gives way to worse."""

from __future__ import annotations

import pytest

from batch.errors import ExitCode
from batch.events import Event, Stopping
from batch.run.stop import EXIT_CODES, LEAVES, MILD, Stop, StopReason

WORSE = [reason for reason in StopReason if reason not in MILD]


def stopped(*asked: tuple[StopReason, str]) -> tuple[Stop, list[Event]]:
    """Return the switch after it was asked, and what it reported."""
    told: list[Event] = []
    stop = Stop(told.append)
    for reason, sentence in asked:
        stop.ask(reason, sentence)
    return stop, told


@pytest.mark.parametrize("reason", WORSE)
def test_a_used_up_budget_hides_no_worse_reason(reason: StopReason) -> None:
    """To run again helps against an empty budget, not against a refused key."""
    stop, told = stopped((StopReason.BUDGET, "spent"), (reason, "worse"))
    assert told == [Stopping("spent"), Stopping("worse")]
    assert (stop.reason, stop.sentence) == (reason, "worse")
    assert stop.leaving.is_set() == (reason in LEAVES)


def test_a_used_up_budget_stops_no_feeding() -> None:
    """A cheaper job may still be covered."""
    stop, _ = stopped((StopReason.BUDGET, "spent"))
    assert not stop.feeding.is_set()


@pytest.mark.parametrize("reason", WORSE)
def test_the_first_reason_counts(reason: StopReason) -> None:
    asked = [(reason, "first"), (StopReason.BUDGET, "spent"), (StopReason.ACCOUNT, "refused")]
    stop, told = stopped(*asked)
    assert told == [Stopping("first")]
    assert (stop.reason, stop.sentence) == (reason, "first")
    assert stop.feeding.is_set()


def test_leaving_is_reported_after_the_account_stopped() -> None:
    asked = [(StopReason.ACCOUNT, "refused"), (StopReason.TERMINATED, "SIGTERM")]
    stop, told = stopped(*asked, (StopReason.DEADLINE, "time is up"))
    assert told == [Stopping("refused"), Stopping("SIGTERM")]
    assert stop.reason is StopReason.ACCOUNT
    assert stop.leaving.is_set()


def test_last_call_lets_open_tasks_come_home() -> None:
    stop, _ = stopped((StopReason.LAST_CALL, "too late"))
    assert stop.feeding.is_set()
    assert not stop.leaving.is_set()
    assert EXIT_CODES[StopReason.LAST_CALL] is ExitCode.LIMIT
