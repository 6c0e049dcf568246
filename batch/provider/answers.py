"""What an answer of the provider can be: one value for each meaning.

`submit` returns a `SubmitAnswer`, or `Unsent` or `Stale` where no request went out; `query` returns a
`QueryAnswer`. Each carries either the task or a failure that may be shown to the user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from batch.job import Failure


class TaskStatus(StrEnum):
    """Where a task stands. An unknown word is `UNKNOWN`: the task is polled again."""

    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the provider reports it, whatever the envelope.

    *url* is signed and therefore a secret; *message* is the reason of a failure, cleaned; the two
    times are seconds since the epoch, and their difference at the end is the generation time.
    """

    task_id: str
    status: TaskStatus
    url: str | None = field(default=None, repr=False)
    message: str = ""
    video_duration_s: float | None = None
    external_task_id: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    request_id: str | None = None


# -- to a submission -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Created:
    """The task exists, and it is paid for. It may have failed already."""

    task: Task


@dataclass(frozen=True, slots=True)
class Exists:
    """This external id was used before: the task was created earlier. Look it up."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too many requests. Nothing was created; send again later, under the same id."""

    failure: Failure
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Saturated:
    """All slots are taken (1303). Nothing was created; send again when one is free, same id."""

    failure: Failure
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """This request is refused for good: `invalid_request` or `moderation`."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class AccountRefused:
    """The whole account is refused (key, credit, permission, base URL). Nothing was created."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The answer does not tell whether a task was created.

    *is_page*: it came from no API at all, but is a page, or a bare 404 or 405.
    """

    failure: Failure
    is_page: bool = False


@dataclass(frozen=True, slots=True)
class Unsent:
    """No byte of the request's body was sent: nothing was created."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Stale:
    """The intent was too old by the time the request could be sent (money rule 7). Nothing was."""

    failure: Failure


# -- to a query ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The task as it stands."""

    task: Task


@dataclass(frozen=True, slots=True)
class NotFound:
    """The API, not a proxy, reports that it has no such task (yet)."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No usable answer; asking again costs nothing. *is_page*: as in `Ambiguous`."""

    failure: Failure
    retry_after_s: float | None = None
    is_page: bool = False


SubmitAnswer = Created | Exists | Throttled | Saturated | Refused | AccountRefused | Ambiguous
QueryAnswer = Found | NotFound | Unavailable | AccountRefused
