"""One row of results.jsonl: the outcome of a job. Part of the public contract."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from batch.attempt import (
    ELSEWHERE,
    Attempt,
    Failed,
    Generated,
    Landed,
    Open,
    Outcome,
    TimedOut,
    Unconfirmed,
)
from batch.errors import TransitionError
from batch.job import Failure, FailureKind
from batch.output.layout import stamp

SCHEMA = 1
# Those that JSON allows inside a text, and many readers take for the end of a line.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
SUPERSEDED = "superseded: the job was changed or removed while this task was open"


def make_row(
    attempt: Attempt,
    *,
    run_id: str,
    tasks: int,
    now: float,
    warnings: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
    paid: bool = False,
) -> dict[str, Any]:
    """Return the row of an attempt that has reached an outcome.

    Args:
        attempt: the attempt.
        run_id: the run that reports it.
        tasks: the number of tasks created for this job so far.
        now: the end, where its state does not hold that.
        warnings: in addition to those of its state.
        tags: those of its job.
        paid: whether that run has sent the request that created its task.
    """
    state = attempt.state
    options = attempt.body()
    prompt = options.pop("prompt", None)
    row: dict[str, Any] = {
        "schema": SCHEMA,
        "run_id": run_id,
        "job_id": attempt.job_id,
        "status": outcome_of(attempt).value,
        "prompt": prompt,
        "options": options,
        "fingerprint": attempt.fingerprint,
        "task_id": attempt.task_id,
        "external_task_id": attempt.external_task_id,
        "request_id": _request_id(attempt),
        "attempts": tasks,
        "polls": attempt.polls,
        "file": None,
        "bytes": None,
        "sha256": None,
        "video": None,
        "warnings": list(warnings),
        "tags": list(tags),
        "paid": paid and attempt.task_id is not None,
        "cost_usd": attempt.cost_usd if attempt.task_id is not None else None,
        "submitted_at": _time(None if attempt.task is None else attempt.task.submitted_at),
        "generated_at": _time(getattr(state, "generated_at", None)),
        "finished_at": _time(now),
        "error": _error(failure_of(attempt)),
    }
    if isinstance(state, Landed) and state.trouble is None:
        row |= {
            "file": state.file,
            "bytes": state.bytes,
            "sha256": state.sha256,
            "video": state.video.to_json(),
            "warnings": [*state.warnings, *warnings],
            "finished_at": _time(state.landed_at),
        }
    return row


def new_run_id(now: float) -> str:
    """Return the id of a run that begins now, or of a command that writes a row."""
    return f"{stamp(now)}-{os.urandom(3).hex()}"


def has_outcome(attempt: Attempt) -> bool:
    """Return whether an attempt has reached an outcome, or this run's end of waiting for one."""
    return _outcome(attempt) is not None


def outcome_of(attempt: Attempt) -> Outcome:
    """Return the outcome of an attempt.

    Raises:
        TransitionError: it has none yet, which is a bug.
    """
    outcome = _outcome(attempt)
    if outcome is None:
        raise TransitionError(f"{attempt.job_id!r} has not ended: {attempt.phase}")
    return outcome


def _outcome(attempt: Attempt) -> Outcome | None:
    match attempt.state:
        case Landed(trouble=None):
            return Outcome.SUCCEEDED
        case TimedOut():
            return Outcome.TIMED_OUT
        case Unconfirmed():
            return Outcome.UNCONFIRMED
        case Failed() | Generated(trouble=Failure()) | Landed(trouble=Failure()):
            return Outcome.FAILED
        case _:
            return None


def is_superseded(row: dict[str, Any]) -> bool:
    """Return whether a row tells of a former version of its job."""
    return SUPERSEDED in row.get("warnings", ())


def to_line(row: dict[str, Any]) -> str:
    """Return a row as it is in the file, without the newline; no reader finds a line end inside."""
    line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return line if line.isascii() else line.translate(_LINE_ENDS)


def failure_of(attempt: Attempt) -> Failure | None:
    """Return why an attempt has no video, where its state says so."""
    match attempt.state:
        case Failed(failure=failure):
            return failure
        case Unconfirmed(doubt=doubt):
            return doubt.failure
        case Generated(trouble=trouble) | Landed(trouble=trouble):
            return trouble
        case TimedOut(said=said) if said == ELSEWHERE:
            message = f"{said}; it stays paid for, and a run with those collects it"
            return Failure(FailureKind.TIMEOUT, message)
        case TimedOut(said=said):
            message = (
                "the task was still open when task_timeout was over; it stays paid for, and the"
                " next run polls it again"
            )
            return Failure(FailureKind.TIMEOUT, f'{message}; it says "{said}"' if said else message)
        case _:
            return None


def _error(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "kind": failure.kind.value,
        "code": failure.code,
        "http_status": failure.http_status,
        "message": failure.message,
        "request_id": failure.request_id,
    }


def _request_id(attempt: Attempt) -> str | None:
    match attempt.state:
        case Open() | TimedOut() | Generated() | Landed():
            return attempt.state.task.request_id
        case Failed(failure=failure):
            return failure.request_id
        case Unconfirmed(doubt=doubt):
            return doubt.failure.request_id
        case _:
            return None


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
