"""Starts and stops the two servers of a sandbox."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web

from batch.sandbox.api import Api
from batch.sandbox.callbacks import Callbacks
from batch.sandbox.cdn import Cdn
from batch.sandbox.config import SandboxConfig
from batch.sandbox.control import Control
from batch.sandbox.edge import Edge
from batch.sandbox.engine import Task
from batch.sandbox.faults import FaultPlan
from batch.sandbox.log import Handler, Logged, logged
from batch.sandbox.stats import Stats
from batch.sandbox.video.clips import Clip
from batch.sandbox.world import World

_KEEP_ALIVE_S = 86_400.0  # the client hangs up first: a reset on reuse would look like a fault
_SHUTDOWN_S = 0.1  # requests that hang on purpose are not waited for


class Sandbox:
    """A running sandbox."""

    def __init__(self, world: World, base_url: str, cdn_url: str) -> None:
        self._world = world
        self.base_url = base_url
        self.cdn_url = cdn_url

    def __repr__(self) -> str:
        return f"<Sandbox {self.base_url} [{len(self._world.engine)} tasks]>"

    @property
    def config(self) -> SandboxConfig:
        """The configuration of this moment."""
        return self._world.config

    @property
    def stats(self) -> Stats:
        """The statistics so far; they keep changing."""
        return self._world.stats

    @property
    def faults_fired(self) -> dict[str, int]:
        """How often each fault was applied, by `stage:kind`."""
        return dict(self._world.faults.fired)

    @property
    def tasks(self) -> list[Task]:
        """All created tasks, the oldest first, those from the journal included."""
        return list(self._world.engine)

    def set_faults(self, plan: FaultPlan) -> None:
        """Replace the fault plan; its rules count from zero."""
        self._world.faults.replace(plan)

    def configure(self, **changes: Any) -> None:
        """Change fields of the configuration: a top-up (`has_credit`), say, or another cap."""
        self._world.configure(**changes)

    def clip(self, task: Task) -> Clip:
        """Return the video of a task as it is served without faults."""
        return self._world.clip(task)

    def link(self, task: Task) -> str:
        """Return a signed link to the video of a task."""
        return self._world.links.sign(task, self._world.now())


@asynccontextmanager
async def serve(
    config: SandboxConfig | None = None,
    *,
    now: Callable[[], float] = time.time,
    log: Callable[[Logged], None] | None = None,
) -> AsyncIterator[Sandbox]:
    """Run a sandbox in the current event loop until the block ends.

    *now* gives wall-clock seconds; a test may pass its own. *log* is told of every request.

    Raises:
        OSError: a port is taken, or the journal cannot be opened.
    """
    world = World.from_config(config or SandboxConfig(), now)
    async with AsyncExitStack() as stack:
        world.engine.open()
        stack.callback(world.engine.close)
        callbacks = Callbacks(world)
        stack.push_async_callback(callbacks.close)
        host = world.config.host
        cdn = Cdn(world)
        control = Control(
            world,
            on_finished=lambda task: callbacks.follow(task, since=task.finished_at),
            on_reset=callbacks.forget,
        )
        edge = Edge(Api(world, callbacks.follow), control, cdn, world)
        to_videos: Handler = cdn.handle
        to_api: Handler = edge.handle
        if log is not None:
            to_videos, to_api = (
                logged(handler, world.engine, now, log) for handler in (to_videos, to_api)
            )
        cdn_url = await _listen(stack, to_videos, host, world.config.cdn_port)
        base_url = await _listen(stack, to_api, host, world.config.port)
        world.links.origin, world.links.api_origin = cdn_url, base_url
        started_at = now()
        for task in world.engine:
            callbacks.follow(task, since=started_at)
        yield Sandbox(world, base_url, cdn_url)


async def _listen(stack: AsyncExitStack, handler: Handler, host: str, port: int) -> str:
    server = web.Server(
        handler, access_log=None, keepalive_timeout=_KEEP_ALIVE_S, handler_cancellation=True
    )
    runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port).start()
    bound_port = runner.addresses[0][1]
    return f"http://{f'[{host}]' if ':' in host else host}:{bound_port}"
