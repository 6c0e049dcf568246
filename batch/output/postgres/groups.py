"""What many jobs ask of Postgres at the same time, done together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from batch.errors import AwayError
from batch.output.postgres.pool import Connection, Connections
from batch.output.postgres.questions import Question, Rows

T = TypeVar("T")
R = TypeVar("R")
MOST = 100  # in one group

Work = Callable[[Connection, Sequence[T]], Awaitable[Sequence[R]]]
"""Does all items in one transaction, which may be repeated; returns what came out, item by item."""


class Group(Generic[T, R]):
    """Does in one transaction what was asked for while the last one was under way.

    A busy worker has few transactions that way, and an idle one waits for nobody. Where one item is
    refused, nothing of the transaction is done: then each is done by itself, and no job fails for
    another's sake.
    """

    def __init__(self, connections: Connections, work: Work[T, R]) -> None:
        self._connections = connections
        self._work = work
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._is_at_work = False

    async def do(self, item: T) -> R:
        """Return what comes out of an item. What was begun is done, also if the call is cancelled.

        Raises:
            ClaimLostError: its claim is no longer the newest.
            RefusedError: it breaks a rule of the state.
            StateError: Postgres did not answer for too long, or cannot do it.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if not self._is_at_work:
            self._is_at_work = True
            self._connections.start(self._do_all())
        return await answer

    async def _do_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._do(group)
        finally:
            self._is_at_work = False

    async def _do(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        items = [item for item, _ in group]
        try:
            found = await self._connections.again(lambda connection: self._work(connection, items))
        except Exception as error:  # noqa: BLE001 - told to whoever has asked
            if len(group) > 1 and not isinstance(error, AwayError):
                for one in group:
                    await self._do([one])
                return
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), came_out in zip(group, found, strict=True):
            if not answer.done():
                answer.set_result(came_out)


async def read(connection: Connection, questions: Sequence[Question[Any]]) -> list[Rows]:
    """Return the rows that answer each of *questions*."""
    if len(questions) == 1:
        (one,) = questions
        return [await (await connection.execute(one.sql.encode(), one.values)).fetchall()]
    async with connection.pipeline():
        cursors = [await connection.execute(one.sql.encode(), one.values) for one in questions]
    return [await cursor.fetchall() for cursor in cursors]
