"""A few connections for everything that a worker asks of Postgres, over outages of minutes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from batch.key import Secret
from batch.output.postgres.connection import SESSION, conninfo, place_of
from batch.output.postgres.errors import LOST, as_ours, trouble_with
from batch.output.postgres.questions import Question

logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # `on_wait` says the same, once
T = TypeVar("T")
Connection = psycopg.AsyncConnection[Any]
PATIENCE_S = 600.0  # so long a lost connection is waited for
FIRST_WAIT_S, LAST_WAIT_S = 0.1, 2.0
CONNECTS_WITHIN_S = 10.0
LEAVES_WITHIN_S = 10.0
MAX_CONNECTIONS = 4
LOCKS_WITHIN = "5s"  # so that a beat finds a connection while others wait for a lock


class Connections:
    """Connections to one database, for the event loop. Use as an async context manager.

    Leaving it waits for the work that was started.

    Every transaction may be repeated, since its answer may be lost after it was committed. So each is,
    for *patience_s*, while Postgres does not answer, or refuses the login; *on_wait* is told which when
    that begins.
    """

    def __init__(
        self,
        engine: Secret,
        *,
        patience_s: float = PATIENCE_S,
        on_wait: Callable[[str], None] = lambda _trouble: None,
        max_size: int = MAX_CONNECTIONS,
    ) -> None:
        self.place = place_of(engine)
        self._patience_s = patience_s
        self._on_wait = on_wait
        self._has_told = False
        self._refusal: psycopg.Error | None = None  # of the latest attempt to connect
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool = AsyncConnectionPool(
            conninfo(engine),
            min_size=1,
            max_size=max_size,
            open=False,
            kwargs={"autocommit": True},
            connection_class=_noting(self._note),
            configure=_configure,
            timeout=min(CONNECTS_WITHIN_S, max(patience_s, 0.1)),
            reconnect_timeout=LAST_WAIT_S,  # `again` does the waiting
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVES_WITHIN_S)
        await self._pool.close()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start *work* that is to be finished although its caller may be cancelled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of a cancelled caller, nobody asks for it

    async def again(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what *work* does with a connection; do it again while Postgres does not answer.

        Raises:
            ClaimLostError: its claim is no longer the newest.
            RefusedError: it breaks a rule of the state.
            StateError: Postgres did not answer for too long, or cannot do it.
        """
        loop = asyncio.get_running_loop()
        until, wait_s = loop.time() + self._patience_s, FIRST_WAIT_S
        while True:
            try:
                async with self._pool.connection() as connection:
                    found = await work(connection)
            except psycopg.Error as caught:
                error = self._reason(caught)
                if not _passes(error) or loop.time() + wait_s > until:
                    raise as_ours(error, self.place) from error
                if not isinstance(error, psycopg.errors.LockNotAvailable):
                    self._tell(error)
            else:
                self._has_told = False
                return found
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LAST_WAIT_S)

    async def once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what *work* does with a connection.

        Raises:
            AwayError: Postgres does not answer; it may have done it all the same.
            ClaimLostError: its claim is no longer the newest.
            StateError: Postgres cannot do it.
        """
        try:
            async with self._pool.connection() as connection:
                return await work(connection)
        except psycopg.Error as error:
            raise as_ours(self._reason(error), self.place) from error

    async def ask(self, question: Question[T]) -> T:
        """Return the answer to a question."""

        async def read(connection: Connection) -> T:
            cursor = await connection.execute(question.sql.encode(), question.values)
            return question.answer(await cursor.fetchall())

        return await self.again(read)

    def _tell(self, error: psycopg.Error) -> None:
        if not self._has_told:
            self._has_told = True
            self._on_wait(trouble_with(error, self.place))

    def _note(self, error: psycopg.Error | None) -> None:
        self._refusal = error

    def _reason(self, error: psycopg.Error) -> psycopg.Error:
        """Return why there is no connection, where the pool only says that there is none."""
        return self._refusal or error if isinstance(error, PoolTimeout) else error


def _noting(note: Callable[[psycopg.Error | None], None]) -> type[Connection]:
    """Return the class of connections that *note* why one cannot be made, None where it can."""

    class Noting(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, *args: Any, **options: Any) -> Self:
            try:
                made = await super().connect(*args, **options)
            except psycopg.Error as error:
                note(error)
                raise
            note(None)
            return made

    return Noting


async def _configure(connection: Connection) -> None:
    await connection.execute(f"{SESSION}; SET lock_timeout TO '{LOCKS_WITHIN}'")


def _passes(error: psycopg.Error) -> bool:
    is_final = isinstance(error, PoolClosed | psycopg.errors.DiskFull)
    return isinstance(error, LOST) and not is_final
