"""The provider of one account in virtual time: a limit on tasks in flight, and large videos.

Lean, so that the cost of a simulated night is the cost of the run. `tests/simulation` plays the
faults; here every request succeeds.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fake_provider import video
from virtual_time import EPOCH, VirtualLoop

from batch.provider.answers import Created, Found, NotFound, Task, TaskStatus
from batch.provider.protocol import Stream

SPREAD = 0.25  # of generation times, in log time
VIDEO_BYTES = 11e6  # the mean of 1080p clips of 5 s
LINK_BYTES_PER_S = 10e6  # of one download
SUBMIT_S, QUERY_S, FETCH_S = 1.0, 0.3, 0.3  # latency of an answer
CLIP_BYTES = 1  # the smallest complete video


def clip(task_id: str) -> bytes:
    """Return the video of a task as it is written to disk: complete, and as small as possible."""
    return video(task_id, CLIP_BYTES)


@dataclass(slots=True)
class _Made:
    """A task at the provider."""

    task_id: str
    external_task_id: str
    created: float
    ends: float


class Account:
    """Play the provider for one account. Forgets downloaded tasks, to keep them out of the memory figure."""

    def __init__(self, loop: VirtualLoop, cap: int, median_s: float, rng: random.Random) -> None:
        self._loop, self._cap, self._rng = loop, cap, rng
        self._center = math.log(median_s)
        self._tasks: dict[str, _Made] = {}
        self._names: dict[str, str] = {}
        self.requests: Counter[str] = Counter()
        self.seconds: Counter[int] = Counter()
        self._made = self.open = self.most_open = 0
        self.slot_s = self.late_s = self.video_bytes = 0.0
        self.fetched_at: list[float] = []

    async def submit(self, body: dict[str, Any], *, not_after: float, resent: bool) -> Created:
        await self._travel("submit", SUBMIT_S)
        now = self._loop.time()
        took_s = self._rng.lognormvariate(self._center, SPREAD)
        self._made += 1
        task_id = str(800_000_000_000_000_000 + self._made)
        made = _Made(task_id, body["external_task_id"], now, now + took_s)
        self._tasks[task_id], self._names[made.external_task_id] = made, task_id
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        assert self.open <= self._cap, "the slots let too many through"
        self._loop.call_at(made.ends, self._end)
        self.slot_s += took_s
        return Created(self._told(made, TaskStatus.SUBMITTED))

    async def query(self, identifier: str) -> Found | NotFound:
        await self._travel("query", QUERY_S)
        made = self._tasks[self._names.get(identifier, identifier)]
        if self._loop.time() < made.ends:
            return Found(self._told(made, TaskStatus.PROCESSING))
        self.late_s += self._loop.time() - made.ends
        return Found(self._told(made, TaskStatus.SUCCEEDED))

    @asynccontextmanager
    async def fetch(
        self, url: str, *, start: int = 0, validator: str | None = None
    ) -> AsyncIterator[Stream]:
        await self._travel("download", FETCH_S)
        made = self._tasks.pop(url.rpartition("/")[2])
        del self._names[made.external_task_id]
        size = VIDEO_BYTES * self._rng.lognormvariate(-0.125, 0.5)
        self.video_bytes += size
        yield _Body(clip(made.task_id), size / LINK_BYTES_PER_S)
        self.fetched_at.append(self._loop.time())

    @property
    def per_hour(self) -> float:
        """Videos per hour, without the first and the last tenth of them."""
        tenth = len(self.fetched_at) // 10
        middle = self.fetched_at[tenth : -tenth or None]
        return 3_600 * (len(middle) - 1) / (middle[-1] - middle[0])

    def _end(self) -> None:
        self.open -= 1

    def _told(self, made: _Made, status: TaskStatus) -> Task:
        is_done = status is TaskStatus.SUCCEEDED
        return Task(
            task_id=made.task_id,
            status=status,
            url=f"https://cdn.example/{made.task_id}" if is_done else None,
            message="",
            external_task_id=made.external_task_id,
            created_at=EPOCH + made.created,
            updated_at=EPOCH + made.ends if is_done else None,
            request_id=f"00000000-0000-4000-8000-{made.task_id:0>12.12}",
        )

    async def _travel(self, kind: str, seconds: float) -> None:
        self.requests[kind] += 1
        self.seconds[int(self._loop.time())] += 1
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class _Body:
    """A small video that takes as long to download as a large one."""

    content: bytes
    seconds: float
    start: int = 0
    validator: str | None = None

    @property
    def total(self) -> int:
        return len(self.content)

    async def chunks(self) -> AsyncIterator[bytes]:
        await asyncio.sleep(self.seconds)
        yield self.content
