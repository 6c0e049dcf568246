"""The writer: a commit returns when it is on disk, and a crowd shares its flushes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from patience import PATIENCE_S
from scripted import attempt, opened

from batch.errors import RefusedError, StateError
from batch.output.results import ResultsFile
from batch.output.sqlite import Database
from batch.output.state import AddRow, Change, Put
from batch.output.writer import GROUPING_S, SqliteState


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "state.db") as opened_database:
        yield opened_database


def row(number: int) -> str:
    return json.dumps({"job_id": f"j{number}", "note": "ü" * number})


def test_commit_returns_when_on_disk(tmp_path: Path, database: Database) -> None:
    async def main(state: SqliteState) -> None:
        await state.commit(Put(attempt()), AddRow(row(1)))
        with Database.open_to_read(tmp_path / "state.db") as reader:
            assert reader.attempt("kb-1") == attempt()
        assert (tmp_path / "results.jsonl").read_text() == row(1) + "\n"

    with SqliteState(database, ResultsFile(tmp_path / "results.jsonl")) as state:
        asyncio.run(main(state))


def test_crowd_of_commits_shares_flushes(tmp_path: Path, database: Database) -> None:
    """Thousands of jobs do not wait for each other's disk."""
    writes: list[int] = []

    class Counting(Database):
        def write(self, changes: Iterable[Change]) -> None:
            writes.append(1)
            super().write(changes)

    async def main(state: SqliteState) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(500):
                group.create_task(
                    state.commit(Put(attempt(name=f"kb-{number}", job_id=f"j{number}")))
                )

    counting = Counting(database._db, database.path)
    with SqliteState(counting, ResultsFile(tmp_path / "results.jsonl")) as state:
        asyncio.run(main(state))
    assert len(list(database.attempts())) == 500
    assert len(writes) <= 10


def test_cancelled_commit_reaches_the_disk(tmp_path: Path, database: Database) -> None:
    async def main(state: SqliteState) -> None:
        task = asyncio.create_task(state.commit(Put(attempt())))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with SqliteState(database, ResultsFile(tmp_path / "results.jsonl")) as state:
        asyncio.run(main(state))
    assert database.attempt("kb-1") == attempt()


def test_cancelled_commit_settles_others_of_its_flush(tmp_path: Path, database: Database) -> None:
    async def main() -> None:
        state = SqliteState(database, ResultsFile(tmp_path / "results.jsonl"))
        first, second = (
            asyncio.create_task(state.commit(Put(attempt(name=name, job_id=name))))
            for name in ("kb-1", "kb-2")
        )
        await asyncio.sleep(0)
        first.cancel()
        with state:  # begins to write only now: both are in one flush
            await asyncio.wait_for(second, PATIENCE_S)

    asyncio.run(main())
    assert [one.external_task_id for one in database.attempts()] == ["kb-1", "kb-2"]


def test_refused_commit_spares_others_of_its_flush(tmp_path: Path, database: Database) -> None:
    """Else one bug would leave the task ids of other jobs unrecorded."""

    async def main() -> list[BaseException | None]:
        state = SqliteState(database, ResultsFile(tmp_path / "results.jsonl"))
        commits = [
            asyncio.create_task(state.commit(Put(one), AddRow(row(number))))
            for number, one in enumerate(attempts)
        ]
        await asyncio.sleep(0)
        with state:  # begins to write only now: all are in one flush
            return await asyncio.gather(*commits, return_exceptions=True)

    attempts = [
        attempt(opened(task_id), name=name, job_id=name)
        for name, task_id in (("kb-1", "8"), ("kb-2", "8"), ("kb-3", "9"))
    ]
    first, second, third = asyncio.run(main())
    assert (first, third) == (None, None)
    assert isinstance(second, RefusedError)
    assert [one.external_task_id for one in database.attempts()] == ["kb-1", "kb-3"]
    assert (tmp_path / "results.jsonl").read_text().splitlines() == [row(0), row(2)]


def test_only_commits_after_a_flush_wait(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One flush every 50 ms at the most; after a silence at once."""
    now, slept = [1000.0], []

    class Time:
        monotonic = staticmethod(lambda: now[0])
        sleep = staticmethod(slept.append)

    async def main(state: SqliteState) -> None:
        for number, gap_s in enumerate((0.0, 0.02, 0.01, 7.0)):
            now[0] += gap_s
            await state.commit(Put(attempt(name=f"kb-{number}", job_id=f"j{number}")))

    monkeypatch.setattr("batch.output.writer.time", Time)
    with SqliteState(database, ResultsFile(tmp_path / "results.jsonl")) as state:
        asyncio.run(main(state))
    assert slept == pytest.approx([GROUPING_S - 0.02, GROUPING_S - 0.01])


def test_failed_write_is_raised_to_its_commit(tmp_path: Path, database: Database) -> None:
    """No step goes on as if it were on disk."""
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    results = ResultsFile(tmp_path / "results.jsonl")
    with SqliteState(database, results, patience_s=0.001) as state:
        with pytest.raises(StateError, match="locked"):
            asyncio.run(state.commit(Put(attempt())))
        other.close()
        asyncio.run(state.commit(Put(attempt(name="kb-2"))))
        assert database._db.execute("PRAGMA busy_timeout").fetchone() == (1000,), "not long again"
    assert [found.external_task_id for found in database.attempts()] == ["kb-2"]


def test_unappended_row_is_reported_and_state_kept(tmp_path: Path, database: Database) -> None:
    """The outcome is true all the same; the next run adds the line."""
    path = tmp_path / "results.jsonl"
    path.mkdir()
    with (
        SqliteState(database, ResultsFile(path)) as state,
        pytest.raises(StateError, match="adds the missing lines"),
    ):
        asyncio.run(state.commit(Put(attempt()), AddRow(row(1))))
    assert database.attempt("kb-1") == attempt()
    path.rmdir()
    assert ResultsFile(path).repair(database) == 1
    assert path.read_text() == row(1) + "\n"


def test_write_waits_for_a_lock_as_long_as_told(tmp_path: Path, database: Database) -> None:
    """Another program holds the lock until the writer asks for it the second time."""
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    results = ResultsFile(tmp_path / "results.jsonl")
    with SqliteState(database, results, patience_s=90.0) as state:
        assert database._db.execute("PRAGMA busy_timeout").fetchone() == (90_000,)
        threading.Timer(0.2, other.close).start()
        asyncio.run(state.commit(Put(attempt())))
    assert database.attempt("kb-1") == attempt()


def test_long_wait_is_told_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def main() -> None:
        state = SqliteState(
            database, ResultsFile(tmp_path / "results.jsonl"), on_wait=lambda: told.append("waits")
        )
        commits = [
            asyncio.create_task(state.commit(Put(attempt(name=name, job_id=name))))
            for name in ("kb-1", "kb-2")
        ]
        while not told:
            await asyncio.sleep(0)
        with state:  # begins to write only now
            await asyncio.gather(*commits)
            await state.commit(Put(attempt(name="kb-3", job_id="kb-3")))

    monkeypatch.setattr("batch.output.writer.SLOW_S", 0.01)
    asyncio.run(main())
    assert told == ["waits"]


def test_writer_that_fails_elsewhere_lets_nobody_wait(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out between two writes, for example; the next commit may be written."""

    class Time:
        fails = True
        monotonic = staticmethod(lambda: 0.0)

        @classmethod
        def sleep(cls, _seconds: float) -> None:
            if cls.fails:
                raise MemoryError

    async def main(state: SqliteState) -> None:
        with pytest.raises(MemoryError):
            await asyncio.wait_for(state.commit(Put(attempt())), PATIENCE_S)
        Time.fails = False
        await asyncio.wait_for(state.commit(Put(attempt(name="kb-2"))), PATIENCE_S)

    monkeypatch.setattr("batch.output.writer.time", Time)
    with SqliteState(database, ResultsFile(tmp_path / "results.jsonl")) as state:
        asyncio.run(main(state))
    assert [one.external_task_id for one in database.attempts()] == ["kb-2"]
