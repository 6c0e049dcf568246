"""The state: what was committed is there, whole, whatever comes; and what is wrong is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.output.changes import (
    Fact,
    GenerationTime,
    Proof,
    Put,
    Row,
    RunEnded,
    RunStarted,
    Withdraw,
)
from scripted import SAID, attempt, landed, opened

from batch.errors import StateError
from batch.job import (
    STATES,
    Failed,
    Failure,
    FailureKind,
    Generated,
    Intended,
    Lost,
    State,
    TimedOut,
    Unconfirmed,
)
from batch.output import sqlite as store_module
from batch.output.sqlite import GENERATION_TIMES_KEPT, Store

FAILURE = Failure(FailureKind.MODERATION, "policy — ünïcode", "1301", 400, "r-1")
EVERY_STATE: list[State] = [
    Intended(1.5),
    Lost(1.5, FAILURE, exists=True),
    opened(),
    TimedOut("8", 1.0, 2.0, "r"),
    Generated("8", 1.0, 2.0, "r", FAILURE),
    landed("8", "videos/a.mp4", 9),
    Failed(FAILURE, 2.0, "8", 1.0),
    Unconfirmed(1.0, SAID, exists=True),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened_store:
        yield opened_store


def test_every_state_is_tried_here() -> None:
    assert {type(state) for state in EVERY_STATE} == set(STATES)


@pytest.mark.parametrize("state", EVERY_STATE, ids=lambda state: type(state).__name__)
def test_an_attempt_comes_back_as_it_was(store: Store, state: State) -> None:
    store.write([Put(attempt(state).polled())])
    assert store.attempt("kb-1") == attempt(state).polled()


def test_changes_are_committed_together_or_not_at_all(store: Store) -> None:
    with pytest.raises(StateError):
        store.write([Put(attempt()), Row("{}"), RunStarted("r", 1.0), RunStarted("r", 1.0)])
    assert list(store.attempts()) == []
    assert list(store.result_lines()) == []


def test_a_commit_is_seen_by_who_opens_the_file_next(tmp_path: Path, store: Store) -> None:
    store.write([Put(attempt())])
    with Store.open_to_read(tmp_path / "state.db") as reader:
        assert reader.attempt("kb-1") == attempt()


def test_commits_are_flushed_to_the_disk(store: Store) -> None:
    """WAL and synchronous=FULL: a commit survives the machine, not only the process."""
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_what_is_withdrawn_was_never_there(store: Store) -> None:
    store.write([Put(attempt())])
    store.write([Withdraw("kb-1")])
    with pytest.raises(KeyError, match="kb-1"):
        store.attempt("kb-1")


def test_known_attempts_come_by_job_in_their_order(store: Store) -> None:
    for number in (2, 1, 3):
        made = attempt(name=f"kb-{number}")
        store.write([Put(made.__class__(**{**_fields(made), "number": number}))])
    assert [item.number for item in store.known()["a"]] == [1, 2, 3]


def test_facts_proofs_and_owners_are_remembered(store: Store) -> None:
    store.write(
        [Fact("origin", "sandbox"), Proof("https://x", "me", 7.0), Put(attempt(opened("8")))]
    )
    assert store.fact("origin") == "sandbox"
    assert store.proved_at("https://x", "me") == 7.0
    assert store.proved_at("https://y", "me") is None
    assert store.proved_at("https://x", "another") is None
    assert store.owner_of("8") == "kb-1"
    assert store.owner_of("9") is None


def test_generation_times_do_not_grow_for_ever(store: Store) -> None:
    store.write([GenerationTime("k", float(n)) for n in range(GENERATION_TIMES_KEPT + 50)])
    store.write([RunStarted("r", 1.0), RunEnded("r", 2.0, 0)])
    times = store.generation_times()["k"]
    assert len(times) == GENERATION_TIMES_KEPT
    assert times[-1] == GENERATION_TIMES_KEPT + 49
    assert store.last_run() == ("r", 1.0, 2.0, 0)


# -- what is told


def test_a_damaged_file_is_told_and_left_alone(tmp_path: Path) -> None:
    """Never start over silently: that would pay for everything again."""
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database, it only looks like a file" * 100)
    with pytest.raises(StateError, match="damaged"):
        Store.open(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_newer_release_is_told(tmp_path: Path) -> None:
    Store.open(tmp_path / "state.db").close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opens in (Store.open, Store.open_to_read):
        with pytest.raises(StateError, match="newer release"):
            opens(tmp_path / "state.db")


def test_a_state_that_is_not_there_is_told_to_readers(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        Store.open_to_read(tmp_path / "state.db")


def test_a_locked_state_is_told(tmp_path: Path, store: Store) -> None:
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout = 1")
    try:
        with pytest.raises(StateError, match="locked"):
            store.write([Put(attempt())])
    finally:
        other.close()


def test_a_reader_changes_nothing(tmp_path: Path, store: Store) -> None:
    with Store.open_to_read(tmp_path / "state.db") as reader, pytest.raises(StateError):
        reader.write([Put(attempt())])


def test_a_migration_that_breaks_leaves_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is one transaction, its number included."""
    path = tmp_path / "state.db"
    with Store.open(path) as old:
        old.write([Put(attempt())])
    steps = (*store_module.MIGRATIONS, "CREATE TABLE more (x); SELECT * FROM nowhere;")
    monkeypatch.setattr(store_module, "MIGRATIONS", steps)
    with pytest.raises(StateError):
        Store.open(path)
    monkeypatch.undo()
    with Store.open(path) as again:
        assert again.attempt("kb-1") == attempt()


def test_a_migration_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    with Store.open(path) as old:
        old.write([Put(attempt())])
    monkeypatch.setattr(
        store_module, "MIGRATIONS", (*store_module.MIGRATIONS, "CREATE TABLE more (x);")
    )
    with Store.open(path) as migrated:
        assert migrated.attempt("kb-1") == attempt()
        assert migrated._db.execute("SELECT count(*) FROM more").fetchone() == (0,)


# -- results.jsonl


def _fields(of: object) -> dict[str, object]:
    return {name: getattr(of, name) for name in of.__slots__}  # type: ignore[attr-defined]
