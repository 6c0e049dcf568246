"""A line of results.jsonl: every field of the contract, for every outcome."""

from __future__ import annotations

import json

import pytest
from scripted import attempt, landed

from batch.job import Failed, Failure, FailureKind, Generated, State, TimedOut, Unconfirmed
from batch.output.row import make_row, status_of, to_line

FIELDS = {
    "schema",
    "run_id",
    "job_id",
    "status",
    "prompt",
    "options",
    "fingerprint",
    "task_id",
    "external_task_id",
    "request_id",
    "attempts",
    "polls",
    "file",
    "bytes",
    "sha256",
    "video",
    "warnings",
    "cost_usd",
    "submitted_at",
    "generated_at",
    "finished_at",
    "error",
}
POLICY = Failure(FailureKind.MODERATION, "policy", "1301", 400, "r-7")
OUTCOMES: dict[str, list[State]] = {
    "succeeded": [landed("8", "videos/a.mp4", 9)],
    "failed": [
        Failed(POLICY, 2.0),
        Failed(POLICY, 2.0, "8", 1.0),
        Generated("8", 1.0, 2.0, None, POLICY),
    ],
    "timed_out": [TimedOut("8", 1.0, 2.0)],
    "unconfirmed": [Unconfirmed(1.0, Failure(FailureKind.UNCONFIRMED, "nobody knows"))],
}
CASES = [(status, state) for status, states in OUTCOMES.items() for state in states]


@pytest.mark.parametrize(("status", "state"), CASES)
def test_every_outcome_has_every_field(status: str, state: State) -> None:
    row = make_row(attempt(state), run_id="r", tasks=1, now=5.0)
    assert row.keys() == FIELDS
    assert row["status"] == status == status_of(attempt(state))
    assert (row["error"] is None) is (status == "succeeded")


def test_a_success_tells_of_its_file() -> None:
    row = make_row(attempt(landed("8", "videos/a.mp4", 9)), run_id="r", tasks=2, now=5.0)
    assert (row["file"], row["bytes"], row["sha256"]) == ("videos/a.mp4", 9, "00")
    assert row["video"] == {"duration_s": 5.0, "width": 240, "height": 240}
    assert row["attempts"] == 2


def test_the_prompt_and_the_options_are_as_sent() -> None:
    row = make_row(attempt(TimedOut("8", 1.0, 2.0)), run_id="r", tasks=1, now=5.0)
    assert row["prompt"] == "a cat"
    assert row["options"] == {"duration": "5", "aspect_ratio": "1:1"}


def test_times_are_utc_in_iso_8601() -> None:
    row = make_row(attempt(TimedOut("8", 0.0, 2.0)), run_id="r", tasks=1, now=1.5)
    assert row["submitted_at"] == "1970-01-01T00:00:00.000Z"
    assert row["finished_at"] == "1970-01-01T00:00:01.500Z"


def test_what_was_not_paid_costs_nothing() -> None:
    refused = make_row(attempt(Failed(POLICY, 2.0)), run_id="r", tasks=0, now=1.0)
    assert refused["cost_usd"] is None


def test_an_error_says_whose_it_is() -> None:
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


def test_a_line_is_one_line_and_reads_back() -> None:
    row = make_row(attempt(TimedOut("8", 1.0, 2.0)), run_id="r\nü\u2028", tasks=1, now=1.0)
    line = to_line(row)
    assert "\n" not in line
    assert json.loads(line) == row
