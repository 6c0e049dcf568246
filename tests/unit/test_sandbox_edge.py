"""The sandbox over HTTP: the faults that are in the line, and links that lead to its own origin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from patience import until_so
from sandbox_desk import BODY

from batch.sandbox import FaultPlan, Sandbox, SandboxConfig, serve
from batch.sandbox.api import PATH
from batch.sandbox.shapes import OWN_ORIGIN

KEY = {"Authorization": "Bearer k"}


@asynccontextmanager
async def serving(*faults: str, **options: Any) -> AsyncIterator[Sandbox]:
    async with serve(SandboxConfig(faults=FaultPlan.from_strings(faults), **options)) as sandbox:
        yield sandbox


async def post(sandbox: Sandbox, session: aiohttp.ClientSession) -> str:
    """Create a task, and return its id."""
    async with session.post(sandbox.base_url + PATH, json=BODY, headers=KEY) as answer:
        task_id: str = (await answer.json())["data"]["task_id"]
        return task_id


@pytest.mark.parametrize(
    ("kind", "created"),
    [("drop-before", 0), ("drop-after", 1), ("truncated", 1), ("hang", 0), ("hang-after", 1)],
)
async def test_answer_does_not_come(kind: str, created: int) -> None:
    """Dropped, cut in half, or never sent; the sandbox still closes at once."""
    async with serving(f"submit:{kind}") as sandbox, aiohttp.ClientSession() as session:
        posting = asyncio.create_task(post(sandbox, session))
        if "hang" in kind:
            await until_so(lambda: sandbox.faults_fired and sandbox.stats.created == created)
            assert not posting.done()
            posting.cancel()
        else:
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await posting

        assert sandbox.stats.created == created


async def test_idle_connection_loses_next_request() -> None:
    """A fresh connection serves the same request."""
    async with serving("connection:idle:seconds=0") as sandbox:
        async with aiohttp.ClientSession() as reused:
            await post(sandbox, reused)
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await post(sandbox, reused)
        async with aiohttp.ClientSession() as fresh:
            await post(sandbox, fresh)

        assert sandbox.faults_fired == {"connection:idle": 1}
        assert sandbox.stats.created == 2


async def test_link_on_own_origin_wants_key() -> None:
    """And serves the same bytes as the origin of the videos."""
    async with (
        serving(f"query:link:{OWN_ORIGIN}", speed=1e9) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        url = f"{sandbox.base_url}{PATH}/{await post(sandbox, session)}"
        async with session.get(url, headers=KEY) as answer:
            link = (await answer.json())["data"]["task_result"]["videos"][0]["url"]
        async with session.get(link) as refused, session.get(link, headers=KEY) as served:
            content = await served.read()

        assert link.startswith(f"{sandbox.base_url}/")
        assert (refused.status, served.status) == (401, 200)
        assert content == sandbox.clip(sandbox.tasks[0]).content()
        assert sandbox.stats.key_leaks == 0
