"""A job, its attempts, and the life of an attempt.

Everything that can happen to an attempt is in this file: the states, a sum type in which a field
exists only where it is known, and `TRANSITIONS`, the one table of what may follow what. Whoever
changes a state does it through `Attempt.to`, and commits the result before the next step.

    planned ─→ Intended ─→ Open ─→ Generated ─→ Landed
                  │  ↑       │         ↑  ↺ trouble │ file gone
                  ↓  │       ├→ TimedOut            ↓
                Lost ┘       └→ Failed          Generated
                  └→ Unconfirmed

*planned* is nothing on disk. *Superseded* is no state of its own: an attempt is superseded when
its fingerprint is not (or no longer) that of the job in the manifest, and is collected all the same.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from batch.errors import TransitionError

FINGERPRINT_VERSION = "v1"
STATE_FOLDER = ".kling-batch"  # in the output folder; everything in it is ours
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
    is_unexplained: bool = False  # a failed task whose reason is not known to pass


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


# -- the states ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Intended:
    """On disk before the POST. Who finds it there later does not know whether the POST went out."""

    since: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The POST went out, or may have; its answer says nothing.

    *exists*: the provider has said that this external id is taken, so there is a task.
    """

    since: float
    failure: Failure
    exists: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """Paid for. The provider works on it."""

    task_id: str
    submitted_at: float
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Open, but we have stopped waiting. Not a verdict: the next run looks again."""

    task_id: str
    submitted_at: float
    timed_out_at: float
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """The provider has the video. *trouble* says why it has not landed yet, if that was tried."""

    task_id: str
    submitted_at: float
    generated_at: float
    request_id: str | None = None
    trouble: Failure | None = None


@dataclass(frozen=True, slots=True)
class Landed:
    """The video is on disk, whole. *file* is relative to the output folder."""

    task_id: str
    submitted_at: float
    generated_at: float
    landed_at: float
    file: str
    bytes: int
    sha256: str
    video: Video
    warnings: tuple[str, ...] = ()
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Refused (no *task_id*: nothing was paid) or failed at the provider (*task_id*: it was)."""

    failure: Failure
    failed_at: float
    task_id: str | None = None
    submitted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Nobody can tell whether a task exists. Never sent again unless the person says so.

    *exists*: as in `Lost`; it only cannot be found.
    """

    since: float
    failure: Failure
    exists: bool = False


State = Intended | Lost | Open | TimedOut | Generated | Landed | Failed | Unconfirmed
STATES: tuple[type[State], ...] = (
    Intended,
    Lost,
    Open,
    TimedOut,
    Generated,
    Landed,
    Failed,
    Unconfirmed,
)

# What may follow what. An Intended follows itself when a request that surely created nothing goes
# out again under the same id; Generated follows itself with another trouble; Landed goes back to
# Generated when its file is gone. After Failed there is only a new attempt.
TRANSITIONS: dict[type[State], frozenset[type[State]]] = {
    Intended: frozenset({Intended, Lost, Open, Failed}),
    Lost: frozenset({Intended, Open, Unconfirmed}),
    Open: frozenset({Generated, Failed, TimedOut}),
    TimedOut: frozenset({Generated, Failed, TimedOut}),
    Generated: frozenset({Generated, Landed, Failed}),
    Landed: frozenset({Generated, Landed}),
    Failed: frozenset(),
    Unconfirmed: frozenset({Lost, Intended, Open, Unconfirmed}),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to pay for a job, with an `external_task_id` of its own.

    *number* counts a job's attempts from 1; *polls* the status requests for its task;
    *cost_usd* is the estimate at the time of submission; *base_url* and *account* say whom it is
    sent to, and with which key (a short hash of it); *token_hash* is what is stored of the token in
    its callback URL.
    """

    external_task_id: str
    job_id: str
    fingerprint: str
    number: int
    request: str
    state: State
    polls: int = 0
    cost_usd: float | None = None
    base_url: str = ""
    account: str = ""
    token_hash: str | None = None

    def body(self) -> dict[str, Any]:
        """Return what is (or was) sent, as a new dict, without the external id."""
        body: dict[str, Any] = json.loads(self.request)
        return body

    def polled(self) -> Attempt:
        """Return the attempt with one more status request counted."""
        return replace(self, polls=self.polls + 1)

    def to(self, state: State) -> Attempt:
        """Return the attempt in its next state.

        Raises:
            TransitionError: the table has no such transition.
        """
        if type(state) not in TRANSITIONS[type(self.state)]:
            before, after = type(self.state).__name__, type(state).__name__
            message = f"attempt {self.external_task_id} of {self.job_id!r}: {before} → {after}"
            raise TransitionError(message)
        return replace(self, state=state)

    def owns(self, task_id: str, external_task_id: str | None) -> bool:
        """Tell whether a task that an answer speaks of is this attempt's.

        A gateway that mixes up its answers must not give one job the video of another.
        """
        if external_task_id is not None and external_task_id != self.external_task_id:
            return False
        return task_id == self.task_id or external_task_id == self.external_task_id

    @property
    def task_id(self) -> str | None:
        """The provider's id of the task, as soon as there is one. With it, somebody has paid."""
        match self.state:
            case Intended() | Lost() | Unconfirmed():
                return None
            case _:
                return self.state.task_id
