"""Attempts as records of the database, and back.

The detail of a state is a flat JSON object, the same in every release: fields that a later release
adds have a default, so that it opens older states. The first release wrote absent fields as null.
"""

from __future__ import annotations

import json
from typing import Any

from batch.attempt import (
    Account,
    Attempt,
    AttemptState,
    Checked,
    Discarded,
    Doubt,
    Failed,
    Generated,
    Intended,
    Landed,
    Lost,
    Open,
    PaidTask,
    Phase,
    Pin,
    TimedOut,
    Unconfirmed,
)
from batch.job import Failure, Video

COLUMNS = (
    "external_task_id, job_id, number, fingerprint, request, state, detail, task_id, failure_kind,"
    " file, bytes, polls, cost_usd, base_url, token_hash, account"
)
# An upsert: a REPLACE would delete the other owner of a task instead of being refused. It leaves out
# the fingerprint, which is part of the external id.
PUT = (
    f"INSERT INTO attempts ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
    " ON CONFLICT (external_task_id) DO UPDATE SET state = excluded.state, detail = excluded.detail,"
    # A task that an older release recorded twice stays out of the column of its second attempt.
    " task_id = CASE WHEN attempts.task_id IS NULL"
    " AND json_extract(attempts.detail, '$.task_id') = excluded.task_id"
    " THEN NULL ELSE excluded.task_id END,"
    " failure_kind = excluded.failure_kind, file = excluded.file,"
    " bytes = excluded.bytes, polls = excluded.polls, token_hash = excluded.token_hash,"
    " job_id = excluded.job_id, number = excluded.number, cost_usd = excluded.cost_usd,"
    " request = excluded.request, base_url = excluded.base_url, account = excluded.account"
)
_DETAIL = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_record(attempt: Attempt) -> tuple[object, ...]:
    """Return the values of `COLUMNS` for an attempt."""
    state = attempt.state
    failure = failure_of(state)
    return (
        attempt.external_task_id,
        attempt.job_id,
        attempt.number,
        attempt.fingerprint,
        attempt.request,
        attempt.phase.value,
        _DETAIL.encode(detail_of(state)),
        attempt.task_id,
        None if failure is None else failure.kind.value,
        getattr(state, "file", None),
        getattr(state, "bytes", None),
        attempt.polls,
        attempt.cost_usd,
        attempt.account.base_url,
        attempt.token_hash,
        attempt.account.key_hash,
    )


def from_record(record: tuple[Any, ...]) -> Attempt:
    """Return the attempt of a record with the values of `COLUMNS`."""
    return Attempt(
        external_task_id=record[0],
        job_id=record[1],
        number=record[2],
        fingerprint=record[3],
        request=record[4],
        state=_state(Phase(record[5]), json.loads(record[6])),
        polls=record[11],
        cost_usd=record[12],
        account=Account(record[13], record[15]),
        token_hash=record[14],
    )


def failure_of(state: AttemptState) -> Failure | None:
    """Return the failure that a plan asks about, if the state has one."""
    match state:
        case (
            Failed(failure=failure)
            | Lost(doubt=Doubt(failure))
            | Unconfirmed(doubt=Doubt(failure))
            | Landed(trouble=Failure() as failure)
        ):
            return failure
        case _:
            return None


def detail_of(
    value: AttemptState | Failure | Checked | Pin | PaidTask | Doubt,
) -> dict[str, Any]:
    """Return a value's fields, with those of its task and doubt beside them.

    `dataclasses.asdict` would take five times as long.
    """
    detail: dict[str, Any] = {}
    for name in type(value).__match_args__:
        item = getattr(value, name)
        if isinstance(item, PaidTask | Doubt):
            detail |= detail_of(item)
        elif isinstance(item, Video):
            detail[name] = item.to_json()
        elif isinstance(item, Failure | Checked | Pin):
            detail[name] = detail_of(item)
        elif item is not None and item is not False:
            detail[name] = item
    return detail


def _state(phase: Phase, detail: dict[str, Any]) -> AttemptState:
    match phase:
        case Phase.INTENDED:
            return Intended(detail["since"], _doubt(detail) if "failure" in detail else None)
        case Phase.LOST:
            return Lost(detail["since"], _doubt(detail))
        case Phase.UNCONFIRMED:
            return Unconfirmed(detail["since"], _doubt(detail))
        case Phase.OPEN:
            return Open(_task(detail))
        case Phase.TIMED_OUT:
            return TimedOut(_task(detail), detail["timed_out_at"], detail.get("said"))
        case Phase.GENERATED:
            return Generated(_task(detail), detail["generated_at"], _trouble(detail))
        case Phase.FAILED:
            task = _task(detail) if detail.get("task_id") else None
            return Failed(Failure.of(detail["failure"]), detail["failed_at"], task)
        case Phase.LANDED:
            return Landed(
                task=_task(detail),
                generated_at=detail["generated_at"],
                landed_at=detail["landed_at"],
                file=detail["file"],
                bytes=detail["bytes"],
                sha256=detail["sha256"],
                video=Video.of(detail["video"]),
                warnings=tuple(detail.get("warnings", ())),
                trouble=_trouble(detail),
                checked=Checked(**detail["checked"]) if "checked" in detail else None,
                pin=Pin(**detail["pin"]) if "pin" in detail else None,
                first_at=detail.get("first_at"),
                came_from=detail.get("came_from"),
            )
        case Phase.DISCARDED:
            times = (detail["generated_at"], detail["landed_at"], detail["discarded_at"])
            return Discarded(_task(detail), *times, detail["bytes"], detail["sha256"])


def _task(detail: dict[str, Any]) -> PaidTask:
    return PaidTask(detail["task_id"], detail["submitted_at"], detail.get("request_id"))


def _doubt(detail: dict[str, Any]) -> Doubt:
    return Doubt(
        Failure.of(detail["failure"]),
        exists=detail.get("exists", False),
        on_request=detail.get("on_request", False),
        sent_at=detail.get("sent_at"),
    )


def _trouble(detail: dict[str, Any]) -> Failure | None:
    return Failure.of(detail["trouble"]) if detail.get("trouble") else None
