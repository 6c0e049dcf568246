"""The database: each failure is a sentence that names the file and what to do."""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import ACCOUNT, attempt

from batch.errors import RefusedError, StateError
from batch.output.sqlite import Database
from batch.output.sqlite_errors import map_errors
from batch.output.state import Fact, Put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (sqlite3.DatabaseError("file is not a database"), "is damaged .* Restore it from a backup"),
        (sqlite3.DatabaseError("database disk image is malformed"), "is damaged"),
        (sqlite3.DatabaseError("Corrupt page"), "is damaged"),
        (sqlite3.OperationalError("database is locked"), "is locked by another program"),
        (sqlite3.OperationalError("SQLITE_BUSY"), "is locked by another program"),
        (sqlite3.OperationalError("database or disk is full"), "no space left on the disk of"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk of"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left on the disk of"),
        (sqlite3.OperationalError("disk I/O error"), "is a quota used up"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "cannot be written"),
        (
            sqlite3.OperationalError("unable to open database file"),
            "cannot be written .* its permissions, make room .* or raise ulimit -n",
        ),
        (MemoryError(), "cannot be used: the system grants this process no more memory"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written"),
        (OSError(errno.EIO, "Input/output error"), "cannot be used: .*Input/output error"),
        (sqlite3.OperationalError("no such table: facts"), "cannot be used: no such table"),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), "refuses .* please report it"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_failure_has_its_own_sentence(path: Path, error: Exception, told: str) -> None:
    """It names the file and the remedy, and quotes SQLite or the system."""
    with pytest.raises(StateError, match=told) as raised, map_errors(path):
        raise error
    assert str(path) in str(raised.value)
    assert str(error) in str(raised.value)
    assert raised.value.__cause__ is error
    assert isinstance(raised.value, RefusedError) is isinstance(error, sqlite3.IntegrityError)


def test_other_errors_pass_unchanged(path: Path) -> None:
    with pytest.raises(KeyError), map_errors(path):
        raise KeyError("a bug of ours")


def test_damaged_database_is_reported_and_kept(path: Path) -> None:
    """The message says what starting anew would cost: everything would be paid for again."""
    path.write_bytes(b"this is no database, it only looks like a file" * 100)
    with pytest.raises(StateError, match="damaged") as raised:
        Database.open(path)
    assert str(raised.value).endswith(
        "Starting without it would pay again for everything it knows, so that is yours to decide:"
        f" move {path.parent} away to start from nothing"
    )
    assert path.read_bytes().startswith(b"this is no database")


DOES: dict[str, Callable[[Database], Any]] = {
    "is_new": lambda database: database.is_new,
    "known": Database.known,
    "jobs": lambda database: list(database.jobs()),
    "attempt": lambda database: database.attempt("kb-1"),
    "attempts": lambda database: list(database.attempts()),
    "owner_of": lambda database: database.owner_of("8"),
    "holders_of": lambda database: database.holders_of("videos/a.mp4"),
    "owners_of_content": lambda database: database.owners_of_content("00"),
    "result_lines": lambda database: list(database.result_lines()),
    "result_bytes": Database.result_bytes,
    "proved_at": lambda database: database.proved_at(ACCOUNT),
    "generation_times": Database.generation_times,
    "runs": Database.runs,
    "first_run": Database.first_run,
    "fact": lambda database: database.fact("origin"),
    "write": lambda database: database.write([Fact("origin", "sandbox")]),
}


@pytest.mark.parametrize("does", DOES.values(), ids=DOES.keys())
def test_every_read_and_write_names_the_file(
    path: Path, database: Database, does: Callable[[Database], Any]
) -> None:
    with sqlite3.connect(path) as other:
        tables = other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            other.execute(f"DROP TABLE {table}")
    other.close()
    with pytest.raises(StateError, match=re.escape(f"{path} cannot be used: no such table")):
        does(database)


@pytest.mark.parametrize(
    ("opens", "made"),
    [
        (Database.open, "a folder"),
        (Database.open_to_read, "a folder"),
        (Database.open_to_read, "nothing"),
    ],
)
def test_unopenable_database_is_named(
    path: Path, opens: Callable[[Path], Database], made: str
) -> None:
    if made == "a folder":
        path.mkdir()
    with pytest.raises(StateError, match=re.escape(f"{path} cannot be ")):
        opens(path)


def test_lasting_lock_is_reported(path: Path, database: Database) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database._db.execute("PRAGMA busy_timeout = 1")
    try:
        with pytest.raises(StateError, match="locked"):
            database.write([Put(attempt())])
    finally:
        other.close()
