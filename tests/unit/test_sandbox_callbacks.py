from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from patience import PATIENCE_S

from batch.sandbox import FaultPlan, Sandbox, SandboxConfig, serve

PATH = "/kling/v1/videos/text2video"


class Listener:
    """Records the callbacks that it receives."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.url = ""
        self.sandbox: Sandbox
        self._news = asyncio.Event()

    @property
    def statuses(self) -> list[str]:
        return [body["task_status"] for _, body in self.told]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.told.append((request.path_qs, await request.json()))
        self._news.set()
        return web.Response(status=204)

    async def hears(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()

    async def order(self) -> str:
        body = {"prompt": "A fox", "model_name": "kling-v2-6", "callback_url": self.url}
        url, headers = self.sandbox.base_url + PATH, {"Authorization": "Bearer k"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=body, headers=headers) as answer,
        ):
            task_id: str = (await answer.json())["data"]["task_id"]
            return task_id


@asynccontextmanager
async def listener(*faults: str, **options: Any) -> AsyncIterator[Listener]:
    made = Listener()
    runner = web.ServerRunner(web.Server(made.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/kling?token=t"
    config = SandboxConfig(
        **{"speed": 2000.0, "seed": 1, "faults": FaultPlan.from_strings(faults), **options}
    )
    async with serve(config) as made.sandbox:
        yield made
    await runner.cleanup()


async def test_listener_hears_every_change() -> None:
    """The bare task object, without an envelope; at the end with the link."""
    async with listener() as it:
        task_id = await it.order()
        await it.hears(3)

    assert it.statuses == ["submitted", "processing", "succeed"]
    assert {path for path, _ in it.told} == {"/kling?token=t"}
    assert {body["task_id"] for _, body in it.told} == {task_id}
    assert it.told[2][1]["task_result"]["videos"][0]["url"].startswith(it.sandbox.cdn_url)
    assert it.sandbox.stats.callbacks == 3


@pytest.mark.parametrize(
    ("rule", "heard"),
    [
        ("twice", ["submitted", "submitted", "processing", "processing", "succeed", "succeed"]),
        ("out-of-order", ["processing", "submitted", "succeed"]),
        ("forged:first=1", ["succeed", "submitted", "processing", "succeed"]),
        ("never:first=2", ["succeed"]),
        ("late:seconds=0.001", ["submitted", "processing", "succeed"]),
    ],
)
async def test_callbacks_can_be_repeated_forged_or_lost(rule: str, heard: list[str]) -> None:
    """None of which may matter to a client."""
    async with listener(f"callback:{rule}") as it:
        await it.order()
        await it.hears(len(heard))

    assert it.statuses == heard


async def test_callback_can_go_astray() -> None:
    """To another path, without the token."""
    async with listener("callback:wrong-path") as it:
        await it.order()
        await it.hears(3)

    assert {path for path, _ in it.told} == {"/kling-wrong"}


async def test_missing_listener_is_only_counted() -> None:
    """One try each."""
    async with listener() as it:
        it.url = "http://127.0.0.1:9/"
        await it.order()
        async with asyncio.timeout(PATIENCE_S):
            while it.sandbox.stats.failed_callbacks < 3:
                await asyncio.sleep(0.005)

    assert it.told == []


async def test_callbacks_go_on_after_a_restart(tmp_path: Path) -> None:
    """Callbacks that were sent before are not sent again."""
    config = SandboxConfig(journal=tmp_path / "journal.jsonl", seed=1)
    async with listener() as it:
        async with serve(config) as it.sandbox:
            await it.order()
            await it.hears(1)
            (task,) = it.sandbox.tasks
        assert task.finished_at is not None
        moment = task.finished_at - 0.001
        async with serve(config, now=lambda: moment):
            await it.hears(2)

    assert it.statuses == ["submitted", "succeed"]
