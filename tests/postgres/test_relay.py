"""What callbacks for other workers' jobs cost Postgres, and what a lost notice leads to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from fleets import Opened, opened_fleet
from patience import until_so
from scripted import ACCOUNT, attempt, opened

from batch.attempt import Intended, external_id
from batch.callbacks.hints import Hint, hash_token, new_token
from batch.callbacks.mailroom import Mailroom
from batch.key import Secret
from batch.output.fleet import OpenRun, Work
from batch.output.postgres import notices
from batch.output.postgres import relay as relays
from batch.output.postgres.notices import HINTS, Notices
from batch.output.postgres.pool import Connection, Connections
from batch.output.postgres.relay import TELL, PostgresRelay
from batch.output.state import Put

NAME = external_id("library", "fingerprint", 1)
TOKEN = new_token(NAME)
HANG_UP = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND starts_with(query, 'LISTEN')"
)


class Counted(Connections):
    """Connections that count the reads, and may be held up."""

    reads = 0
    hold: asyncio.Event | None = None

    async def once(self, work: Callable[[Connection], Awaitable[object]]) -> object:  # type: ignore[override]
        self.reads += 1
        if self.hold is not None:
            await self.hold.wait()
        return await super().once(work)


@pytest.fixture
async def worker(engine_url: str) -> AsyncIterator[Opened]:
    """Give a worker of a fleet with one open task."""
    async with opened_fleet(engine_url) as its:
        run = OpenRun("r", "library", "/", ACCOUNT, "{}", 1.0)
        await its.fleet.hand_over(run, [Work(0, "a", "{}")], lambda _transaction: None)
        made = replace(attempt(name=NAME, job_id="a"), token_hash=hash_token(TOKEN))
        await its.state("library").commit(Put(made.to(Intended(1.0)).to(opened())))
        yield its


@pytest.fixture
async def connections(worker: Opened) -> AsyncIterator[Counted]:
    async with Counted(worker.engine) as its:
        yield its


async def ask(relay: PostgresRelay, token: str = TOKEN) -> bool | None:
    return await relay.tell(NAME, hash_token(token), "told")


async def test_flood_costs_few_reads(connections: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand strangers at once, while a read is under way: one more read, for as many as may wait."""
    monkeypatch.setattr(relays, "PAUSE_S", 0.0)
    monkeypatch.setattr(relays, "WITHIN_S", 100.0)
    relay, connections.hold = PostgresRelay(connections), asyncio.Event()
    first = asyncio.create_task(ask(relay))
    await until_so(lambda: connections.reads)
    flood = [asyncio.create_task(ask(relay, new_token(NAME))) for _ in range(1000)]
    await until_so(lambda: sum(task.done() for task in flood) == 1000 - relays.MOST)
    connections.hold.set()
    answers = await asyncio.gather(first, *flood)
    assert connections.reads == 2
    assert [answers.count(answer) for answer in (True, False, None)] == [1, relays.MOST, 900]


async def test_reads_have_a_pause_between_them(
    connections: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However evenly strangers come: who comes in the pause is asked for after it."""
    monkeypatch.setattr(relays, "PAUSE_S", 1e6)
    relay = PostgresRelay(connections)
    assert await ask(relay, new_token(NAME)) is False
    monkeypatch.setattr(relays, "WITHIN_S", 0.0)
    assert {await ask(relay) for _ in range(50)} == {None}
    assert connections.reads == 1
    for task in connections._tasks:
        task.cancel()


async def test_given_up_look_up_asks_nothing(
    connections: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender has hung up, or was told to come again."""
    monkeypatch.setattr(relays, "PAUSE_S", 0.0)
    relay, connections.hold = PostgresRelay(connections), asyncio.Event()
    first = asyncio.create_task(ask(relay))
    await until_so(lambda: connections.reads)
    given_up = asyncio.create_task(ask(relay))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    connections.hold.set()
    assert await first is True
    await until_so(lambda: not connections._tasks)
    assert connections.reads == 1


async def test_unreachable_postgres_says_nothing(worker: Opened, engine_url: str) -> None:
    """Nor does that end the worker: the next one is asked for."""
    async with Connections(worker.engine) as connections:
        relay = PostgresRelay(connections)
        worker.execute("ALTER TABLE attempts RENAME TO away")
        assert await ask(relay) is None
        worker.execute("ALTER TABLE away RENAME TO attempts")
        assert await ask(relay) is True


async def test_slow_postgres_is_not_waited_for(
    worker: Opened, connections: Counted, engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "WITHIN_S", 0.05)
    with psycopg.connect(engine_url) as other:
        other.execute("LOCK TABLE kling.attempts")
        assert await ask(PostgresRelay(connections)) is None


async def test_one_read_goes_by_the_key(worker: Opened) -> None:
    """Also before Postgres has counted anything: 20,000 attempts are not looked through."""
    worker.execute(
        "INSERT INTO attempts SELECT library, 'kb-' || n, job_id || n, number, n::text, request,"
        " state, detail, NULL, failure_kind, file, bytes, polls, cost_usd, base_url, token_hash,"
        " account FROM attempts, generate_series(1, 20000) AS n"
    )
    plan = worker.execute(
        f"EXPLAIN {TELL.decode()}", HINTS, [NAME] * 100, [hash_token(TOKEN)] * 100, ["told"] * 100
    )
    lines = "\n".join(line for (line,) in plan)
    assert "Seq Scan on attempts" not in lines
    assert "attempts_pkey" in lines


class Listener:
    """A worker that listens, and has the task in flight; *begun* counts its connections."""

    def __init__(self, relay: PostgresRelay) -> None:
        self.mailroom, self.begun = Mailroom(relay), 0

    def hear(self, text: str) -> None:
        self.begun += text == ""
        self.mailroom.hear(text)

    @asynccontextmanager
    async def listening(self, engine: Secret) -> AsyncIterator[Hint]:
        with self.mailroom.hints() as hints, hints.expect(NAME, hash_token(TOKEN)) as hint:
            async with Notices(engine, {HINTS: self.hear}):
                await until_so(lambda: self.begun)
                yield hint


async def tell_end(relay: PostgresRelay) -> None:
    news = json.dumps([NAME, "8", None, True, True])
    assert await relay.tell(NAME, hash_token(TOKEN), news) is True


async def test_lost_notice_changes_nothing(
    worker: Opened, connections: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback is accepted all the same; the task is polled when it is due."""
    monkeypatch.setattr(notices, "RECONNECTS_S", 1e6)
    relay = PostgresRelay(connections)
    async with Listener(relay).listening(worker.engine) as hint:
        worker.execute(HANG_UP)
        await tell_end(relay)
        assert not hint.named.is_set()


async def test_lost_connection_is_made_again(
    worker: Opened, connections: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "RECONNECTS_S", 0.0)
    relay = PostgresRelay(connections)
    listener = Listener(relay)
    async with listener.listening(worker.engine) as hint:
        worker.execute(HANG_UP)
        await until_so(lambda: listener.begun == 2)
        await tell_end(relay)
        await until_so(hint.ended.is_set)
