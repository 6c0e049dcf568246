"""Connections that are kept for the next command of a simulated year.

To Postgres each command is a new session: to open one, and to plan its statements anew, takes ten times
as long as what the command asks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg.pq import TransactionStatus

AS_NEW = b"SELECT pg_advisory_unlock_all(); UNLISTEN *; RESET ALL"


class KeptConnections:
    """Those of one process."""

    def __init__(self) -> None:
        self._free: dict[str, list[psycopg.Connection[Any]]] = defaultdict(list)  # by address

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have whoever connects get one that another has closed."""
        connect = psycopg.connect
        with patch("psycopg.connect", lambda *args, **given: self._take(connect, *args, **given)):
            yield

    def close(self) -> None:
        """Close those that nobody uses."""
        for free in self._free.values():
            while free:
                free.pop().close()

    def _take(self, connect: Callable[..., Any], conninfo: str, *, autocommit: bool) -> Any:
        free = self._free[conninfo]
        found = free.pop() if free else connect(conninfo, autocommit=autocommit)
        return _Borrowed(found, partial(self._give_back, free))

    def _give_back(
        self, free: list[psycopg.Connection[Any]], connection: psycopg.Connection[Any]
    ) -> None:
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()  # as when its process has died
            return
        connection.execute(AS_NEW)
        free.append(connection)


class _Borrowed:
    """A connection that cannot be used once it is closed, also if another uses what it was."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        give_back: Callable[[psycopg.Connection[Any]], None],
    ) -> None:
        self._connection: psycopg.Connection[Any] | None = connection
        self._give_back = give_back

    def __getattr__(self, name: str) -> Any:
        if self._connection is None:
            raise psycopg.OperationalError("the connection is closed")
        return getattr(self._connection, name)

    def __enter__(self) -> _Borrowed:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        found, self._connection = self._connection, None
        if found is not None:
            self._give_back(found)
