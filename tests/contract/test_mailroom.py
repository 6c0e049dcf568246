"""Callbacks that arrive at any worker of a fleet, whose records are in Postgres or in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from patience import until_so
from scripted import ACCOUNT, attempt, opened

from batch.attempt import Intended, external_id
from batch.callbacks.hints import Hint, Hints, News, hash_token, new_token
from batch.callbacks.mailroom import Mailroom
from batch.output.fleet import OpenRun, Work
from batch.output.state import Put

ENDED = News("8", 5.0, has_ended=True, names_us=True)
CREATED = News("8", 4.0, has_ended=False)
NUMBERS = itertools.count(1)


@dataclass
class Worker:
    """The callbacks of one worker, with one run; *heard* is what it was told by all."""

    mailroom: Mailroom
    hints: Hints
    heard: list[str] = field(default_factory=list)

    def hear(self, text: str) -> None:
        self.heard.append(text)
        self.mailroom.hear(text)

    @contextmanager
    def holding(self, name: str, token: str) -> Any:
        """Have an attempt in flight."""
        with self.hints.expect(name, hash_token(token)) as hint:
            yield hint


@dataclass
class Fleet:
    """A few workers; *record* keeps an attempt and its token's hash for all, *end* ends the run."""

    workers: list[Worker]
    record: Callable[[str, str], Awaitable[None]]
    end: Callable[[], Awaitable[None]]

    async def submitted(self) -> tuple[str, str]:
        """Return the name and the token of an attempt that some worker has submitted."""
        name = external_id("library", "fingerprint", next(NUMBERS))
        token = new_token(name)
        await self.record(name, hash_token(token))
        return name, token


class MemoryRelay:
    """The way to workers in this process."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}
        self.workers: list[Worker] = []

    async def tell(self, external_task_id: str, token_hash: str, text: str) -> bool | None:
        await asyncio.sleep(0)
        is_right = self.hashes.get(external_task_id) == token_hash
        if is_right:
            for worker in self.workers:
                worker.hear(text)
        return is_right


@pytest.fixture(params=["postgres", "memory"])
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as exits:
        if request.param == "memory":
            yield _in_memory(exits)
        else:
            yield await _in_postgres(exits, request.getfixturevalue("emptied_url"))


def _in_memory(exits: ExitStack | AsyncExitStack) -> Fleet:
    relay = MemoryRelay()

    async def record(name: str, token_hash: str) -> None:
        relay.hashes[name] = token_hash

    async def end() -> None:
        relay.hashes.clear()

    relay.workers = [_worker(Mailroom(relay), exits) for _ in range(3)]
    return Fleet(relay.workers, record, end)


async def _in_postgres(exits: AsyncExitStack, url: str) -> Fleet:
    from fleets import opened_fleet  # noqa: PLC0415 - needs psycopg

    from batch.output.postgres.notices import HINTS, Notices  # noqa: PLC0415 - needs psycopg
    from batch.output.postgres.relay import PostgresRelay  # noqa: PLC0415 - needs psycopg

    workers = []
    for _ in range(3):
        its = await exits.enter_async_context(opened_fleet(url))
        worker = _worker(Mailroom(PostgresRelay(its.connections)), exits)
        await exits.enter_async_context(Notices(its.engine, {HINTS: worker.hear}))
        workers.append(worker)
    run = OpenRun("r", "library", "/", ACCOUNT, "{}", 1.0)
    await its.fleet.hand_over(run, [Work(0, "a", "{}")], lambda _transaction: None)

    async def record(name: str, token_hash: str) -> None:
        made = replace(attempt(name=name, job_id=name), token_hash=token_hash, fingerprint=name)
        await its.state("library").commit(Put(made.to(Intended(1.0)).to(opened(name))))

    async def end() -> None:
        await its.fleet.end("r", 0, "{}")

    await until_so(lambda: all(worker.heard == [""] for worker in workers))
    return Fleet(workers, record, end)


def _worker(mailroom: Mailroom, exits: ExitStack | AsyncExitStack) -> Worker:
    return Worker(mailroom, exits.enter_context(mailroom.hints()))


async def told(fleet: Fleet, count: int) -> list[str]:
    """Return what all workers have been told, as soon as that is so much."""
    heard = [worker.heard for worker in fleet.workers]
    await until_so(lambda: all(len(list(filter(None, texts))) >= count for texts in heard))
    assert heard[0] == heard[1] == heard[2]
    return list(filter(None, heard[0]))


async def given(hint: Hint) -> None:
    await until_so(hint.ended.is_set)


async def test_other_workers_callback_reaches_the_holder(fleet: Fleet) -> None:
    name, token = await fleet.submitted()
    holder, other, _ = fleet.workers
    with holder.holding(name, token) as hint:
        assert await other.mailroom.take(token, ENDED) is True
        await given(hint)
    assert (hint.task_id, hint.names_us, hint.announced_end) == ("8", True, True)


async def test_change_without_end_reaches_the_holder(fleet: Fleet) -> None:
    """It names the task of a request whose answer was lost."""
    name, token = await fleet.submitted()
    holder, other, _ = fleet.workers
    with holder.holding(name, token) as hint:
        assert await other.mailroom.take(token, CREATED) is True
        await until_so(hint.named.is_set)
    assert (hint.task_id, hint.names_us, hint.ended.is_set()) == ("8", False, False)


async def test_own_callback_is_told_to_nobody(fleet: Fleet) -> None:
    name, token = await fleet.submitted()
    holder, other, _ = fleet.workers
    with holder.holding(name, token) as hint:
        assert await holder.mailroom.take(token, ENDED) is True
        assert hint.ended.is_set()
    assert await other.mailroom.take(token, CREATED) is True
    assert len(await told(fleet, 1)) == 1


async def test_successor_accepts_the_former_holders_callback(fleet: Fleet) -> None:
    """Also at the former holder, which knows the token: it passes on what is not its own any more."""
    name, token = await fleet.submitted()
    former, successor, _ = fleet.workers
    with former.holding(name, token):
        pass
    with successor.holding(name, token) as hint:
        assert await former.mailroom.take(token, ENDED) is True
        await given(hint)


async def test_two_that_believe_to_hold_both_hear(fleet: Fleet) -> None:
    """A worker that was taken for dead polls, too; what it commits is refused."""
    name, token = await fleet.submitted()
    former, successor, other = fleet.workers
    with former.holding(name, token) as first, successor.holding(name, token) as second:
        assert await other.mailroom.take(token, ENDED) is True
        await given(first)
        await given(second)


async def test_callback_for_a_job_without_holder_is_forgotten(fleet: Fleet) -> None:
    """It is parked, or its worker is dead: whoever takes it up asks by itself."""
    name, token = await fleet.submitted()
    assert await fleet.workers[0].mailroom.take(token, ENDED) is True
    await told(fleet, 1)
    with fleet.workers[1].holding(name, token) as hint:
        assert not hint.ended.is_set()


@pytest.mark.parametrize(
    "forge",
    [
        new_token,
        lambda _name: new_token(external_id("library", "fingerprint", 0)),
        lambda name: f"{name}-{'x' * 43}",
    ],
    ids=["another-secret", "unknown-attempt", "guess"],
)
async def test_wrong_token_is_refused_and_tells_nothing(
    fleet: Fleet, forge: Callable[[str], str]
) -> None:
    name, token = await fleet.submitted()
    holder, other, _ = fleet.workers
    with holder.holding(name, token) as hint:
        for worker in (holder, other):
            assert await worker.mailroom.take(forge(name), ENDED) is False
        assert await other.mailroom.take(token, CREATED) is True
        assert len(await told(fleet, 1)) == 1
        assert not hint.ended.is_set()


async def test_right_one_is_found_among_wrong_ones(fleet: Fleet) -> None:
    """They are asked for together."""
    named = [await fleet.submitted() for _ in range(3)]
    tokens = [(new_token(name), token) for name, token in named]
    other = fleet.workers[1].mailroom
    found = await asyncio.gather(*(other.take(token, ENDED) for pair in tokens for token in pair))
    assert found == [False, True] * 3
    assert len(await told(fleet, 3)) == 3


async def test_token_of_an_ended_run_is_refused(fleet: Fleet) -> None:
    _, token = await fleet.submitted()
    await fleet.end()
    assert await fleet.workers[0].mailroom.take(token, ENDED) is False


async def test_notice_holds_no_token(fleet: Fleet) -> None:
    """Nor its hash: whoever may read the database could answer for the provider."""
    name, token = await fleet.submitted()
    assert await fleet.workers[0].mailroom.take(token, ENDED) is True
    (text,) = await told(fleet, 1)
    assert token.removeprefix(f"{name}-") not in text
    assert hash_token(token) not in text
