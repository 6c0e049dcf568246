"""Callbacks: the bare task object, POSTed to `callback_url` at every change of status.

One try each, since the documentation promises no more; failures are counted.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from batch.sandbox.engine import Task
from batch.sandbox.world import World

_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Callbacks:
    """Sends the callbacks of one sandbox, for each task from an asyncio task of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session: aiohttp.ClientSession | None = None
        self._running: dict[str, asyncio.Task[None]] = {}  # by task id

    def follow(self, task: Task, since: float | None = None) -> None:
        """Send the changes of a task from the moment *since* on, if it has a `callback_url`.

        What was still to be sent of that task is not sent any more.
        """
        url = task.body.get("callback_url")
        if not isinstance(url, str) or not url:
            return
        runner = asyncio.get_running_loop().create_task(
            self._send_all(task, url, since or task.created_at)
        )
        former = self._running.get(task.task_id)
        if former is not None:
            former.cancel()
        self._running[task.task_id] = runner
        runner.add_done_callback(lambda _done: self._let_go(task.task_id, runner))

    def _let_go(self, task_id: str, runner: asyncio.Task[None]) -> None:
        if self._running.get(task_id) is runner:
            del self._running[task_id]

    def forget(self) -> None:
        """Cancel the callbacks to come."""
        for runner in self._running.values():
            runner.cancel()

    async def close(self) -> None:
        """Cancel the callbacks to come, and hang up."""
        self.forget()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _send_all(self, task: Task, url: str, since: float) -> None:
        moments = [(task.created_at, "submitted"), (task.started_at, "processing")]
        if task.finished_at is not None:
            moments.append((task.finished_at, task.outcome))
        held: str | None = None
        for moment, status in moments:
            if moment < since:
                continue  # sent before a restart
            await asyncio.sleep(max(moment - self._world.now(), 0.0))
            fault = self._world.fault("callback", task)
            kind = None if fault is None else fault.kind
            if kind == "never":
                continue
            if kind == "out-of-order" and held is None and status != task.outcome:
                held = status
                continue
            if fault is not None and kind == "late":
                await asyncio.sleep(fault.lasts(5.0))
            await self._send(task, url, status, kind)
            if held is not None:
                await self._post(url, self._world.shown(task, held))
                held = None

    async def _send(self, task: Task, url: str, status: str, kind: str | None) -> None:
        shown = self._world.shown(task, status)
        if kind == "wrong-path":
            url = f"{url.partition('?')[0]}-wrong"
        if kind == "forged":
            lie = {"task_status": "succeed", "task_result": {"videos": [{"url": "http://evil/"}]}}
            await self._post(url, {**shown, **lie})
        await self._post(url, shown)
        if kind == "twice":
            await self._post(url, shown)

    async def _post(self, url: str, body: dict[str, Any]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        try:
            async with self._session.post(url, json=body, allow_redirects=False) as response:
                is_taken = response.ok
        except (aiohttp.ClientError, TimeoutError, ValueError):
            is_taken = False
        if is_taken:
            self._world.stats.callbacks += 1
        else:
            self._world.stats.failed_callbacks += 1
