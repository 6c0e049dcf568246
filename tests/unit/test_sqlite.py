"""The database: flushed commits, readers beside a writer, and the questions of a plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import ACCOUNT, SAID, attempt, landed

from batch.attempt import Failed, PaidTask, Phase
from batch.errors import StateError
from batch.job import FailureKind
from batch.output.sqlite import BUSY_TIMEOUT_S, GENERATION_TIMES_KEPT, Database
from batch.output.state import AddRow, BeginRun, EndRun, Fact, GenerationTime, Put
from batch.output.store import last_run
from batch.plan import Known


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path) as opened:
        yield opened


def test_commits_are_flushed_to_the_disk(database: Database) -> None:
    """WAL and synchronous=FULL: a commit survives the machine, not only the process."""
    assert database._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database._db.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("is_replaced", [False, True], ids=["moved away", "replaced"])
def test_moved_database_is_not_written_to(
    path: Path, database: Database, is_replaced: bool
) -> None:
    """A commit to a file that no later run reads must not pass for being on disk."""
    database.write([Fact("origin", "sandbox")])
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    if is_replaced:
        path.touch()
    with pytest.raises(StateError, match=re.escape(f"{path} is no longer where it was")):
        database.write([Put(attempt())])
    elsewhere.replace(path)
    database.write([Put(attempt(name="kb-2"))])
    assert [one.external_task_id for one in database.attempts()] == ["kb-2"]


# -- reading beside others


@pytest.mark.parametrize("opens", [Database.open, Database.open_to_read])
def test_locked_database_is_waited_for(path: Path, opens: Callable[[Path], Database]) -> None:
    """A backup or a `status` that reads must not end a night."""
    Database.open(path).close()
    with opens(path) as database:
        (milliseconds,) = database._db.execute("PRAGMA busy_timeout").fetchone()
    assert milliseconds == BUSY_TIMEOUT_S * 1000


def test_reader_changes_nothing(path: Path, database: Database) -> None:
    with Database.open_to_read(path) as reader, pytest.raises(StateError):
        reader.write([Put(attempt())])


def test_database_at_rest_is_read_without_trace(path: Path, tmp_path: Path) -> None:
    """Also from a folder that may only be read, such as a backup."""
    with Database.open(path) as database:
        database.write([Put(attempt())])
    with Database.open_to_read(path) as reader:
        assert reader.attempt("kb-1") == attempt()
        assert reader.path == path
        assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


@pytest.mark.parametrize("beside_writer", [True, False])
def test_reader_sees_commits_made_meanwhile(
    path: Path, database: Database, beside_writer: bool
) -> None:
    with Database.open_to_read(path, beside_writer=beside_writer) as reader:
        assert list(reader.attempts()) == []
        database.write([Put(attempt())])
        assert list(reader.attempts()) == [attempt()]


def test_expected_writer_is_seen(path: Path) -> None:
    """No log is there yet, which otherwise means that no run writes."""
    Database.open(path).close()
    with Database.open_to_read(path, beside_writer=True) as reader, Database.open(path) as database:
        database.write([Put(attempt())])
        assert list(reader.attempts()) == [attempt()]


def test_empty_file_is_read_as_empty(path: Path, tmp_path: Path) -> None:
    """The run that was creating it died; a reader neither fails nor creates it."""
    path.touch()
    with Database.open_to_read(path) as reader:
        assert reader.path == path
        assert reader.is_new
        assert reader.known() == {}
    assert path.read_bytes() == b""
    assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


# -- questions


def test_new_database_knows_nothing(database: Database) -> None:
    assert database.is_new
    assert database.known() == {}
    assert database.result_bytes() == 0
    assert last_run(database) is None
    assert database.fact("origin") is None
    assert database.proved_at(ACCOUNT) is None
    assert database.generation_times() == {}


@pytest.mark.parametrize("change", [Put(attempt()), Fact("origin", "sandbox")])
def test_database_with_any_commit_is_not_new(database: Database, change: Any) -> None:
    database.write([change])
    assert not database.is_new


def test_fact_is_replaced(database: Database) -> None:
    database.write([Fact("origin", "sandbox")])
    database.write([Fact("origin", "provider")])
    assert database.fact("origin") == "provider"


def test_known_holds_what_a_plan_needs(database: Database) -> None:
    failure = replace(SAID, kind=FailureKind.MODERATION, is_unexplained=True)
    failed = Failed(failure, 2.0, PaidTask("9", 1.0))
    database.write(
        [
            Put(replace(attempt(landed("8", "videos/a.mp4", 9)), cost_usd=0.21)),
            Put(attempt(failed, name="kb-2", job_id="b")),
        ]
    )
    mark, moderation = attempt().fingerprint, (FailureKind.MODERATION, None, None, None, None)
    assert database.known() == {
        "a": [
            Known(
                *("kb-1", "a", 1, mark, Phase.LANDED, "8", None, "videos/a.mp4", 9, 0.21, 3.0),
                sent_at=1.0,
            )
        ],
        "b": [
            Known(
                *("kb-2", "b", 1, mark, Phase.FAILED, "9", *moderation, SAID.message, True, 2.0),
                sent_at=1.0,
            )
        ],
    }


def test_attempts_come_by_job_and_number(database: Database) -> None:
    made = [
        replace(
            attempt(name=f"kb-{job}{number}", job_id=job), number=number, fingerprint=f"{number}"
        )
        for job, number in (("b", 1), ("a", 2), ("a", 1))
    ]
    database.write([Put(one) for one in made])
    assert list(database.attempts()) == made[::-1]


def test_result_bytes_count_lines_with_ends(database: Database) -> None:
    """In bytes, each with its line end: that is how a torn file is noticed."""
    lines = ['{"note":"ü"}', "{}", '{"note":"fox 🦊"}']
    for line in lines:
        database.write([AddRow(line)])
    assert list(database.result_lines()) == lines
    assert database.result_bytes() == sum(len(line.encode()) + 1 for line in lines)


def test_last_run_is_the_one_recorded_last(database: Database) -> None:
    """Whatever the clock said: it was a year ahead for one night."""
    database.write([BeginRun("r-1", 20.0), BeginRun("r-2", 10.0), EndRun("r-1", 30.0, 1)])
    assert last_run(database) == ("r-2", 10.0, None, None, None)
    database.write([EndRun("r-2", 40.0, 3)])
    assert last_run(database) == ("r-2", 10.0, 40.0, 3, "{}")


def test_generation_times_are_bounded_per_kind(database: Database) -> None:
    """A frequent kind does not push out the times of a rare one."""
    database.write([GenerationTime("rare", 1.0)])
    database.write([GenerationTime("often", float(n)) for n in range(GENERATION_TIMES_KEPT + 50)])
    database.write([BeginRun("r", 1.0), EndRun("r", 2.0, 0)])
    times = database.generation_times()
    assert times["rare"] == [1.0]
    assert times["often"] == [float(n) for n in range(50, GENERATION_TIMES_KEPT + 50)]
