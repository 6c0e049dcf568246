"""A row of results.jsonl, read back into the attempt that it reports.

The rows outlive a state that was restored from a backup: what they name was paid for.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from batch.attempt import (
    Attempt,
    AttemptState,
    Doubt,
    Failed,
    Generated,
    Landed,
    Outcome,
    PaidTask,
    TimedOut,
    Unconfirmed,
)
from batch.job import Failure, FailureKind, Video, canonical_request, upgraded_fingerprint

# The task is generated, and only its download failed.
NOT_THE_TASK = frozenset({FailureKind.DOWNLOAD, FailureKind.MEDIA, FailureKind.DISK})


def read_row(line: bytes) -> dict[str, Any]:
    """Return a line of results.jsonl; empty if it is torn or not a row."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def recall(row: dict[str, Any]) -> Attempt | None:
    """Return the attempt that *row* reports, as its job's first; None if it does not say enough."""
    try:
        prompt = {} if row["prompt"] is None else {"prompt": row["prompt"]}
        request = canonical_request({**prompt, **row["options"]})
        return Attempt(
            external_task_id=_text(row["external_task_id"]),
            job_id=_text(row["job_id"]),
            fingerprint=upgraded_fingerprint(_text(row["fingerprint"]), request),
            number=1,
            request=request,
            state=_state(row),
            polls=int(row["polls"]),
            cost_usd=row["cost_usd"],
        )
    except (KeyError, TypeError, ValueError):
        return None


def _state(row: dict[str, Any]) -> AttemptState:
    ended_at = _time(row["finished_at"])
    outcome = Outcome(row["status"])
    if outcome is Outcome.UNCONFIRMED:
        return Unconfirmed(ended_at, Doubt(Failure.of(row["error"])))
    if outcome is Outcome.FAILED and row["task_id"] is None:
        return Failed(Failure.of(row["error"]), ended_at)
    task = PaidTask(_text(row["task_id"]), _time(row["submitted_at"]), row["request_id"])
    match outcome:
        case Outcome.TIMED_OUT:
            return TimedOut(task, ended_at)
        case Outcome.FAILED:
            failure = Failure.of(row["error"])
            if failure.kind in NOT_THE_TASK:
                return Generated(task, _time(row["generated_at"]), failure)
            return Failed(failure, ended_at, task)
        case _:
            return Landed(
                task,
                _time(row["generated_at"]),
                ended_at,
                _text(row["file"]),
                int(row["bytes"]),
                _text(row["sha256"]),
                Video.of(row["video"]),
                tuple(row["warnings"]),
            )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
