"""A fleet on a fresh database of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from batch.key import Secret
from batch.output.fleet import JobState
from batch.output.postgres.fleet import PostgresFleet
from batch.output.postgres.pool import Connections
from batch.output.postgres.state import PostgresState


@dataclass(frozen=True)
class Opened:
    """What one worker has of a fleet."""

    url: str
    connections: Connections
    fleet: PostgresFleet

    @property
    def engine(self) -> Secret:
        return Secret(self.url)

    def state(self, library: str) -> PostgresState:
        """Return the state of a library, which is made known."""
        self.execute(
            "INSERT INTO libraries (library, root) VALUES (%s, '/') ON CONFLICT DO NOTHING", library
        )
        return PostgresState(self.connections, library)

    def age(self, worker: str, seconds: float) -> None:
        """Make the last beat of a worker older."""
        self.execute("UPDATE workers SET beat_at = beat_at - %s WHERE worker = %s", seconds, worker)

    def jobs_of(self, run_id: str) -> dict[JobState, int]:
        """Return how many jobs of a run are in which state."""
        query = "SELECT state, count(*) FROM jobs WHERE run_id = %s GROUP BY state"
        return {JobState(state): count for state, count in self.execute(query, run_id)}

    def execute(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement, and return its rows."""
        with psycopg.connect(
            self.url, autocommit=True, options="-c search_path=kling"
        ) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def opened_fleet(url: str, **options: Any) -> AsyncIterator[Opened]:
    """Open a fleet for one worker."""
    engine = Secret(url)
    async with Connections(engine, **options) as connections:
        yield Opened(url, connections, PostgresFleet(engine, connections))
