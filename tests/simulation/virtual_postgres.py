"""A real Postgres whose clock is the simulation's, asked from within a loop in virtual time.

Every statement of the product is carried out as it is. Only the function that tells the time is another
one: it reads a file, which holds the virtual time of the latest transaction.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from cluster import Cluster
from kept import KeptConnections
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
        self.kept = KeptConnections()
        name = url.rpartition("/")[2]
        self._clock = os.open(
            Path(cluster.folder, "data", f"{name}.clock"), os.O_CREAT | os.O_WRONLY, 0o644
        )
        self.set_time(0.0)
        cluster.execute(VIRTUAL_CLOCK, name)
        init(self.engine)

    def close(self) -> None:
        """Leave the database; nobody tells it the time any more."""
        self._disconnect()
        os.close(self._clock)

    def _disconnect(self) -> None:
        self.kept.close()
        if "connection" in vars(self):
            self.connection.close()
            del self.connection

    def set_time(self, now: float) -> None:
        """Have the database believe that it is *now* on the virtual clock."""
        os.pwrite(self._clock, f"{EPOCH + now:020.6f}".encode(), 0)

    def empty(self) -> None:
        """Forget everything."""
        self._cluster.empty(self.url)
        self.connection.execute("VACUUM")  # the next years need not read past these rows

    def dump(self) -> str:
        """Return a backup."""
        return self._cluster.dump(self.url)

    def restore(self, dump: str) -> None:
        """Bring a backup back, in place of what is there."""
        self.connection.execute("DROP SCHEMA kling CASCADE")
        self._disconnect()
        self._cluster.restore(self.url, dump)

    @cached_property
    def connection(self) -> psycopg.Connection[Any]:
        """What workers ask over, and who looks on: to connect each time takes as long as to ask."""
        return connect(self.engine)


class InlineConnections(Connections):
    """What `Connections` promises, of one connection that is asked at once: no virtual time passes."""

    def __init__(self, postgres: VirtualPostgres, loop: VirtualLoop) -> None:
        self.place = place_of(postgres.engine)
        self._tasks = set()
        self._postgres, self._loop = postgres, loop

    async def again(self, work: Callable[[Any], Awaitable[T]]) -> T:
        return await self.once(work)

    async def once(self, work: Callable[[Any], Awaitable[T]]) -> T:
        self._postgres.set_time(self._loop.time())
        try:
            return await work(_Face(self._postgres.connection))
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
    async def pipeline(self) -> AsyncIterator[_Face]:
        yield self

    async def sync(self) -> None:
        """Do nothing: each statement is answered at once here."""

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
