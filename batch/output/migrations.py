"""The tables of the database, and how one of an older release comes up to date.

Entry n brings a database from version n to n + 1. Never edit a released one; append.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from batch.errors import StateError
from batch.job import upgraded_fingerprint

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE attempts (
        external_task_id TEXT PRIMARY KEY,
        job_id           TEXT NOT NULL,
        number           INTEGER NOT NULL,
        fingerprint      TEXT NOT NULL,
        request          TEXT NOT NULL,
        state            TEXT NOT NULL,
        detail           TEXT NOT NULL,
        task_id          TEXT,
        failure_kind     TEXT,
        file             TEXT,
        bytes            INTEGER,
        polls            INTEGER NOT NULL,
        cost_usd         REAL,
        base_url         TEXT NOT NULL,
        token_hash       TEXT
    ) WITHOUT ROWID;
    CREATE INDEX attempts_of_job ON attempts (job_id, number);
    CREATE TABLE results (
        seq INTEGER PRIMARY KEY, line TEXT NOT NULL, ends_at INTEGER NOT NULL
    );
    CREATE TABLE lookup_proofs (base_url TEXT PRIMARY KEY, proved_at REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE generation_times (
        seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, seconds REAL NOT NULL
    );
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, started_at REAL NOT NULL, finished_at REAL, exit_code INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE attempts ADD COLUMN account TEXT NOT NULL DEFAULT '';
    CREATE INDEX attempts_of_task ON attempts (task_id) WHERE task_id IS NOT NULL;
    DROP TABLE lookup_proofs;
    CREATE TABLE lookup_proofs (
        base_url TEXT NOT NULL, account TEXT NOT NULL, proved_at REAL NOT NULL,
        PRIMARY KEY (base_url, account)
    ) WITHOUT ROWID;
    """,
    # The two rules of the state: a task has one owner, a job one unfinished attempt for a fingerprint.
    # A task id that an older release recorded twice stays in the column of its first owner, and in
    # the detail of both.
    """
    UPDATE attempts SET task_id = NULL WHERE EXISTS (
        SELECT 1 FROM attempts AS other WHERE other.task_id = attempts.task_id
        AND other.external_task_id < attempts.external_task_id
    );
    DROP INDEX attempts_of_task;
    CREATE UNIQUE INDEX owner_of_task ON attempts (task_id) WHERE task_id IS NOT NULL;
    CREATE UNIQUE INDEX unfinished_of_job ON attempts (job_id, fingerprint)
        WHERE state NOT IN ('Landed', 'Failed');
    CREATE INDEX attempts_of_file ON attempts (file) WHERE file IS NOT NULL;
    """,
    # Fingerprints of version 2. Where two unfinished attempts of a job are one request by now, the
    # second keeps its old one: it is collected as a former version.
    # Runs are ordered by when they were recorded: a clock may jump.
    # What was discarded is finished, too.
    # A request is in a round of --force until it has more videos than it had when that began.
    """
    DROP INDEX unfinished_of_job;
    CREATE UNIQUE INDEX unfinished_of_job ON attempts (job_id, fingerprint)
        WHERE state NOT IN ('Landed', 'Discarded', 'Failed');
    UPDATE OR IGNORE attempts SET fingerprint = upgraded_fingerprint(fingerprint, request);
    ALTER TABLE runs RENAME TO runs_by_id;
    CREATE TABLE runs (
        seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, started_at REAL NOT NULL,
        finished_at REAL, exit_code INTEGER, summary TEXT
    );
    INSERT INTO runs (run_id, started_at, finished_at, exit_code)
        SELECT run_id, started_at, finished_at, exit_code FROM runs_by_id
        ORDER BY started_at, run_id;
    DROP TABLE runs_by_id;
    CREATE TABLE forced (
        fingerprint TEXT PRIMARY KEY, began_at REAL NOT NULL, videos INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    # What is in a bucket. The same library may have been uploaded to more than one.
    """
    CREATE TABLE uploads (
        target TEXT NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
        uploaded_at REAL NOT NULL, external_task_id TEXT, e_tag TEXT, version TEXT,
        PRIMARY KEY (target, file)
    ) WITHOUT ROWID;
    CREATE INDEX uploads_of_content ON uploads (target, sha256);
    """,
)

# What versions have left that were made while entry 3 was written: what tells it in the list of tables
# and indexes, and what mends it. A round of --force that was known by its jobs is forgotten.
UNFINISHED = (
    (
        "name = 'unfinished_of_job' AND sql NOT LIKE '%Discarded%'",
        """
        DROP INDEX unfinished_of_job;
        CREATE UNIQUE INDEX unfinished_of_job ON attempts (job_id, fingerprint)
            WHERE state NOT IN ('Landed', 'Discarded', 'Failed');
        """,
    ),
    (
        "name = 'forced' AND sql LIKE '%job_id%'",
        """
        DROP TABLE forced;
        CREATE TABLE forced (
            fingerprint TEXT PRIMARY KEY, began_at REAL NOT NULL, videos INTEGER NOT NULL
        ) WITHOUT ROWID;
        """,
    ),
)


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a database.

    Raises:
        StateError: a newer release made it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StateError(
            f"{path} was made by a newer release (state version {version}, this one knows"
            f" {len(MIGRATIONS)}); install the newer kling-batch"
        )
    return int(version)


def is_current(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether a database is up to date.

    Raises:
        StateError: a newer release made it.
    """
    is_latest = check_version(connection, path) == len(MIGRATIONS)
    return is_latest and not any(_mends(connection))


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a database up to date, one version after the other."""
    connection.create_function("upgraded_fingerprint", 2, upgraded_fingerprint, deterministic=True)
    for number in range(check_version(connection, path), len(MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{MIGRATIONS[number]}\nPRAGMA user_version = {number + 1};\nCOMMIT;"
        )
    for mend in _mends(connection):
        connection.executescript(f"BEGIN IMMEDIATE;\n{mend}\nCOMMIT;")


def _mends(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE {})"
    return [
        mend for sign, mend in UNFINISHED if connection.execute(query.format(sign)).fetchone()[0]
    ]
