"""What an answer of the provider can be: one value for each meaning.

`submit` returns a `SubmitAnswer`, or `Unsent` or `Stale` where no request went out; `query` returns a
`QueryAnswer`. Each carries either the task or a failure that may be shown to the user.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from batch.frozen import frozen
from batch.job import Failure


class TaskStatus(StrEnum):
    """Where a task stands. An unknown word is `UNKNOWN`: the task is polled again."""

    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@frozen
class Task:
    """A task as the provider reports it, whatever the envelope.

    *url* is signed and therefore a secret; *message* is the reason of a failure, cleaned; the two
    times are seconds since the epoch, and their difference at the end is the generation time.
    """

    task_id: str
    status: TaskStatus
    url: str | None = field(default=None, repr=False)
    message: str = ""
    external_task_id: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    request_id: str | None = None


# -- to a submission -------------------------------------------------------------------------


@frozen
class Created:
    """The task exists, and it is paid for. It may have failed already."""

    task: Task


@frozen
class Exists:
    """This external id was used before: the task was created earlier. Look it up."""

    failure: Failure


@frozen
class Throttled:
    """Too many requests. Nothing was created; send again later, under the same id."""

    failure: Failure
    retry_after_s: float | None = None


@frozen
class Saturated:
    """All slots are taken (1303). Nothing was created; send again when one is free, same id."""

    failure: Failure
    retry_after_s: float | None = None


@frozen
class Refused:
    """This request is refused for good: `invalid_request` or `moderation`."""

    failure: Failure


@frozen
class AccountRefused:
    """The whole account is refused (key, credit, permission, base URL). Nothing was created."""

    failure: Failure


@frozen
class Ambiguous:
    """The answer does not tell whether a task was created.

    *is_page*: it came from no API at all, but is a page, or a bare 404 or 405. *likely_id*: what may
    be the id of the task, to be confirmed by a query.
    """

    failure: Failure
    is_page: bool = False
    likely_id: str | None = None


@frozen
class Unsent:
    """No byte of the request's body was sent: nothing was created."""

    failure: Failure


@frozen
class Stale:
    """The intent was too old by the time the request could be sent (money rule 7). Nothing was."""

    failure: Failure


# -- to a query ------------------------------------------------------------------------------


@frozen
class Found:
    """The task as it stands."""

    task: Task


@frozen
class NotFound:
    """The API, not a proxy, reports that it has no such task (yet)."""

    failure: Failure


@frozen
class Unavailable:
    """No usable answer; asking again costs nothing. *is_page*: as in `Ambiguous`."""

    failure: Failure
    retry_after_s: float | None = None
    is_page: bool = False


SubmitAnswer = Created | Exists | Throttled | Saturated | Refused | AccountRefused | Ambiguous
QueryAnswer = Found | NotFound | Unavailable | AccountRefused
