"""Migrations: a database of an older release opens and keeps all; a newer one is refused."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from scripted import attempt

from batch.attempt import Failed, Intended, Landed, Lost, Open, PaidTask
from batch.errors import StateError
from batch.job import upgraded_fingerprint
from batch.output import migrations
from batch.output.migrations import MIGRATIONS
from batch.output.sqlite import Database
from batch.output.state import Put

SAID = {"kind": "provider", "message": "said so"}
PAID = {"task_id": "8", "submitted_at": 1.0}
# As an older release has written them: external id, job, number, state, detail, task, failure, file.
RECORDS = [
    ("kb-1", "a", 1, "Open", PAID, "8", None, None),
    ("kb-2", "b", 1, "Lost", {"since": 1.0, "failure": SAID}, None, "provider", None),
    ("kb-3", "c", 1, "Failed", {"failure": SAID, "failed_at": 2.0}, None, "provider", None),
    ("kb-4", "c", 2, "Intended", {"since": 3.0}, None, None, None),
    (
        "kb-5",
        "d",
        1,
        "Landed",
        {
            "task_id": "9",
            "submitted_at": 1.0,
            "generated_at": 2.0,
            "landed_at": 3.0,
            "file": "videos/d.mp4",
            "bytes": 9,
            "sha256": "00",
            "video": {"duration_s": 5.0, "width": 240, "height": 240},
        },
        "9",
        None,
        "videos/d.mp4",
    ),
]
TWICE = ("kb-6", "e", 1, "Open", PAID, "8", None, None)


# What databases out there were made with. If one of these digests is new to a test, append a migration
# instead: a database of the version that has another one already would never be brought up to date.
MADE_WITH = ("de6a9f04eb4e", "53711e3114c2", "19dabb9bd2b6", "dc8e2d7be3f2", "8d6d54fbe04f")


def test_what_has_made_databases_is_never_edited() -> None:
    digests = tuple(hashlib.sha256(text.encode()).hexdigest()[:12] for text in MIGRATIONS)
    assert digests == MADE_WITH


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def older(path: Path, version: int, records: list[tuple[object, ...]]) -> None:
    """Create the database of an older release."""
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("upgraded_fingerprint", 2, upgraded_fingerprint)
        for step in MIGRATIONS[:version]:
            connection.executescript(step)
        for external, job, number, state, detail, task_id, failure, file in records:
            connection.execute(
                "INSERT INTO attempts (external_task_id, job_id, number, fingerprint, request, state,"
                " detail, task_id, failure_kind, file, polls, base_url)"
                " VALUES (?, ?, ?, 'v1:f', '{}', ?, ?, ?, ?, ?, 2, 'https://x')",
                (external, job, number, state, json.dumps(detail), task_id, failure, file),
            )
        connection.execute("INSERT INTO results (line, ends_at) VALUES ('{}', 3)")
        connection.execute("INSERT INTO facts VALUES ('origin', 'sandbox')")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_older_database_keeps_every_attempt(path: Path, version: int) -> None:
    older(path, version, RECORDS)
    with Database.open(path) as database:
        attempts = list(database.attempts())
        assert [one.external_task_id for one in attempts] == [record[0] for record in RECORDS]
        assert [type(one.state) for one in attempts] == [Open, Lost, Failed, Intended, Landed]
        assert attempts[0].task == PaidTask("8", 1.0)
        assert {one.account.base_url for one in attempts} == {"https://x"}
        assert {one.polls for one in attempts} == {2}
        assert [one.external_task_id for one in database.holders_of("videos/d.mp4")] == ["kb-5"]
        assert list(database.result_lines()) == ["{}"]
        assert database.fact("origin") == "sandbox"


UNFINISHED = """
    DROP INDEX unfinished_of_job;
    CREATE UNIQUE INDEX unfinished_of_job ON attempts (job_id, fingerprint)
        WHERE state NOT IN ('Landed', 'Failed');
    DROP TABLE forced;
    CREATE TABLE forced (
        job_id TEXT PRIMARY KEY, began_at REAL NOT NULL, after_number INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO forced VALUES ('a', 1.0, 1);
"""
MADE = "SELECT name, sql FROM sqlite_master WHERE name IN ('unfinished_of_job', 'forced')"


@pytest.mark.parametrize("version", [4, len(MIGRATIONS)])
@pytest.mark.parametrize("opens", [Database.open, Database.open_to_read])
def test_tables_made_while_a_version_was_written_are_mended(
    path: Path, version: int, opens: Callable[[Path], Database]
) -> None:
    older(path, version, RECORDS)
    with closing(sqlite3.connect(path)) as connection:
        good = {name: "".join(sql.split()) for name, sql in connection.execute(MADE)}
        connection.executescript(UNFINISHED)
    with opens(path) as database:
        assert database.forced() == {}
        assert len(list(database.attempts())) == len(RECORDS)
        made = {name: "".join(sql.split()) for name, sql in database._db.execute(MADE)}
    assert made == good


@pytest.mark.parametrize("version", [1, 2])
def test_task_recorded_twice_stays_with_first(path: Path, version: int) -> None:
    """The second attempt keeps it in its detail, and is committed as before."""
    older(path, version, [TWICE, *RECORDS])
    with Database.open(path) as database:
        second = database.attempt("kb-6")
        assert second.task == PaidTask("8", 1.0)
        database.write([Put(second.polled()), Put(database.attempt("kb-1").polled())])
        assert database.attempt("kb-6") == second.polled()
        assert database.owner_of("8") == "kb-1"


@pytest.mark.parametrize("opens", [Database.open, Database.open_to_read])
def test_newer_database_is_refused(path: Path, opens: Callable[[Path], Database]) -> None:
    Database.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match=re.escape(f"{path} was made by a newer release")):
        opens(path)


def test_broken_migration_leaves_old_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is one transaction, its number included."""
    with Database.open(path) as old:
        old.write([Put(attempt())])
    steps = (*MIGRATIONS, "CREATE TABLE more (x); SELECT * FROM nowhere;")
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    with pytest.raises(StateError):
        Database.open(path)
    monkeypatch.undo()
    with Database.open(path) as again:
        assert again.attempt("kb-1") == attempt()


def test_next_migration_keeps_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database.open(path) as old:
        old.write([Put(attempt())])
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (x);"))
    with Database.open(path) as migrated:
        assert migrated.attempt("kb-1") == attempt()
        assert migrated._db.execute("SELECT count(*) FROM more").fetchone() == (0,)
