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
from typing import Self

from batch.attempt import Account, Attempt, Phase
from batch.errors import StateError
from batch.output.codec import COLUMNS, PUT, from_record, to_record
from batch.output.migrations import MIGRATIONS, check_version, migrate
from batch.output.sqlite_errors import map_errors
from batch.output.state import (
    AddRow,
    BeginRun,
    Change,
    EndRun,
    Fact,
    Force,
    GenerationTime,
    Payment,
    Proof,
    Put,
    Withdraw,
)
from batch.plan import Known

_PHASES = {phase.value: phase for phase in Phase}
_END_OF_RESULTS = "SELECT ends_at FROM results ORDER BY seq DESC LIMIT 1"
GENERATION_TIMES_KEPT = 400  # per kind of task; more would teach nothing new
BUSY_TIMEOUT_S = 10.0
RunRecord = tuple[str, float, float | None, int | None, str | None]


class Database:
    """The database itself; synchronous. Use one per thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path
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
            is_current = False
            try:
                is_current = check_version(connection, path) == len(MIGRATIONS)
                return cls(connection if is_current else _copy(connection, path), path)
            finally:
                if not is_current:
                    connection.close()

    def wait_for_locks(self, seconds: float) -> None:
        """From now on wait so long for a lock that another program holds."""
        self._db.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def in_memory(self) -> Self:
        """Return a copy in memory, up to date, whose changes are not kept."""
        with map_errors(self.path):
            return type(self)(_copy(self._db, self.path), self.path)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # -- reading

    def known(self) -> dict[str, list[Known]]:
        """Return all attempts in short, by job, each job's in the order of their numbers."""
        known: dict[str, list[Known]] = {}
        query = (
            "SELECT external_task_id, job_id, number, fingerprint, state, task_id,"
            " CASE state WHEN 'Generated' THEN json_extract(detail, '$.trouble.kind')"
            " ELSE failure_kind END,"
            " file, bytes, cost_usd, json_extract(detail, '$.landed_at'),"
            " CASE WHEN failure_kind IS NOT NULL THEN coalesce("
            "json_extract(detail, '$.failure.message'), json_extract(detail, '$.trouble.message')) END,"
            " failure_kind IS NOT NULL AND coalesce(json_extract(detail, '$.failure.is_unexplained'), 0),"
            " CASE state WHEN 'Failed' THEN json_extract(detail, '$.failed_at') END,"
            " CASE state WHEN 'Discarded' THEN json_extract(detail, '$.generated_at') END,"
            " json_extract(detail, '$.pin.fingerprint'), json_extract(detail, '$.pin.version_at')"
            " FROM attempts ORDER BY job_id, number"
        )
        with map_errors(self.path):
            for record in self._db.execute(query):
                item = Known._make((*record[:4], _PHASES[record[4]], *record[5:]))
                known.setdefault(item.job_id, []).append(item)
        return known

    def attempt(self, external_task_id: str) -> Attempt:
        """Return one attempt.

        Raises:
            KeyError: there is none of that id.
        """
        for attempt in self._attempts("external_task_id = ?", external_task_id):
            return attempt
        raise KeyError(external_task_id)

    def attempts(self) -> Iterator[Attempt]:
        """Iterate over all attempts, by job and number."""
        return self._attempts("1")

    def owner_of(self, task_id: str) -> str | None:
        """Return the external id of the attempt that a task is recorded for."""
        with map_errors(self.path):
            query = "SELECT external_task_id FROM attempts WHERE task_id = ? LIMIT 1"
            row = self._db.execute(query, (task_id,)).fetchone()
        return None if row is None else str(row[0])

    def holders_of(self, file: str) -> list[Attempt]:
        """Return the attempts whose video is recorded to be in *file*, by job and number."""
        return list(self._attempts("file = ?", file))

    def result_lines(self, after: int = 0) -> Iterator[str]:
        """Iterate over the rows behind the first *after*, oldest first."""
        query = "SELECT line FROM results WHERE seq > ? ORDER BY seq"
        with map_errors(self.path):
            for (line,) in self._db.execute(query, (after,)):
                yield line

    def result_bytes(self) -> int:
        """Return the size that results.jsonl should have."""
        with map_errors(self.path):
            row = self._db.execute(_END_OF_RESULTS).fetchone()
        return 0 if row is None else int(row[0])

    def proved_at(self, account: Account) -> float | None:
        """Return when look-up by external id last worked for *account*."""
        with map_errors(self.path):
            query = "SELECT proved_at FROM lookup_proofs WHERE base_url = ? AND account = ?"
            row = self._db.execute(query, (account.base_url, account.key_hash)).fetchone()
        return None if row is None else float(row[0])

    def newest_task_of(self, account: Account) -> Attempt | None:
        """Return the attempt of the latest task that is known to be *account*'s, if there is one."""
        where = "task_id IS NOT NULL AND base_url = ? AND account = ?"
        latest = "json_extract(detail, '$.submitted_at') DESC LIMIT 1"
        found = self._attempts(where, account.base_url, account.key_hash, order=latest)
        return next(found, None)

    def has_task_at(self, base_url: str) -> bool:
        """Return whether a task was ever seen at *base_url*, with any key."""
        query = "SELECT 1 FROM attempts WHERE task_id IS NOT NULL AND base_url = ? LIMIT 1"
        with map_errors(self.path):
            return self._db.execute(query, (base_url,)).fetchone() is not None

    def generation_times(self) -> dict[str, list[float]]:
        """Return the seconds that past tasks took, by kind, oldest first."""
        times: dict[str, list[float]] = {}
        with map_errors(self.path):
            query = "SELECT kind, seconds FROM generation_times ORDER BY seq"
            for kind, seconds in self._db.execute(query):
                times.setdefault(kind, []).append(seconds)
        return times

    def payments(self, since: float) -> list[Payment]:
        """Return the attempts that are, or may be, paid for and were sent *since* a moment."""
        query = (
            "SELECT external_task_id, state, task_id, cost_usd,"
            " coalesce(json_extract(detail, '$.submitted_at'), CASE WHEN state <> 'Intended' THEN"
            " json_extract(detail, '$.sent_at') END, json_extract(detail, '$.since')) AS at"
            " FROM attempts WHERE at >= ?"
        )
        with map_errors(self.path):
            found = self._db.execute(query, (since,))
            return [Payment(name, _PHASES[state], *rest) for name, state, *rest in found]

    def last_run(self) -> tuple[str, float, float | None, int | None] | None:
        """Return id, start, end and exit code of the latest run."""
        return next((run[:4] for run in self.runs(last=1)), None)

    def forced(self) -> dict[str, int]:
        """Return the requests in rounds of `--force`, with the number of their videos before it."""
        with map_errors(self.path):
            return dict(self._db.execute("SELECT fingerprint, videos FROM forced"))

    def first_run(self) -> str | None:
        """Return the id of the earliest run; ids begin with the time."""
        with map_errors(self.path):
            (run_id,) = self._db.execute("SELECT min(run_id) FROM runs").fetchone()
        return None if run_id is None else str(run_id)

    def runs(self, last: int = -1) -> list[RunRecord]:
        """Return id, start, end, exit code and summary of the *last* runs (-1: all), newest first."""
        query = "SELECT run_id, started_at, finished_at, exit_code, summary FROM runs"
        with map_errors(self.path):
            return self._db.execute(f"{query} ORDER BY seq DESC LIMIT ?", (last,)).fetchall()

    def fact(self, name: str) -> str | None:
        """Return the value of a named fact."""
        with map_errors(self.path):
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _attempts(
        self, where: str, *values: object, order: str = "job_id, number"
    ) -> Iterator[Attempt]:
        query = f"SELECT {COLUMNS} FROM attempts WHERE {where} ORDER BY {order}"  # noqa: S608
        with map_errors(self.path):
            for record in self._db.execute(query, values):
                yield from_record(record)

    # -- writing

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
                row = execute(_END_OF_RESULTS).fetchone()
                ends_at = (0 if row is None else row[0]) + len(line.encode()) + 1
                execute("INSERT INTO results (line, ends_at) VALUES (?, ?)", (line, ends_at))
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
