"""A library in Postgres that is about to become the truth, or to be it no longer (`output.moving`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from batch.errors import RefusedError, StateError, StateLostError
from batch.key import Secret
from batch.output.layout import Layout
from batch.output.marker import check_original
from batch.output.postgres.connection import connect, place_of
from batch.output.postgres.database import PostgresDatabase
from batch.output.postgres.errors import map_errors
from batch.output.postgres.libraries import lock
from batch.output.postgres.move import clear, copy_in, copy_out
from batch.output.sqlite import Database


class Home:
    """One library, held. *is_truth*: Postgres has the truth; *root* is the folder that it was for."""

    def __init__(self, library: PostgresDatabase, *, root: str, is_truth: bool) -> None:
        self.root, self.is_truth = root, is_truth
        self._library = library
        self._db = library.connection

    @classmethod
    @contextmanager
    def open(
        cls, engine: Secret, library: str, layout: Layout, *, is_new: bool = False
    ) -> Iterator[Self]:
        """Hold a library; with *is_new*, make one that is not the truth if there is none.

        Raises:
            LockedError: a run holds it, or has not ended.
            StateLostError: there is none.
            UsageError: the folder is a copy of the library's.
        """
        place, root = place_of(engine), str(layout.root.resolve())
        with closing(connect(engine)) as connection:
            database = PostgresDatabase(connection, library, path=layout.library, place=place)
            with map_errors(place):
                lock(connection, library, layout)
                if is_new:
                    connection.execute(
                        "INSERT INTO libraries (library, root, lives_here) VALUES (%s, %s, false)"
                        " ON CONFLICT (library) DO NOTHING",
                        (library, root),
                    )
                query = "SELECT root, lives_here FROM libraries WHERE library = %s"
                found = connection.execute(query, (library,)).fetchone()
            if found is None:
                raise StateLostError(f"{place} does not have the library of {layout.root}")
            check_original(layout.library, Layout(Path(found[0])).library)
            yield cls(database, root=found[0], is_truth=found[1])

    def take(self, source: Database, root: str) -> None:
        """Take over what a state.db has.

        Raises:
            StateError: another library has one of its tasks.
        """
        try:
            with self._db.transaction():
                copy_in(source, self._library)
                self._execute("UPDATE libraries SET root = %s WHERE library = %s", root)
        except RefusedError as error:
            raise StateError(
                f"{self._library.place} has a task of {root} already, for another library; is that"
                f" folder a copy? ({error.__cause__})"
            ) from error

    def give(self, target: Database) -> None:
        """Fill an empty state.db with what Postgres has."""
        copy_out(self._library, target)

    def fence(self) -> None:
        """From now on refuse the commits of workers that still hold a claim."""
        self._execute("DELETE FROM claims WHERE library = %s")

    def settle(self) -> None:
        """Say that Postgres has the truth."""
        self._execute("UPDATE libraries SET lives_here = true WHERE library = %s")

    def retire(self) -> None:
        """Say that the state.db of the folder has the truth."""
        self._execute("UPDATE libraries SET lives_here = false WHERE library = %s")

    def delete(self) -> None:
        """Delete what Postgres has."""
        with map_errors(self._library.place), self._db.transaction():
            clear(self._library)
            self._execute("DELETE FROM libraries WHERE library = %s")

    def _execute(self, statement: str, *values: str) -> None:
        with map_errors(self._library.place):
            self._db.execute(statement.encode(), (*values, self._library.library))
