"""The callbacks of a fleet: any worker receives them, and the one that has the job gets the hint.

The provider calls one address; a proxy spreads the calls over the receivers of the workers.

    a token of a job that is in flight here      its hint, at once
    any other token in our form                  one look at the attempt's record in Postgres
        its hash is another one, or none         404, as for any wrong token
        it is the same                           a notice to all workers: the one with the job has its hint
        Postgres does not say so in time         503: a sender that tries again may be luckier

A token names its attempt, so that its record is found by the key; what else the body says is only passed
on. What strangers send costs Postgres next to nothing (`batch.output.postgres.relay`), since the form
of a token is no secret. Neither a notice nor a log or an error holds a token; its hash stays in the state.

A notice is no more than the callback was, a hint. It may be lost, with the connection or with the worker
that was about to send it; the job may be parked, or nobody's since its worker died: then the task is
polled as without callbacks. A worker that takes a job over polls its task at once, which makes up for
what came in between, and accepts what comes from then on: the hash was on disk before the request. Two
that both believe to have the job both poll. Of a request that went out again, the last token is on disk;
the earlier ones are known to the worker that has sent it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Protocol

from batch.callbacks.hints import Hints, News, hash_token, named_in
from batch.callbacks.receiver import listen


class Relay(Protocol):
    """The way to the other workers."""

    async def tell(self, external_task_id: str, token_hash: str, text: str) -> bool | None:
        """Tell all workers *text* if the attempt's token has this hash.

        Returns:
            Whether it has; None if that cannot be said now.
        """
        ...


class Mailroom:
    """What all runs of one worker have to do with callbacks."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._runs: list[Hints] = []
        self._receivers: dict[str, tuple[int, AsyncExitStack]] = {}  # by address: its users

    @contextmanager
    def hints(self) -> Iterator[Hints]:
        """Yield the hints of a run, which callbacks reach while the block lasts."""
        hints = Hints()
        self._runs.append(hints)
        try:
            yield hints
        finally:
            self._runs.remove(hints)

    @asynccontextmanager
    async def receiving(self, address: str) -> AsyncIterator[None]:
        """Receive at *address* (HOST:PORT) while the block lasts, also for others that do so.

        Raises:
            UsageError: the address cannot be listened on.
        """
        users, exits = self._receivers.get(address, (0, AsyncExitStack()))
        if not users:
            await exits.enter_async_context(listen(address, self))
        self._receivers[address] = users + 1, exits
        try:
            yield
        finally:
            users, exits = self._receivers.pop(address)
            if users > 1:
                self._receivers[address] = users - 1, exits
            else:
                await exits.aclose()

    def owner(self, token: str) -> str | None:
        """Return the attempt that a token is for, known here or not; None if it is certainly no one's."""
        known = (hints.owner(token) for hints in self._runs)
        return next(filter(None, known), None) or named_in(token)

    async def take(self, token: str, news: News | None) -> bool | None:
        """Give a run its hint, or pass it on to the workers; see `Inbox.take`."""
        knowing = [hints for hints in self._runs if hints.owner(token) is not None]
        owner = self.owner(token)
        if owner is None or news is None:
            return bool(knowing)
        for hints in knowing:
            if hints.expects(owner):
                return await hints.take(token, news)
        # Where it is known, the job was here: it has ended, or is another worker's by now.
        told = await self._relay.tell(owner, hash_token(token), json.dumps([owner, *news]))
        return True if knowing else told

    def hear(self, text: str) -> None:
        """Give the attempts in flight here what a worker has told all of them."""
        match _read(text):
            case [
                str(owner),
                str(task_id),
                float() | int() | None as updated_at,
                bool(has_ended),
                bool(names_us),
            ]:
                news = News(task_id, updated_at, has_ended, names_us)
                for hints in self._runs:
                    hints.record(owner, news)
            case _:
                pass  # the connection is new, or somebody else uses the channel


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
