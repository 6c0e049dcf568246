"""Connections to the database of a fleet, and its tables brought up to date.

The URL holds a password: no error, log or summary shows it.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from batch.errors import StateError, UsageError
from batch.key import ENGINE_VARIABLE, Secret
from batch.output.postgres.errors import map_errors
from batch.output.postgres.schema import CODE, MIGRATIONS, SCHEMA, TIMELINE

DEFAULTS = {
    "connect_timeout": "10",
    # Not to a standby: while it takes the server's place, it answers, and takes nothing.
    "target_session_attrs": "read-write",
    # A connection whose other end is gone is noticed within some 20 s, not two hours.
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
ALWAYS = {"client_encoding": "UTF8"}  # whatever PGCLIENTENCODING says
# A process that sleeps within a transaction holds up all others, so Postgres ends that. The locks of
# a machine that is gone without a word are free within some 20 s, not two hours. What a stopped
# worker holds all the same is free after a beat of another (`batch.output.postgres.fleet`).
PATIENCE = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
SESSIONS = "kling-batch worker "
KEPT = 63 - len(SESSIONS)
SESSION = f"SET search_path TO {SCHEMA}; " + "; ".join(
    f"SET {name} TO '{value}'" for name, value in PATIENCE.items()
)


def conninfo(engine: Secret) -> str:
    """Return how psycopg is to connect.

    Raises:
        UsageError: the URL is not a valid one.
    """
    name = f"kling-batch {os.getpid()} on {platform.node()}"[:63]
    try:
        given = conninfo_to_dict(engine.reveal())
    except (psycopg.Error, ValueError):  # what it says may hold the password
        given = {}
    if not given:
        raise UsageError(
            f"{ENGINE_VARIABLE} is not a valid address of Postgres; for example"
            " postgresql://kling:PASSWORD@db.example/kling"
        )
    return make_conninfo("", **{**DEFAULTS, "application_name": name, **given, **ALWAYS})


def process_name(name: str) -> str:
    """Return the name of this process: no later one has it, whatever *name* an operator gives."""
    return f"{name or platform.node()}-{os.getpid()}-{secrets.token_hex(3)}"


def of_worker(engine: Secret, worker: str) -> Secret:
    """Return the address by which Postgres knows whose the sessions of a worker are."""
    return Secret(make_conninfo(conninfo(engine), application_name=session_name(worker)))


def session_name(worker: str) -> str:
    """Return what the sessions of a worker are called in Postgres, which keeps 63 ASCII characters.

    The end of its name tells processes apart.
    """
    return SESSIONS + re.sub("[^ -~]", "?", worker)[-KEPT:]


def parameters(engine: Secret) -> dict[str, str]:
    """Return what a connection is made of, by libpq's names."""
    return {name: str(value) for name, value in conninfo_to_dict(conninfo(engine)).items()}


def place_of(engine: Secret) -> str:
    """Return host and name of the database, to be shown."""
    given = conninfo_to_dict(conninfo(engine))
    host = given.get("host") or "the local host"
    return f"the database {given.get('dbname') or given.get('user') or ''} on {host}"


def connect(engine: Secret, *, is_checked: bool = True) -> psycopg.Connection:
    """Connect, outside of a transaction.

    Args:
        engine: the URL.
        is_checked: the tables must be there, and of this release.

    Raises:
        StateError: the database does not answer, or its tables are not those of this release.
        UsageError: the URL is not a valid one.
    """
    with map_errors(place_of(engine)):
        connection = psycopg.connect(conninfo(engine), autocommit=True)
        try:
            if is_checked:
                _check_version(_begin(connection), engine)
            else:
                connection.execute(SESSION)
        except BaseException:
            connection.close()
            raise
    return connection


def init(engine: Secret) -> int:
    """Create the tables or bring them up to date; return the version that was there before.

    Raises:
        StateError: a newer release made them, or the role may not.
    """
    with connect(engine, is_checked=False) as connection, map_errors(place_of(engine)):
        (encoding,) = _one(connection, "SHOW server_encoding")
        if encoding != "UTF8":
            raise StateError(
                f"{place_of(engine)} is in {encoding}; create one in UTF8: CREATE DATABASE … ENCODING"
                " 'UTF8' TEMPLATE template0"
            )
        with connection.transaction():
            # Of two that do this at once, the second waits and finds it done.
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('kling-batch', 0))")
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            before = _version(connection)
            if before > len(MIGRATIONS):
                raise _newer(engine, before)
            for migration in MIGRATIONS[before:]:
                connection.execute(migration.encode())
            if before < len(MIGRATIONS):
                connection.execute((CODE + TIMELINE).encode())
            connection.execute("UPDATE meta SET version = %s", (len(MIGRATIONS),))
    return before


def _begin(connection: psycopg.Connection) -> int:
    """Set up a session; return the version of the tables. That is one round trip."""
    try:
        cursor = connection.execute(f"{SESSION}; SELECT version FROM {SCHEMA}.meta")
    except psycopg.errors.UndefinedTable:
        return 0
    row = cursor.set_result(-1).fetchone()
    assert row is not None
    return int(row[0])


def _check_version(version: int, engine: Secret) -> None:
    if version > len(MIGRATIONS):
        raise _newer(engine, version)
    if version < len(MIGRATIONS):
        state = "has no tables of kling-batch" if version == 0 else "is of an older release"
        raise StateError(f"{place_of(engine)} {state}; run `kling-batch engine init`")


def _newer(engine: Secret, version: int) -> StateError:
    return StateError(
        f"{place_of(engine)} was made by a newer release (version {version}, this one knows"
        f" {len(MIGRATIONS)}); install the newer kling-batch"
    )


def _version(connection: psycopg.Connection) -> int:
    (table,) = _one(connection, f"SELECT to_regclass('{SCHEMA}.meta')")
    return 0 if table is None else int(_one(connection, "SELECT version FROM meta")[0])


def _one(connection: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row
