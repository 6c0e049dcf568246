"""A line of results.jsonl: every field of the contract, for every outcome."""

from __future__ import annotations

import json
from typing import get_type_hints

import pytest
from scripted import attempt, landed

from batch.attempt import (
    AttemptState,
    Doubt,
    Failed,
    Generated,
    Outcome,
    PaidTask,
    TimedOut,
    Unconfirmed,
)
from batch.job import Failure, FailureKind
from batch.output.row import make_row, outcome_of, to_line
from batch.rows import Row

FIELDS = list(get_type_hints(Row))
TASK = PaidTask("8", 1.0)
POLICY = Failure(FailureKind.MODERATION, "policy", "1301", 400, "r-7")
OUTCOMES: dict[Outcome, list[AttemptState]] = {
    Outcome.SUCCEEDED: [landed("8", "videos/a.mp4", 9)],
    Outcome.FAILED: [
        Failed(POLICY, 2.0),
        Failed(POLICY, 2.0, TASK),
        Generated(TASK, 2.0, POLICY),
    ],
    Outcome.TIMED_OUT: [TimedOut(TASK, 2.0)],
    Outcome.UNCONFIRMED: [Unconfirmed(1.0, Doubt(Failure(FailureKind.UNCONFIRMED, "lost")))],
}
CASES = [(outcome, state) for outcome, states in OUTCOMES.items() for state in states]


@pytest.mark.parametrize(("outcome", "state"), CASES)
def test_every_outcome_has_every_field(outcome: Outcome, state: AttemptState) -> None:
    row = make_row(attempt(state), run_id="r", tasks=1, now=5.0)
    assert list(row) == FIELDS
    assert row["status"] == outcome.value
    assert outcome_of(attempt(state)) is outcome
    assert (row["error"] is None) is (outcome is Outcome.SUCCEEDED)


@pytest.mark.parametrize(("outcome", "state"), CASES)
def test_only_a_task_of_this_run_is_paid(outcome: Outcome, state: AttemptState) -> None:
    """An attempt without a task is paid for by nobody, whoever has sent it."""
    sent = make_row(attempt(state), run_id="r", tasks=1, now=5.0, tags=("a", "b"), paid=True)
    assert sent["paid"] is (sent["task_id"] is not None), outcome
    assert sent["tags"] == ["a", "b"]
    found = make_row(attempt(state), run_id="r", tasks=1, now=5.0)
    assert (found["paid"], found["tags"]) == (False, [])


def test_success_describes_its_file() -> None:
    row = make_row(attempt(landed("8", "videos/a.mp4", 9)), run_id="r", tasks=2, now=5.0)
    assert (row["file"], row["bytes"], row["sha256"]) == ("videos/a.mp4", 9, "00")
    assert row["video"] == {"duration_s": 5.0, "width": 240, "height": 240}
    assert row["attempts"] == 2


def test_prompt_and_options_are_as_sent() -> None:
    row = make_row(attempt(TimedOut(TASK, 2.0)), run_id="r", tasks=1, now=5.0)
    assert row["prompt"] == "a cat"
    assert row["options"] == {"duration": "5", "aspect_ratio": "1:1"}


def test_times_are_utc_in_iso_8601() -> None:
    row = make_row(attempt(TimedOut(PaidTask("8", 0.0), 2.0)), run_id="r", tasks=1, now=1.5)
    assert row["submitted_at"] == "1970-01-01T00:00:00.000Z"
    assert row["finished_at"] == "1970-01-01T00:00:01.500Z"


def test_unpaid_attempt_costs_nothing() -> None:
    refused = make_row(attempt(Failed(POLICY, 2.0)), run_id="r", tasks=0, now=1.0)
    assert refused["cost_usd"] is None


def test_error_has_all_fields_of_its_failure() -> None:
    row = make_row(attempt(Failed(POLICY, 2.0)), run_id="r", tasks=0, now=1.0)
    expected = {
        "kind": "moderation",
        "code": "1301",
        "http_status": 400,
        "message": "policy",
        "request_id": "r-7",
    }
    assert row["error"] == expected
    assert row["request_id"] == "r-7"


def test_line_has_no_breaks_and_reads_back() -> None:
    """Many readers end a line at U+2028 and its kind, Python's `splitlines` for one."""
    ends = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    row = make_row(attempt(TimedOut(TASK, 2.0)), run_id=f"r{ends}ü", tasks=1, now=1.0)
    line = to_line(row)
    assert line.splitlines() == [line]
    assert "ü" in line
    assert json.loads(line) == row
