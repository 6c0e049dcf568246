"""A provider that does not answer is reported, and so is its first answer after that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from batch import events
from batch.provider.answers import Ambiguous, QueryAnswer, Stale, SubmitAnswer, Unavailable, Unsent
from batch.provider.protocol import Stream, VideoApi
from batch.run.context import RunContext

QUIET_S = 5.0  # so long a provider may take before a word is said
ROUNDING_S = 0.1  # the loop's clock and ours differ a little
T = TypeVar("T")


class Listening:
    """A `VideoApi` that tells when nothing has answered for a while, and when that is over.

    One broken connection is no silence: a request waits, or two in a row were not answered.
    """

    def __init__(self, api: VideoApi, context: RunContext) -> None:
        self._api = api
        self._context = context
        self._waiting = 0  # requests under way
        self._unanswered = 0  # in a row
        self._since: float | None = None  # (monotonic) of the first request that is not answered
        self._why: str | None = None
        self._is_told = False

    async def submit(
        self, body: dict[str, Any], *, not_after: float, resent: bool
    ) -> SubmitAnswer | Unsent | Stale:
        return await self._listen(self._api.submit(body, not_after=not_after, resent=resent))

    async def query(self, identifier: str) -> QueryAnswer:
        return await self._listen(self._api.query(identifier))

    def fetch(
        self, url: str, *, start: int = 0, validator: str | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        return self._api.fetch(url, start=start, validator=validator)

    async def _listen(self, request: Awaitable[T]) -> T:
        if self._since is None:
            self._since = self._context.clock.monotonic()
        timer = asyncio.get_running_loop().call_later(QUIET_S, self._tell)
        self._waiting += 1
        answer: T | None = None
        try:
            answer = await request
        finally:
            timer.cancel()
            self._waiting -= 1
            self._hear(answer)
        return answer

    def _hear(self, answer: object) -> None:
        """Take an answer in; None: the run was left before one came."""
        match answer:
            case Unsent(failure) | Unavailable(failure) | Ambiguous(failure) if (
                failure.http_status is None
            ):
                self._unanswered += 1
                self._why = failure.message
                if self._unanswered > 1:
                    self._tell()
            case Stale() | None:
                if not (self._waiting or self._unanswered):
                    self._since = None
            case _:
                self._end()

    def _tell(self) -> None:
        seconds = self._silent_s
        if seconds > QUIET_S - ROUNDING_S and not self._is_told:
            self._is_told = True
            self._context.notify(events.NotAnswering(seconds, self._why))

    def _end(self) -> None:
        if self._is_told:
            self._context.notify(events.AnsweringAgain(self._silent_s))
        self._since = self._context.clock.monotonic() if self._waiting else None
        self._unanswered, self._why, self._is_told = 0, None, False

    @property
    def _silent_s(self) -> float:
        return 0.0 if self._since is None else self._context.clock.monotonic() - self._since
