"""The journal: a commit returns when it is on disk, and a crowd shares its flushes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from batch.output.changes import Change, Put, Row
from batch.output.results_file import ResultsFile
from scripted import attempt

from batch.errors import StateError
from batch.output.sqlite import Store
from batch.output.writer import GROUPING_S, Journal


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened_store:
        yield opened_store


def row(number: int) -> str:
    return json.dumps({"job_id": f"j{number}", "note": "ü" * number})


def test_a_commit_returns_when_it_is_on_disk(tmp_path: Path, store: Store) -> None:
    async def main(journal: Journal) -> None:
        await journal.commit(Put(attempt()), Row(row(1)))
        with Store.open_to_read(tmp_path / "state.db") as reader:
            assert reader.attempt("kb-1") == attempt()
        assert (tmp_path / "results.jsonl").read_text() == row(1) + "\n"

    with Journal(store, ResultsFile(tmp_path / "results.jsonl")) as journal:
        asyncio.run(main(journal))


def test_a_crowd_shares_its_flushes(tmp_path: Path, store: Store) -> None:
    """Thousands of jobs do not wait for each other's disk."""
    writes: list[int] = []

    class Counting(Store):
        def write(self, changes: Iterable[Change]) -> None:
            writes.append(1)
            super().write(changes)

    async def main(journal: Journal) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(500):
                group.create_task(journal.commit(Put(attempt(name=f"kb-{number}"))))

    counting = Counting(store._db, store.path)
    with Journal(counting, ResultsFile(tmp_path / "results.jsonl")) as journal:
        asyncio.run(main(journal))
    assert len(list(store.attempts())) == 500
    assert len(writes) <= 10


def test_a_cancelled_commit_reaches_the_disk_all_the_same(tmp_path: Path, store: Store) -> None:
    async def main(journal: Journal) -> None:
        task = asyncio.create_task(journal.commit(Put(attempt())))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with Journal(store, ResultsFile(tmp_path / "results.jsonl")) as journal:
        asyncio.run(main(journal))
    assert store.attempt("kb-1") == attempt()


def test_a_cancelled_commit_keeps_nobody_waiting_who_shares_its_flush(
    tmp_path: Path, store: Store
) -> None:
    async def main() -> None:
        journal = Journal(store, ResultsFile(tmp_path / "results.jsonl"))
        first, second = (
            asyncio.create_task(journal.commit(Put(attempt(name=name))))
            for name in ("kb-1", "kb-2")
        )
        await asyncio.sleep(0)
        first.cancel()
        with journal:  # begins to write only now: both are in one flush
            await asyncio.wait_for(second, 5.0)

    asyncio.run(main())
    assert [one.external_task_id for one in store.attempts()] == ["kb-1", "kb-2"]


def test_who_comes_right_after_a_flush_waits_for_company_and_nobody_else_does(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One flush every 50 ms at the most; after a silence at once."""
    now, slept = [1000.0], []

    class Time:
        monotonic = staticmethod(lambda: now[0])
        sleep = staticmethod(slept.append)

    async def main(journal: Journal) -> None:
        for number, gap_s in enumerate((0.0, 0.02, 0.01, 7.0)):
            now[0] += gap_s
            await journal.commit(Put(attempt(name=f"kb-{number}")))

    monkeypatch.setattr("batch.output.writer.time", Time)
    with Journal(store, ResultsFile(tmp_path / "results.jsonl")) as journal:
        asyncio.run(main(journal))
    assert slept == pytest.approx([GROUPING_S - 0.02, GROUPING_S - 0.01])


def test_what_cannot_be_written_is_told_to_who_waits(tmp_path: Path, store: Store) -> None:
    """Nobody goes on as if his step were on disk."""
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout = 1")
    with Journal(store, ResultsFile(tmp_path / "results.jsonl")) as journal:
        with pytest.raises(StateError, match="locked"):
            asyncio.run(journal.commit(Put(attempt())))
        other.close()
        asyncio.run(journal.commit(Put(attempt(name="kb-2"))))
    assert [found.external_task_id for found in store.attempts()] == ["kb-2"]


def test_a_row_that_cannot_be_appended_is_told_and_its_state_kept(
    tmp_path: Path, store: Store
) -> None:
    """The outcome is true all the same; the next run adds the line."""
    path = tmp_path / "results.jsonl"
    path.mkdir()
    with (
        Journal(store, ResultsFile(path)) as journal,
        pytest.raises(StateError, match="adds the lines that are missing"),
    ):
        asyncio.run(journal.commit(Put(attempt()), Row(row(1))))
    assert store.attempt("kb-1") == attempt()
    path.rmdir()
    assert ResultsFile(path).mend(store) == 1
    assert path.read_text() == row(1) + "\n"
