"""A real Postgres whose clock is the simulation's, asked from within a loop in virtual time.

Every statement of the product is carried out as it is. Only the function that tells the time is another
one: it reads a file, which holds the virtual time of the latest transaction.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from cluster import Cluster
from virtual_time import EPOCH, VirtualLoop

from batch.key import Secret
from batch.output.postgres.connection import connect, init, place_of
from batch.output.postgres.errors import as_ours
from batch.output.postgres.pool import Connections

T = TypeVar("T")
VIRTUAL_CLOCK = """
SET allow_system_table_mods = on;
ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO machine_timestamp;
CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
    $$ SELECT to_timestamp(pg_read_file(current_database() || '.clock')::float8) $$;
"""


class VirtualPostgres:
    """The database at *url* in *cluster*; it gets our tables, and a virtual clock."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        self._cluster, self.url = cluster, url
        self.engine = Secret(url)
        name = url.rpartition("/")[2]
        self._clock = os.open(
            Path(cluster.folder, "data", f"{name}.clock"), os.O_CREAT | os.O_WRONLY, 0o644
        )
        self.set_time(0.0)
        cluster.execute(VIRTUAL_CLOCK, name)
        init(self.engine)

    def close(self) -> None:
        """Stop telling the time."""
        os.close(self._clock)

    def set_time(self, now: float) -> None:
        """Have the database believe that it is *now* on the virtual clock."""
        os.pwrite(self._clock, f"{EPOCH + now:020.6f}".encode(), 0)

    def empty(self) -> None:
        """Forget everything."""
        self._cluster.empty(self.url)

    def dump(self) -> str:
        """Return a backup."""
        return self._cluster.dump(self.url)

    def restore(self, dump: str) -> None:
        """Bring a backup back, in place of what is there."""
        self._cluster.execute("DROP SCHEMA kling CASCADE", self.url.rpartition("/")[2])
        self._cluster.restore(self.url, dump)

    @contextmanager
    def connections(self, loop: VirtualLoop) -> Iterator[InlineConnections]:
        """Connect for what workers ask in *loop*."""
        with closing(connect(self.engine)) as connection:
            yield InlineConnections(self, connection, loop)


class InlineConnections(Connections):
    """What `Connections` promises, of one connection that is asked at once: no virtual time passes."""

    def __init__(
        self, postgres: VirtualPostgres, connection: psycopg.Connection[Any], loop: VirtualLoop
    ) -> None:
        self.place = place_of(postgres.engine)
        self._tasks = set()
        self._postgres, self._connection, self._loop = postgres, connection, loop

    async def again(self, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self.once(work)

    async def once(self, work: Callable[[Any], Awaitable[T]]) -> T:
        self._postgres.set_time(self._loop.time())
        try:
            return await work(_Face(self._connection))
        except psycopg.Error as error:
            raise as_ours(error, self.place) from error


class _Face:
    """A connection as an asynchronous one."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    async def execute(self, *query: Any) -> _Rows:
        return _Rows(self._connection.execute(*query))

    def cursor(self, *, row_factory: Any) -> _Rows:
        return _Rows(self._connection.cursor(row_factory=row_factory))

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        with self._connection.transaction():
            yield


class _Rows:
    """A cursor as an asynchronous one."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    async def execute(self, *query: Any) -> _Rows:
        self._cursor.execute(*query)
        return self

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()

    async def fetchall(self) -> Any:
        return self._cursor.fetchall()
