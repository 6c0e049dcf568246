"""What a stopped process holds in Postgres: a connection that nobody serves any more is all there is of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from doors import Door, doors
from fleets import Opened
from scripted import ACCOUNT

from batch.key import Secret
from batch.output.fleet import OpenRun, Work
from batch.output.layout import Layout
from batch.output.postgres import fleet, pool
from batch.output.postgres.connection import connect, of_worker, session_name
from batch.output.postgres.libraries import hold_to_end, lock
from batch.run.account import Traffic

ACCOUNTS = "SELECT account FROM kling.accounts FOR UPDATE"
NOW_OR_NEVER = f"{ACCOUNTS} NOWAIT"
IN_TRANSACTIONS = (
    "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
)


@pytest.fixture
async def door(engine_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(fleet, "HELD_FOR_S", 0.0)
    async with doors(engine_url, 1) as (door,):
        yield door


def in_the_midst_of_a_statement(connection: psycopg.Connection[Any]) -> None:
    """Hold the account by a pipeline that was not ended: no time-out of Postgres acts then."""
    connection.pgconn.enter_pipeline_mode()
    connection.pgconn.send_query_params(ACCOUNTS.encode(), None)
    connection.pgconn.send_flush_request()
    connection.pgconn.flush()


def without_reading_an_answer(connection: psycopg.Connection[Any]) -> None:
    """Hold the account by a transaction whose answer fits into no buffer."""
    long = "SELECT repeat('x', 1000000) FROM generate_series(1, 50)"
    connection.pgconn.send_query(f"{ACCOUNTS}; {long}".encode())
    connection.pgconn.flush()


def between_two_statements(connection: psycopg.Connection[Any]) -> None:
    """Hold the account by a transaction that is under way."""
    connection.execute("BEGIN")
    connection.execute(ACCOUNTS)


@pytest.mark.parametrize(
    "asleep",
    [in_the_midst_of_a_statement, without_reading_an_answer, between_two_statements],
)
async def test_beat_frees_what_a_sleeper_holds(door: Door, asleep: Any) -> None:
    worker = door.worker
    await worker.fleet.beat("sleeper", [])
    worker.age("sleeper", 31.0)
    with closing(connect(of_worker(worker.engine, "sleeper"))) as its:
        asleep(its)
        while not await asyncio.to_thread(_is_held, worker):
            await asyncio.sleep(0.005)
        await worker.fleet.beat("healthy", [])
        assert worker.execute(NOW_OR_NEVER) == [(ACCOUNT.key_hash,)]


def _is_held(worker: Opened) -> bool:
    try:
        worker.execute(NOW_OR_NEVER)
    except psycopg.errors.LockNotAvailable:
        return True
    return False


async def test_beat_frees_the_end_of_a_run(door: Door, tmp_path: Path) -> None:
    """Whoever ends a run holds its library by a lock that no transaction ends."""
    worker, layout = door.worker, Layout(tmp_path)
    with hold_to_end(of_worker(worker.engine, "sleeper"), "library", layout) as its:
        assert its is not None
        with hold_to_end(worker.engine, "library", layout) as mine:
            assert mine is None
        await worker.fleet.beat("healthy", [])
        with hold_to_end(worker.engine, "library", layout) as mine:
            assert mine is not None


@pytest.mark.parametrize("name", ["alive", "älive", "x" * 80])
async def test_living_worker_keeps_its_sessions(door: Door, name: str) -> None:
    await door.worker.fleet.beat(name, [])
    await _goes_on(door.worker, of_worker(door.worker.engine, name), "BEGIN")


async def test_command_keeps_its_sessions(door: Door) -> None:
    await _goes_on(door.worker, door.worker.engine, "BEGIN")


async def test_slow_worker_keeps_what_locks_nothing(door: Door) -> None:
    """It was taken for dead, goes on, and is told that its jobs are another's."""
    await _goes_on(door.worker, of_worker(door.worker.engine, "slow"), "SELECT 1")


async def test_beat_waits_before_it_ends_a_transaction(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "HELD_FOR_S", 60.0)
    await _goes_on(door.worker, of_worker(door.worker.engine, "slow"), "BEGIN")


async def _goes_on(worker: Opened, engine: Secret, query: str) -> None:
    """Assert that a session that has done something is still there after a beat."""
    with closing(connect(engine)) as its:
        its.execute(query.encode())
        await worker.fleet.beat("healthy", [])
        assert its.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("worker", ["wörker-12-0a1b2c", f"{'x' * 80}-12-0a1b2c"])
def test_session_is_called_as_its_worker(engine_url: str, worker: str) -> None:
    with psycopg.connect(engine_url, application_name=session_name(worker)) as connection:
        (name,) = connection.execute("SHOW application_name").fetchone() or ()
    assert name == session_name(worker)
    assert name.endswith("-12-0a1b2c")


async def test_desk_is_idle_while_it_judges(door: Door) -> None:
    """That is when Postgres takes the account from a process that sleeps, by itself."""
    found = []

    def judge(traffic: Traffic, _now: float, _others: int) -> Traffic:
        found.extend(door.worker.execute(IN_TRANSACTIONS))
        return traffic

    await door.gate.desk.learn("", judge)
    assert found == [("idle in transaction",)]


async def test_beat_comes_through_while_others_wait(
    engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nobody would be left to bury whom they wait for."""
    monkeypatch.setattr(pool, "LOCKS_WITHIN", "50ms")
    async with doors(engine_url, 1) as (door,):
        with psycopg.connect(engine_url) as sleeper:
            sleeper.execute(ACCOUNTS)
            waiting = [
                asyncio.create_task(door.gate.insist(lambda: door.gate.desk.learn("", _same)))
                for _ in range(2 * pool.MAX_CONNECTIONS)
            ]
            await asyncio.sleep(0)
            await door.worker.fleet.beat("alive", [])
            assert not any(task.done() for task in waiting)
            door.stop.leaving.set()
            await asyncio.gather(*waiting)


def _same(traffic: Traffic, _now: float, _others: int) -> Traffic:
    return traffic


async def test_account_is_free_while_jobs_are_handed_over(door: Door) -> None:
    """A hundred thousand jobs take a while, and the process may be stopped meanwhile."""
    worker = door.worker
    run = OpenRun("r2", "another", "/", ACCOUNT, "{}", 1.0)
    found = []

    def enqueue(_transaction: Any) -> None:
        found.extend(worker.execute(NOW_OR_NEVER))

    await worker.fleet.hand_over(run, [Work(0, "a", "{}")], enqueue)
    assert found == [(ACCOUNT.key_hash,)]


async def test_run_ends_while_its_command_is_stopped(door: Door, tmp_path: Path) -> None:
    """It was handed over, and the command was stopped before it let go of the folder."""
    engine, layout = door.worker.engine, Layout(tmp_path)
    with closing(connect(engine)) as command:
        door.worker.execute("UPDATE runs SET is_open = false")
        lock(command, "library", layout)
        door.worker.execute("UPDATE runs SET is_open = true")
        with hold_to_end(engine, "library", layout) as database:
            assert database is not None
