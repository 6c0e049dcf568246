"""Libraries in Postgres: found, held by one process at a time, made.

Who plans or settles holds an advisory lock of the session, which is free the moment that process dies.
A run that was handed over has an open row instead: its workers hold no lock, and need none. Only who
ends it holds one, which is another: a command that has handed a run over, and is stopped before it lets
go of the library, does not hold up its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from batch.errors import LockedError, StateLostError
from batch.key import Secret
from batch.output.layout import Layout
from batch.output.lock import Holder
from batch.output.marker import check_original, clear
from batch.output.postgres.connection import connect, place_of
from batch.output.postgres.database import PostgresDatabase
from batch.output.postgres.errors import map_errors
from batch.output.postgres.move import copy_out
from batch.output.sqlite import Database
from batch.output.state import FORGOT_AT
from batch.output.store import Store

PATIENCE_S = 0.05
PATIENCE_TRIES = 10

KEY = "hashtextextended('kling-batch ' || %(library)s, 0)"
LOCK = f"SELECT pg_try_advisory_lock({KEY})"
LOCK_END = "SELECT pg_try_advisory_lock(hashtextextended('kling-batch ends ' || %(library)s, 0))"
HOLDER = (
    "SELECT application_name, extract(epoch FROM backend_start)::float8"
    " FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND (classid::bigint << 32) | objid::bigint = {KEY}"
)
OPEN_RUN = "SELECT run_id, started_at FROM runs WHERE library = %(library)s AND is_open"
OPEN_RUN += " AND terms IS NOT NULL"  # it was handed over
MENDS = (
    # A run that died before it was handed over has ended.
    "UPDATE runs SET is_open = false WHERE library = %(library)s AND is_open",
    # The last step of an import may be missing.
    "UPDATE libraries SET lives_here = true WHERE library = %(library)s AND NOT lives_here",
    # After a failover or a restored backup, commits of before may be gone. A token that was given out
    # then is given out to nobody else: fewer than one a millisecond were.
    """SELECT setval('tokens', greatest(
        (SELECT last_value FROM tokens), (extract(epoch FROM clock_timestamp()) * 1000)::bigint
        )) FROM meta WHERE timeline <> timeline()""",
    """UPDATE meta SET timeline = timeline(), forgot_at = extract(epoch FROM clock_timestamp())
        WHERE timeline <> timeline()""",
    f"""INSERT INTO facts AS old SELECT %(library)s, '{FORGOT_AT}', forgot_at::text FROM meta
        WHERE forgot_at IS NOT NULL AND EXISTS (SELECT 1 FROM facts WHERE library = %(library)s)
        ON CONFLICT (library, name) DO UPDATE SET value = excluded.value
        WHERE old.value::float8 < excluded.value::float8""",
)


def new(engine: Secret, library: str, layout: Layout) -> str:
    """Record a new library, and return its id. Its folder is marked when its state is begun."""
    with closing(connect(engine)) as connection, map_errors(place_of(engine)):
        connection.execute(
            "INSERT INTO libraries (library, root) VALUES (%s, %s)", (library, _root(layout))
        )
    return library


@contextmanager
def read(engine: Secret, library: str, layout: Layout) -> Iterator[PostgresDatabase]:
    """Open a library that no command of this process changes."""
    with open_library(engine, library, layout) as database:
        with map_errors(database.place):
            database.connection.execute("SET default_transaction_read_only TO on")
        yield database


@contextmanager
def hold(engine: Secret, library: str, layout: Layout) -> Iterator[PostgresDatabase]:
    """Open a library that nobody else changes meanwhile.

    A run that died before it was handed over is ended here.

    Raises:
        LockedError: another process holds it, or its run has not ended.
        StateError: it cannot be used.
    """
    with open_library(engine, library, layout) as database:
        connection, asked = database.connection, {"library": library}
        with map_errors(database.place):
            lock(connection, library, layout)
            with connection.pipeline():  # one round trip, one transaction
                for mend in MENDS:
                    connection.execute(mend.encode(), asked)
        with suppress(OSError):  # nobody reads them, and the next run tries again
            clear(layout.library)
        yield database


@contextmanager
def open_library(engine: Secret, library: str, layout: Layout) -> Iterator[PostgresDatabase]:
    """Open a library.

    Raises:
        StateError: Postgres does not answer.
        StateLostError: it does not have the library.
        UsageError: the folder is a copy of the library's.
    """
    place = place_of(engine)
    with closing(connect(engine)) as connection:
        database = PostgresDatabase(connection, library, path=layout.library, place=place)
        with map_errors(place):
            query = "SELECT root FROM libraries WHERE library = %s"
            found = connection.execute(query, (library,)).fetchone()
        if found is None:
            raise StateLostError(
                f"{place} does not have the library of {layout.root}; is that the Postgres it was"
                " moved into? Nothing was sent"
            )
        check_original(layout.library, Layout(Path(found[0])).library)
        yield database


@contextmanager
def hold_to_end(engine: Secret, library: str, layout: Layout) -> Iterator[PostgresDatabase | None]:
    """Open a library whose run has settled, to end it; None if somebody else is ending it.

    Raises:
        StateError: it cannot be used.
    """
    with open_library(engine, library, layout) as database:
        with map_errors(database.place):
            taken = database.connection.execute(LOCK_END.encode(), {"library": library}).fetchone()
        yield database if taken is not None and taken[0] else None


def lock(connection: psycopg.Connection[Any], library: str, layout: Layout) -> None:
    """Hold a library for as long as the connection lasts.

    Raises:
        LockedError: another process holds it, or a run that was handed over has not ended.
    """
    asked = {"library": library}
    for attempt in range(PATIENCE_TRIES):  # who has just died is still being noticed
        taken = connection.execute(LOCK.encode(), asked).fetchone()
        if taken is not None and taken[0]:
            _check_runs(connection, library, layout)
            return
        time.sleep(PATIENCE_S * bool(attempt < PATIENCE_TRIES - 1))
    who = connection.execute(HOLDER.encode(), asked).fetchone()
    raise LockedError(f"another run holds {layout.root}: {_name(who) or 'it has just ended'}")


def _check_runs(connection: psycopg.Connection[Any], library: str, layout: Layout) -> None:
    run = connection.execute(OPEN_RUN.encode(), {"library": library}).fetchone()
    if run is not None:
        raise LockedError(
            f"the run {run[0]} of {layout.root} has not ended: the workers of the fleet are at it."
            f" `kling-batch status {layout.root}` shows how far it is, and Ctrl-C in `kling-batch run …"
            " --join` stops it"
        )


def holder(engine: Secret, library: str) -> Holder | None:
    """Return who changes a library."""
    with closing(connect(engine)) as connection, map_errors(place_of(engine)):
        asked = {"library": library}
        who = connection.execute(HOLDER.encode(), asked).fetchone()
        if who is not None:
            return _name(who)
        run = connection.execute(OPEN_RUN.encode(), asked).fetchone()
        return None if run is None else Holder(since=_iso(run[1]))


def copy_of(store: Store) -> Database:
    """Return a copy in memory, whose changes are not kept."""
    assert isinstance(store, PostgresDatabase)
    copy = Database.blank(store.path)
    copy_out(store, copy)
    return copy


def _name(who: tuple[Any, ...] | None) -> Holder | None:
    if who is None:
        return None
    words = str(who[0]).split(" ", 3)  # kling-batch PID on HOST
    if len(words) != 4 or not words[1].isdecimal():
        return Holder()
    return Holder(int(words[1]), words[3], _iso(who[1]))


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _root(layout: Layout) -> str:
    return str(layout.root.resolve())
