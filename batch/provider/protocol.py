"""What a run needs of a provider. The client implements it over HTTP, the tests in memory.

`submit` and `query` never raise for anything that the network or the provider does: what happened is
the answer (see `batch.provider.answers`). `fetch` raises, because a stream can break at any byte; the
class of the error says what may help.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from batch.job import Failure
from batch.provider.answers import QueryAnswer, Stale, SubmitAnswer, Unsent

# A submission is acknowledged within this time, or never delivered (where the platform can tell
# the kernel so): how long a request may outlive the process that has sent it.
DELIVERED_WITHIN_S = 5.0


class FetchError(Exception):
    """A download broke. *failure* says how, in words that may be shown."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class BrokenFetchError(FetchError):
    """The connection, the server or the body: the same link may work in a moment.

    *retry_after_s* is the wait that the server asked for; such a refusal is no failed try.
    """

    def __init__(self, failure: Failure, retry_after_s: float | None = None) -> None:
        super().__init__(failure)
        self.retry_after_s = retry_after_s


class ExpiredLinkError(FetchError):
    """The link is refused: the task has to be asked for a fresh one."""


class UselessPartError(FetchError):
    """The part that was fetched so far cannot be resumed: start from zero."""


class Stream(Protocol):
    """The answer to a fetch, headers read and checked, the body to come."""

    @property
    def start(self) -> int:
        """The byte of the file at which the body begins: the requested one, or 0."""
        ...

    @property
    def total(self) -> int | None:
        """The size of the whole file in bytes, if the server tells it."""
        ...

    @property
    def validator(self) -> str | None:
        """The value of If-Range with which this very file is resumed later."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the body.

        Raises:
            BrokenFetchError: it stalled or ended early.
        """
        ...


class VideoApi(Protocol):
    """Kling's text2video, as CometAPI serves it (or anything that keeps this contract)."""

    async def submit(
        self, body: dict[str, Any], *, not_after: float, resent: bool
    ) -> SubmitAnswer | Unsent | Stale:
        """Request a video, once; this costs money.

        Args:
            body: The request, with its `external_task_id`.
            not_after: Nothing is sent once the clock's monotonic time is past this.
            resent: Whether this external id may have been sent before.
        """
        ...

    async def query(self, identifier: str) -> QueryAnswer:
        """Return a task by its task id or by its external id. Free, and safe to repeat."""
        ...

    def fetch(
        self, url: str, *, start: int = 0, validator: str | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        """Open a signed link at byte *start*, if the file is still the one of *validator*.

        The API key goes along only to the API's own origin.

        Raises:
            FetchError: On entering; the class says what may help.
        """
        ...
