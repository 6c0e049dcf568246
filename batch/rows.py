"""The rows of results.jsonl as types. Part of the public contract.

`batch.output.row` makes them.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Status = Literal["succeeded", "failed", "timed_out", "unconfirmed"]
ErrorKind = Literal[
    "invalid_request",
    "moderation",
    "generation",
    "account",
    "rate_limited",
    "provider",
    "network",
    "download",
    "media",
    "disk",
    "timeout",
    "unconfirmed",
]


class RowVideo(TypedDict):
    """What a video file says of itself.

    *credentials* are the marks of its origin that it holds: `c2pa` (Content Credentials), `xmp`,
    `aigc` (China's label of generated media); without any, the key is left out.
    """

    duration_s: float
    width: int
    height: int
    credentials: NotRequired[list[str]]


class RowError(TypedDict):
    """Why a job has no video."""

    kind: ErrorKind
    code: str | None
    http_status: int | None
    message: str
    request_id: str | None


class Row(TypedDict):
    """One line of results.jsonl: the outcome of a job in a run.

    *prompt* and *options* are as sent. *attempts* counts the tasks created for the job so far,
    *polls* the status requests for the last one. *file* is relative to the output folder. *paid*:
    the task was paid for in this run. *cost_usd* is an estimate. Times are UTC, in ISO 8601.
    """

    schema: int
    run_id: str
    job_id: str
    status: Status
    prompt: str
    options: dict[str, Any]
    fingerprint: str
    task_id: str | None
    external_task_id: str | None
    request_id: str | None
    attempts: int
    polls: int
    file: str | None
    bytes: int | None
    sha256: str | None
    video: RowVideo | None
    warnings: list[str]
    tags: list[str]
    paid: bool
    cost_usd: float | None
    submitted_at: str | None
    generated_at: str | None
    finished_at: str
    error: RowError | None
