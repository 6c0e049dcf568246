"""Callbacks that a worker has received for the jobs of others: checked, and told to all workers.

Whether the token is right, only the attempt's record says, and anybody may send wrong ones. So what
arrives at the same time is asked for together, in one small read of the primary key; between two reads
there is a pause; and beyond `MOST` that wait, nothing is asked. Postgres has as little to do with a flood
as with a busy night.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from batch.errors import BatchError
from batch.output.postgres.notices import HINTS
from batch.output.postgres.pool import Connection, Connections

MOST = 100  # that wait at once
PAUSE_S = 0.1  # from the end of a read to the next one
WITHIN_S = 2.0  # the answer is known, or nothing is said; a sender may not wait much longer
# Only the libraries of open runs, of which there are few: the key begins with the library.
TELL = (
    b"SELECT place, pg_notify(%s, its.told)"
    b" FROM unnest(%s::text[], %s::text[], %s::text[])"
    b" WITH ORDINALITY AS its (name, token_hash, told, place),"
    b" LATERAL (SELECT attempts.token_hash FROM runs JOIN attempts USING (library)"
    b" WHERE is_open AND external_task_id = its.name OFFSET 0) AS attempt"
    b" WHERE attempt.token_hash = its.token_hash"
)


class Told(NamedTuple):
    """What is to be told of an attempt, by whoever has the token of this hash."""

    external_task_id: str
    token_hash: str
    text: str


class PostgresRelay:
    """See `batch.callbacks.mailroom.Relay`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._waiting: list[tuple[Told, asyncio.Future[bool | None]]] = []
        self._is_at_work = False

    async def tell(self, external_task_id: str, token_hash: str, text: str) -> bool | None:
        if len(self._waiting) >= MOST:
            return None
        answer: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((Told(external_task_id, token_hash, text), answer))
        if not self._is_at_work:
            self._is_at_work = True
            self._connections.start(self._tell_all())
        try:
            async with asyncio.timeout(WITHIN_S):
                return await answer
        except TimeoutError:
            return None

    async def _tell_all(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                await self._tell([item for item in waiting if not item[1].done()])
                await asyncio.sleep(PAUSE_S)
        finally:
            self._is_at_work = False

    async def _tell(self, group: Sequence[tuple[Told, asyncio.Future[bool | None]]]) -> None:
        async def work(connection: Connection) -> set[int]:
            columns = [list(column) for column in zip(*(told for told, _ in group), strict=True)]
            cursor = await connection.execute(TELL, (HINTS, *columns))
            return {place for place, _ in await cursor.fetchall()}

        if not group:
            return
        right: set[int] | None = None  # unless Postgres answers, which those tell who need it
        with suppress(BatchError):
            right = await self._connections.once(work)
        for place, (_, answer) in enumerate(group, start=1):
            if not answer.done():
                answer.set_result(None if right is None else place in right)
