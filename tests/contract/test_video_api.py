"""What every `VideoApi` promises: the client against the sandbox, and the simulated provider."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fake_api import FakeApi
from fake_provider import FORBIDDEN, INVALID, MODERATED, Provider, Rates, Ways
from mortal import Life
from virtual_time import VirtualClock, VirtualLoop, run

from batch.clock import Clock, SystemClock
from batch.job import FailureKind
from batch.provider.answers import (
    AccountRefused,
    Created,
    Exists,
    Found,
    NotFound,
    Refused,
    Saturated,
    Stale,
    TaskStatus,
    Unavailable,
    Unsent,
)
from batch.provider.client import Client
from batch.provider.protocol import BrokenFetchError, ExpiredLinkError, Stream, VideoApi
from batch.sandbox import SandboxConfig, serve

SLOTS = 2
LINK_LASTS_S = 600.0
GENERATION_LASTS_S = 86_400.0  # at most
KEY = "sk-of-the-contract"


@dataclass
class World:
    """A provider with two slots, and the ways to it."""

    api: VideoApi
    clock: Clock
    unreachable: VideoApi
    without_credit: VideoApi
    later: Callable[[float], Awaitable[None]]
    refused_prompt: str
    moderated_prompt: str
    failing_prompt: str

    async def submit(
        self, name: str = "kb-1", *, prompt: str = "a cat", within_s: float = 10.0
    ) -> Any:
        """Ask for a video."""
        return await self._submit(self.api, name, prompt, within_s)

    async def submit_by(self, api: VideoApi) -> Any:
        """Ask for a video on another way."""
        return await self._submit(api, "kb-1", "a cat", 10.0)

    async def _submit(self, api: VideoApi, name: str, prompt: str, within_s: float) -> Any:
        body = {"prompt": prompt, "model_name": "kling-v2-6", "external_task_id": name}
        until = self.clock.monotonic() + within_s
        return await api.submit(body, not_after=until, resent=False)

    async def link(self, name: str = "kb-1") -> str:
        """Have a video made, and return a fresh link to it."""
        await self.submit(name)
        await self.later(GENERATION_LASTS_S)
        return await self.fresh_link(name)

    async def fresh_link(self, name: str = "kb-1") -> str:
        """Return another link to a video that is made."""
        found = await self.api.query(name)
        assert isinstance(found, Found)
        assert found.task.status is TaskStatus.SUCCEEDED
        assert found.task.url is not None
        return found.task.url


Story = Callable[[World], Awaitable[None]]
Play = Callable[[Story], None]


def over_http(story: Story) -> None:
    """Tell the story with the real client and the sandbox."""
    passed_s = 0.0

    async def later(seconds: float) -> None:
        nonlocal passed_s
        passed_s += seconds

    def now() -> float:
        return time.time() + passed_s

    def client(base_url: str, key: str = KEY) -> Client:
        return Client(
            base_url=base_url, key=key, request_timeout_s=20, stall_timeout_s=20, clock=clock
        )

    clock = SystemClock()
    config = SandboxConfig(
        api_key=KEY, max_parallel=SLOTS, link_ttl_s=LINK_LASTS_S, clip="tiny", seed=1
    )

    async def main() -> None:
        async with (
            serve(config, now=now) as sandbox,
            client(sandbox.base_url) as api,
            client("http://127.0.0.1:1") as unreachable,
            client(sandbox.base_url, "sk-of-another") as without_credit,
        ):
            await story(
                World(
                    api,
                    clock,
                    unreachable,
                    without_credit,
                    later,
                    refused_prompt="",
                    moderated_prompt="sandbox:unsafe",
                    failing_prompt="sandbox:moderation",
                )
            )
            assert sandbox.stats.key_leaks == 0

    asyncio.run(main())


def in_memory(story: Story) -> None:
    """Tell the story with the provider of the simulated nights."""

    async def main(loop: VirtualLoop) -> None:
        config = SandboxConfig(max_parallel=SLOTS, link_ttl_s=LINK_LASTS_S, median_s=600.0, seed=1)
        clock = VirtualClock(loop)

        def api(provider: Provider, offline: tuple[float, float] = (0.0, 0.0)) -> FakeApi:
            return FakeApi(
                provider,
                run=1,
                loop=loop,
                clock=clock,
                life=Life(),
                rates=Rates(),
                rng=random.Random(1),
                request_timeout_s=20.0,
                late_s=0.0,
                offline=offline,
                account="somebody",
            )

        provider, empty = (Provider(Ways(), config, random.Random(1)) for _ in range(2))
        empty.configure(has_credit=False)
        await story(
            World(
                api(provider),
                clock,
                api(provider, (0.0, float("inf"))),
                api(empty),
                asyncio.sleep,
                refused_prompt=INVALID,
                moderated_prompt=FORBIDDEN,
                failing_prompt=f"sandbox:{MODERATED}",
            )
        )

    run(main)


@pytest.fixture(params=[over_http, in_memory], ids=["client", "simulation"])
def play(request: pytest.FixtureRequest) -> Play:
    """Return what tells a story with one of the implementations."""
    chosen: Play = request.param
    return chosen


async def read(stream: Stream) -> bytes:
    return b"".join([chunk async for chunk in stream.chunks()])


def test_submitted_task_is_found_by_both_ids(play: Play) -> None:
    async def story(world: World) -> None:
        created = await world.submit()
        assert isinstance(created, Created)
        for identifier in (created.task.task_id, "kb-1"):
            found = await world.api.query(identifier)
            assert isinstance(found, Found)
            assert found.task.task_id == created.task.task_id
            assert found.task.external_task_id == "kb-1"
            assert found.task.status in {TaskStatus.SUBMITTED, TaskStatus.PROCESSING}
            assert found.task.url is None

    play(story)


def test_repeated_external_id_exists(play: Play) -> None:
    async def story(world: World) -> None:
        first = await world.submit()
        assert isinstance(await world.submit(), Exists)
        found = await world.api.query("kb-1")
        assert isinstance(found, Found)
        assert found.task.task_id == first.task.task_id

    play(story)


def test_refused_request_creates_nothing(play: Play) -> None:
    async def story(world: World) -> None:
        refused = await world.submit(prompt=world.refused_prompt)
        assert isinstance(refused, Refused)
        assert refused.failure.kind is FailureKind.INVALID_REQUEST
        moderated = await world.submit(prompt=world.moderated_prompt)
        assert isinstance(moderated, Refused)
        assert moderated.failure.kind is FailureKind.MODERATION
        assert isinstance(await world.api.query("kb-1"), NotFound)

    play(story)


def test_full_account_is_saturated(play: Play) -> None:
    async def story(world: World) -> None:
        for number in range(SLOTS):
            assert isinstance(await world.submit(f"kb-{number}"), Created)
        assert isinstance(await world.submit("kb-more"), Saturated)
        assert isinstance(await world.api.query("kb-more"), NotFound)

    play(story)


def test_refused_account_creates_nothing(play: Play) -> None:
    async def story(world: World) -> None:
        assert isinstance(await world.submit_by(world.without_credit), AccountRefused)
        assert isinstance(await world.api.query("kb-1"), NotFound)

    play(story)


def test_late_intent_is_not_sent(play: Play) -> None:
    async def story(world: World) -> None:
        assert isinstance(await world.submit(within_s=-1.0), Stale)
        assert isinstance(await world.api.query("kb-1"), NotFound)

    play(story)


def test_unreachable_provider_answers_nothing(play: Play) -> None:
    async def story(world: World) -> None:
        assert isinstance(await world.submit_by(world.unreachable), Unsent)
        answer = await world.unreachable.query("kb-1")
        assert isinstance(answer, Unavailable)
        assert answer.failure.http_status is None

    play(story)


@pytest.mark.parametrize("identifier", ["kb-unknown", "822953089408827433"])
def test_unknown_task_is_not_found(play: Play, identifier: str) -> None:
    async def story(world: World) -> None:
        assert isinstance(await world.api.query(identifier), NotFound)

    play(story)


def test_failed_task_tells_its_reason(play: Play) -> None:
    async def story(world: World) -> None:
        await world.submit(prompt=world.failing_prompt)
        await world.later(GENERATION_LASTS_S)
        found = await world.api.query("kb-1")
        assert isinstance(found, Found)
        assert found.task.status is TaskStatus.FAILED
        assert "risk control" in found.task.message
        assert found.task.url is None

    play(story)


def test_file_is_fetched_from_any_byte(play: Play) -> None:
    async def story(world: World) -> None:
        link = await world.link()
        async with world.api.fetch(link) as stream:
            start, validator, total = stream.start, stream.validator, stream.total
            whole = await read(stream)
        assert (start, total, whole[4:8]) == (0, len(whole), b"ftyp")
        async with world.api.fetch(link, start=100, validator=validator) as stream:
            assert (stream.start, stream.total) == (100, total)
            assert await read(stream) == whole[100:]
        async with world.api.fetch(link, start=100, validator='"another"') as stream:
            assert (stream.start, stream.total) == (0, total)
            assert await read(stream) == whole

    play(story)


def test_expired_link_is_replaced_by_a_query(play: Play) -> None:
    async def story(world: World) -> None:
        link = await world.link()
        await world.later(LINK_LASTS_S + 1)
        with pytest.raises(ExpiredLinkError):
            async with world.api.fetch(link):
                pytest.fail("the link has expired")
        async with world.api.fetch(await world.fresh_link()) as stream:
            assert await read(stream)

    play(story)


def test_unreachable_file_server_breaks_the_fetch(play: Play) -> None:
    async def story(world: World) -> None:
        link = await world.link()
        elsewhere = link if "https://cdn/" in link else "http://127.0.0.1:1/v.mp4"
        with pytest.raises(BrokenFetchError):
            async with world.unreachable.fetch(elsewhere):
                pytest.fail("nothing is there")

    play(story)
