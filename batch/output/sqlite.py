"""The state as one SQLite file.

A `write` returns when its changes are on disk and flushed (WAL, synchronous=FULL). After a death a
transaction is there whole or not at all; rows are part of it, and `results.jsonl` is repaired from
them when the folder is opened the next time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from batch.errors import StateError
from batch.output.codec import COLUMNS, PUT, to_record
from batch.output.migrations import is_current, migrate
from batch.output.questions import END_OF_RESULTS, UPLOAD_COLUMNS, Questions
from batch.output.sqlite_errors import map_errors
from batch.output.state import (
    AddRow,
    BeginRun,
    Change,
    EndRun,
    Fact,
    Force,
    GenerationTime,
    NotUploaded,
    Proof,
    Put,
    Uploaded,
    Withdraw,
)

GENERATION_TIMES_KEPT = 400  # per kind of task; more would teach nothing new
BUSY_TIMEOUT_S = 10.0
UPLOADED = (
    f"INSERT OR REPLACE INTO uploads ({', '.join(UPLOAD_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
)

# What is brought to another database, and back. The rows of `seq` are in its order.
TABLES = {
    "attempts": COLUMNS,
    "results": "seq, line, ends_at",
    "runs": "run_id, started_at, finished_at, exit_code, summary",
    "generation_times": "kind, seconds",
    "lookup_proofs": "base_url, account, proved_at",
    "facts": "name, value",
    "forced": "fingerprint, began_at, videos",
    "uploads": ", ".join(UPLOAD_COLUMNS),
}
IN_ORDER = frozenset({"results", "runs", "generation_times"})


class Database(Questions):
    """The database itself; synchronous. Use one per thread."""

    library: str | None = None  # its name is one of its facts

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection, path)
        self._identity: tuple[int, int] | None = None  # of the file that is written to

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the state at *path*; create or migrate it where necessary.

        Raises:
            StateError: it cannot be opened, is damaged, or was made by a newer release.
        """
        with map_errors(path):
            if not path.exists():
                path.touch(0o666)  # SQLite would say 0644; its log and index take this file's mode
            connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                migrate(connection, path)
                store = cls(connection, path)
                store._identity = _identity(path)
            except BaseException:
                connection.close()
                raise
        return store

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever committed."""
        with map_errors(self.path):
            (has_any,) = self._db.execute(
                "SELECT EXISTS (SELECT 1 FROM facts) OR EXISTS (SELECT 1 FROM attempts)"
            ).fetchone()
        return not has_any

    @classmethod
    def open_to_read(cls, path: Path, *, beside_writer: bool = False) -> Self:
        """Open an existing state read-only, also while a run writes to it.

        Args:
            path: the database.
            beside_writer: a writer has it open or is about to, so it must not be taken for at rest.

        Raises:
            StateError: there is none, it is damaged, or it was made by a newer release.
        """
        with map_errors(path):
            # Without a log beside it no run writes, and an immutable read leaves no trace.
            has_log = path.with_name(f"{path.name}-wal").exists()
            is_at_rest = not beside_writer and not has_log
            mode = "mode=ro&immutable=1" if is_at_rest else "mode=ro"
            uri = f"{path.absolute().as_uri()}?{mode}"
            connection = sqlite3.connect(
                uri, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True
            )
            is_kept = False
            try:
                is_kept = is_current(connection, path)
                return cls(connection if is_kept else _copy(connection, path), path)
            finally:
                if not is_kept:
                    connection.close()

    def wait_for_locks(self, seconds: float) -> None:
        """From now on wait so long for a lock that another program holds."""
        self._db.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def in_memory(self) -> Self:
        """Return a copy in memory, up to date, whose changes are not kept."""
        with map_errors(self.path):
            return type(self)(_copy(self._db, self.path), self.path)

    @classmethod
    def blank(cls, path: Path) -> Self:
        """Return an empty database in memory, which stands for the state at *path*."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(connection, path)
        return cls(connection, path)

    def dump(self, table: str) -> Iterator[tuple[Any, ...]]:
        """Iterate over the rows of one of `TABLES`."""
        order = " ORDER BY seq" if table in IN_ORDER else ""
        with map_errors(self.path):
            yield from self._db.execute(f"SELECT {TABLES[table]} FROM {table}{order}")  # noqa: S608

    def load(self, tables: Iterable[tuple[str, Iterable[tuple[Any, ...]]]]) -> None:
        """Fill an empty database with the rows of `TABLES`, in one transaction."""
        with map_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for table, rows in tables:
                    marks = ", ".join("?" * len(TABLES[table].split(", ")))
                    insert = f"INSERT INTO {table} ({TABLES[table]}) VALUES ({marks})"  # noqa: S608
                    self._db.executemany(insert, rows)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def write(self, changes: Iterable[Change]) -> None:
        """Commit all *changes* as one transaction, flushed.

        Raises:
            RefusedError: they break a rule of the state.
            StateError: they cannot be written. In both cases none of them is committed.
        """
        if self._identity is not None and _identity(self.path) != self._identity:
            raise StateError(
                f"{self.path} is no longer where it was when this run began: the folder was moved,"
                " replaced or deleted meanwhile. Nothing more is written; put it back and run again"
            )
        with map_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    self._apply(change)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def checkpoint(self) -> None:
        """Bring what is committed from the log into the file itself."""
        with map_errors(self.path):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _apply(self, change: Change) -> None:
        execute = self._db.execute
        match change:
            case Put(attempt):
                execute(PUT, to_record(attempt))
            case Withdraw(external_task_id):
                execute("DELETE FROM attempts WHERE external_task_id = ?", (external_task_id,))
            case AddRow(line):
                row = execute(END_OF_RESULTS).fetchone()
                ends_at = (0 if row is None else row[0]) + len(line.encode()) + 1
                execute("INSERT INTO results (line, ends_at) VALUES (?, ?)", (line, ends_at))
            case Uploaded():
                execute(UPLOADED, [getattr(change, name) for name in UPLOAD_COLUMNS])
            case NotUploaded(target, file):
                execute("DELETE FROM uploads WHERE target = ? AND file = ?", (target, file))
            case _:
                self._record(change)

    def _record(self, change: Proof | GenerationTime | BeginRun | EndRun | Force | Fact) -> None:
        """Record what is about the folder and its runs."""
        execute = self._db.execute
        match change:
            case Proof(account, at):
                record = (account.base_url, account.key_hash, at)
                execute("INSERT OR REPLACE INTO lookup_proofs VALUES (?, ?, ?)", record)
            case GenerationTime(kind, seconds):
                execute(
                    "INSERT INTO generation_times (kind, seconds) VALUES (?, ?)", (kind, seconds)
                )
            case BeginRun(run_id, at):
                execute("INSERT INTO runs (run_id, started_at) VALUES (?, ?)", (run_id, at))
            case EndRun(run_id, at, exit_code, summary):
                execute(
                    "UPDATE runs SET finished_at = ?, exit_code = ?, summary = ? WHERE run_id = ?",
                    (at, exit_code, summary, run_id),
                )
                execute(
                    "DELETE FROM generation_times WHERE seq IN (SELECT seq FROM (SELECT seq,"
                    " row_number() OVER (PARTITION BY kind ORDER BY seq DESC) AS age"
                    " FROM generation_times) WHERE age > ?)",
                    (GENERATION_TIMES_KEPT,),
                )
            case Force(fingerprint, began_at, videos):
                mark = (fingerprint, began_at, videos)
                execute("INSERT OR REPLACE INTO forced VALUES (?, ?, ?)", mark)
            case Fact(name, value):
                execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - once per commit
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _copy(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Return a database brought up to date in memory; the file stays as it is."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.backup(copy)
        migrate(copy, path)
    except BaseException:
        copy.close()
        raise
    return copy
