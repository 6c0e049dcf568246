"""A job: one video that the manifest asks for, known by what would be sent for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

FINGERPRINT_VERSION = "v1"
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class FailureKind(StrEnum):
    """Whose a failure is; `error.kind` in results.jsonl."""

    INVALID_REQUEST = "invalid_request"
    MODERATION = "moderation"
    GENERATION = "generation"
    ACCOUNT = "account"
    RATE_LIMITED = "rate_limited"
    PROVIDER = "provider"
    NETWORK = "network"
    DOWNLOAD = "download"
    MEDIA = "media"
    DISK = "disk"
    TIMEOUT = "timeout"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, in a sentence that may be shown: no key, no signed URL, no control codes."""

    kind: FailureKind
    message: str
    code: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    is_unexplained: bool = False  # the provider's reason is in words that are not known


def canonical_request(body: dict[str, Any]) -> str:
    """Write a request body as the one text that stands for it: sorted keys, no spaces."""
    return _CANONICAL.encode(body)


def fingerprint(request: str, variant: int | None) -> str:
    """Hash what would be sent, and which variant it is.

    The version in front lets a later release recognise (and recompute, from the request that the
    state keeps) what an earlier one has hashed, so that an upgrade never buys a library again.
    """
    digest = hashlib.sha256(f"{variant or ''}\n{request}".encode()).hexdigest()[:32]
    return f"{FINGERPRINT_VERSION}:{digest}"


@dataclass(frozen=True, slots=True)
class Job:
    """One video that the manifest asks for.

    *request* is the canonical JSON of what will be sent, without `external_task_id` and
    `callback_url`. *file* and *line* say where in the manifest the job stands.
    """

    id: str
    request: str
    fingerprint: str
    tags: tuple[str, ...] = ()
    variant: int | None = None
    file: str = ""
    line: int = 0

    def body(self) -> dict[str, Any]:
        """Return what will be sent, as a new dict."""
        body: dict[str, Any] = json.loads(self.request)
        return body

    @property
    def video_path(self) -> str:
        """Where the video belongs, relative to the output folder."""
        return video_path(self.id)


def video_path(job_id: str) -> str:
    """Return where the video of a job belongs, relative to the output folder."""
    return f"videos/{job_id}.mp4"


@dataclass(frozen=True, slots=True)
class Video:
    """What a video file says of itself."""

    duration_s: float
    width: int
    height: int
