"""A library in a database of the tests, to be changed by the event loop and read beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.key import Secret

if TYPE_CHECKING:
    from batch.output.postgres.database import PostgresDatabase
    from batch.output.postgres.pool import Connections
    from batch.output.postgres.state import PostgresState

LIBRARY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Library:
    """The library: its *state* for workers, and the *database* as commands see it."""

    connections: Connections
    state: PostgresState
    database: PostgresDatabase

    def rows(self) -> list[str]:
        """Return the rows of results.jsonl."""
        return list(self.database.result_lines())

    def query(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what the database answers."""
        return self.database.connection.execute(text.encode(), values).fetchall()

    def execute(self, text: str, *values: object) -> None:
        """Change the database directly."""
        self.database.connection.execute(text.encode(), values)


@asynccontextmanager
async def library_in(url: str, name: str = LIBRARY, **options: Any) -> AsyncIterator[Library]:
    """Open a new library in the database at *url*."""
    from batch.output.postgres.connection import connect, place_of
    from batch.output.postgres.database import PostgresDatabase
    from batch.output.postgres.pool import Connections
    from batch.output.postgres.state import PostgresState

    engine = Secret(url)
    connection = connect(engine)
    connection.execute("INSERT INTO libraries (library, root) VALUES (%s, %s)", (name, f"/{name}"))
    path, place = Path(name), place_of(engine)
    with PostgresDatabase(connection, name, path=path, place=place) as database:
        async with Connections(engine, **options) as connections:
            yield Library(connections, PostgresState(connections, name), database)
