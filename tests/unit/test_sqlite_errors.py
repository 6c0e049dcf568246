"""The state: what a person is told when it cannot be read or written, and what a plan reads of it."""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch.output.changes import Fact, GenerationTime, Proof, Put, Row, RunEnded, RunStarted
from scripted import SAID, attempt, generated, landed, opened

from batch.errors import StateError
from batch.job import Failed, FailureKind
from batch.output import sqlite as store_module
from batch.output.sqlite import BUSY_TIMEOUT_S, GENERATION_TIMES_KEPT, Known, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened_store:
        yield opened_store


# -- in words


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
        (sqlite3.OperationalError("attempt to write a readonly database"), "cannot be written"),
        (sqlite3.OperationalError("unable to open database file"), "cannot be written"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written"),
        (OSError(errno.EIO, "Input/output error"), "cannot be used: .*Input/output error"),
        (sqlite3.OperationalError("no such table: facts"), "cannot be used: no such table"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_trouble_of_the_disk_has_its_own_words(
    path: Path, error: Exception, told: str
) -> None:
    """They say which file and what to do; and what SQLite or the system said of it."""
    with pytest.raises(StateError, match=told) as raised, store_module._told(path):
        raise error
    assert str(path) in str(raised.value)
    assert str(error) in str(raised.value)
    assert raised.value.__cause__ is error


def test_other_peoples_errors_are_left_as_they_are(path: Path) -> None:
    with pytest.raises(KeyError), store_module._told(path):
        raise KeyError("a bug of ours")


def test_a_damaged_state_says_what_starting_anew_would_cost(path: Path) -> None:
    """The one sentence that keeps somebody from deleting it and paying for everything again."""
    path.write_bytes(b"this is no database, it only looks like a file" * 100)
    with pytest.raises(StateError) as raised:
        Store.open(path)
    assert str(raised.value).endswith(
        "Starting without it would pay again for everything it knows, so that is yours to decide:"
        f" move {path.parent} away to begin anew"
    )


DOES: dict[str, Callable[[Store], Any]] = {
    "is_new": lambda store: store.is_new,
    "known": Store.known,
    "attempt": lambda store: store.attempt("kb-1"),
    "attempts": lambda store: list(store.attempts()),
    "has_attempt": lambda store: store.has_attempt("kb-1"),
    "owner_of": lambda store: store.owner_of("8"),
    "landed_at": lambda store: store.landed_at("a", "videos/a.mp4"),
    "result_lines": lambda store: list(store.result_lines()),
    "result_bytes": Store.result_bytes,
    "proved_at": lambda store: store.proved_at("https://x", "me"),
    "generation_times": Store.generation_times,
    "last_run": Store.last_run,
    "fact": lambda store: store.fact("origin"),
    "write": lambda store: store.write([Fact("origin", "sandbox")]),
}


@pytest.mark.parametrize("does", DOES.values(), ids=DOES.keys())
def test_whatever_is_read_or_written_a_trouble_names_the_file(
    path: Path, store: Store, does: Callable[[Store], Any]
) -> None:
    with sqlite3.connect(path) as other:
        tables = other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            other.execute(f"DROP TABLE {table}")
    other.close()
    with pytest.raises(StateError, match=re.escape(f"{path} cannot be used: no such table")):
        does(store)


@pytest.mark.parametrize("opens", [Store.open, Store.open_to_read])
def test_a_state_of_a_newer_release_is_named(path: Path, opens: Callable[[Path], Store]) -> None:
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match=re.escape(f"{path} was made by a newer release")):
        opens(path)


@pytest.mark.parametrize(
    ("opens", "made"),
    [(Store.open, "a folder"), (Store.open_to_read, "a folder"), (Store.open_to_read, "nothing")],
)
def test_a_state_that_cannot_be_opened_is_named(
    path: Path, opens: Callable[[Path], Store], made: str
) -> None:
    if made == "a folder":
        path.mkdir()
    with pytest.raises(StateError, match=re.escape(f"{path} cannot be ")):
        opens(path)


@pytest.mark.parametrize("opens", [Store.open, Store.open_to_read])
def test_a_state_that_another_program_holds_is_waited_for(
    path: Path, opens: Callable[[Path], Store]
) -> None:
    """A backup or a `status` that reads must not end a night."""
    Store.open(path).close()
    with opens(path) as store:
        (milliseconds,) = store._db.execute("PRAGMA busy_timeout").fetchone()
    assert milliseconds == BUSY_TIMEOUT_S * 1000


@pytest.mark.parametrize("is_replaced", [False, True], ids=["moved away", "replaced"])
def test_nothing_is_written_where_the_state_no_longer_is(
    path: Path, store: Store, is_replaced: bool
) -> None:
    """What nobody will ever read again must not pass for being on disk."""
    store.write([Fact("origin", "sandbox")])
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    if is_replaced:
        path.touch()
    with pytest.raises(StateError, match=re.escape(f"{path} is no longer where it was")):
        store.write([Put(attempt())])
    elsewhere.replace(path)
    store.write([Put(attempt(name="kb-2"))])
    assert [one.external_task_id for one in store.attempts()] == ["kb-2"]


# -- reading beside others


def test_a_state_at_rest_is_read_without_a_trace(path: Path, tmp_path: Path) -> None:
    """Also from a folder that may only be read, such as a backup."""
    with Store.open(path) as store:
        store.write([Put(attempt())])
    with Store.open_to_read(path) as reader:
        assert reader.attempt("kb-1") == attempt()
        assert reader.path == path
        assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


@pytest.mark.parametrize("beside_writer", [True, False])
def test_a_reader_sees_what_a_run_commits_meanwhile(
    path: Path, store: Store, beside_writer: bool
) -> None:
    with Store.open_to_read(path, beside_writer=beside_writer) as reader:
        assert list(reader.attempts()) == []
        store.write([Put(attempt())])
        assert list(reader.attempts()) == [attempt()]


def test_a_writer_that_is_about_to_come_is_seen_by_who_expects_one(path: Path) -> None:
    """No log is there yet, which otherwise means that nobody writes."""
    Store.open(path).close()
    with Store.open_to_read(path, beside_writer=True) as reader, Store.open(path) as store:
        store.write([Put(attempt())])
        assert list(reader.attempts()) == [attempt()]


def test_a_state_that_has_no_table_yet_is_read_as_empty(path: Path, tmp_path: Path) -> None:
    """Whoever was about to make it died; a look at it neither fails nor makes it."""
    path.touch()
    with Store.open_to_read(path) as reader:
        assert reader.path == path
        assert reader.is_new
        assert reader.known() == {}
    assert path.read_bytes() == b""
    assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


# -- what a plan reads


def test_a_new_state_knows_nothing(store: Store) -> None:
    assert store.is_new
    assert store.known() == {}
    assert store.result_bytes() == 0
    assert store.last_run() is None
    assert store.fact("origin") is None
    assert store.proved_at("https://x", "me") is None
    assert store.generation_times() == {}


@pytest.mark.parametrize("change", [Put(attempt()), Fact("origin", "sandbox")])
def test_a_state_with_anything_in_it_is_not_new(store: Store, change: Any) -> None:
    store.write([change])
    assert not store.is_new


def test_a_plan_knows_of_an_attempt_what_it_decides_by(store: Store) -> None:
    failure = replace(SAID, kind=FailureKind.MODERATION)
    store.write(
        [
            Put(replace(attempt(landed("8", "videos/a.mp4", 9)), cost_usd=0.21)),
            Put(attempt(Failed(failure, 2.0, "9", 1.0), name="kb-2", job_id="b")),
        ]
    )
    mark = attempt().fingerprint
    assert store.known() == {
        "a": [Known("kb-1", "a", 1, mark, "Landed", "8", None, "videos/a.mp4", 9, 0.21, 3.0)],
        "b": [Known("kb-2", "b", 1, mark, "Failed", "9", "moderation", None, None, None, None)],
    }


def test_an_attempt_is_there_or_not(store: Store) -> None:
    store.write([Put(attempt())])
    assert store.has_attempt("kb-1")
    assert not store.has_attempt("kb-2")


def test_all_of_an_attempt_comes_back(store: Store) -> None:
    whole = replace(
        attempt(generated()), number=3, polls=7, cost_usd=0.5, token_hash="0f", account="me"
    )
    store.write([Put(whole)])
    assert store.attempt("kb-1") == whole


def test_attempts_come_by_job_and_number(store: Store) -> None:
    made = [
        replace(attempt(name=f"kb-{job}{number}", job_id=job), number=number)
        for job, number in (("b", 1), ("a", 2), ("a", 1))
    ]
    store.write([Put(one) for one in made])
    assert list(store.attempts()) == made[::-1]


def test_only_the_jobs_own_videos_are_in_its_place(store: Store) -> None:
    mine = attempt(landed("8", "videos/a.mp4", 9))
    elsewhere = attempt(landed("9", ".kling-batch/former/a.mp4", 9), name="kb-2")
    others = attempt(landed("7", "videos/a.mp4", 9), name="kb-3", job_id="b")
    store.write([Put(mine), Put(elsewhere), Put(others), Put(attempt(opened("6"), name="kb-4"))])
    assert store.landed_at("a", "videos/a.mp4") == [mine]


def test_the_results_are_as_long_as_their_lines(store: Store) -> None:
    """In bytes, each with its line end: that is how a torn file is noticed."""
    lines = ['{"note":"ü"}', "{}", '{"note":"fox 🦊"}']
    for line in lines:
        store.write([Row(line)])
    assert list(store.result_lines()) == lines
    assert store.result_bytes() == sum(len(line.encode()) + 1 for line in lines)


def test_a_proof_is_renewed_where_it_was_made(store: Store) -> None:
    store.write([Proof("https://x", "me", 7.0), Proof("https://x", "you", 8.0)])
    store.write([Proof("https://x", "me", 9.0)])
    assert store.proved_at("https://x", "me") == 9.0
    assert store.proved_at("https://x", "you") == 8.0


def test_the_latest_run_is_the_one_that_began_last(store: Store) -> None:
    store.write([RunStarted("r-2", 20.0), RunStarted("r-1", 10.0), RunEnded("r-1", 30.0, 1)])
    assert store.last_run() == ("r-2", 20.0, None, None)
    store.write([RunEnded("r-2", 40.0, 3)])
    assert store.last_run() == ("r-2", 20.0, 40.0, 3)


def test_a_kind_that_is_made_often_does_not_push_out_the_times_of_another(store: Store) -> None:
    store.write([GenerationTime("rare", 1.0)])
    store.write([GenerationTime("often", float(n)) for n in range(GENERATION_TIMES_KEPT + 1)])
    store.write([RunStarted("r", 1.0), RunEnded("r", 2.0, 0)])
    times = store.generation_times()
    assert times["rare"] == [1.0]
    assert times["often"] == [float(n) for n in range(1, GENERATION_TIMES_KEPT + 1)]
