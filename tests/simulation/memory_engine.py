"""An engine in memory: one queue, from which the workers of the simulation draw.

It keeps no more than its protocol promises: a job is delivered at least once, perhaps twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from machines import Machine

from batch.attempt import Account
from batch.engines.engine import Fate, Live
from batch.waker import Waker, sleep

DELIVERS_S = 0.2  # at most, until a job reaches a worker
LOOKS_S = 30.0  # a worker that was told of none


@dataclass(order=True)
class Delivery:
    """A job in the queue."""

    look: int
    order: int
    run_id: str
    job_id: str
    is_again: bool = field(default=False, compare=False)


@dataclass
class MemoryQueue:
    """What is queued, and which worker is at what; *twice* is how often a job comes twice."""

    rng: random.Random
    twice: float = 0.0
    waiting: list[Delivery] = field(default_factory=list)
    news: Waker = field(default_factory=Waker)
    under_way: dict[str, list[Delivery]] = field(default_factory=dict)

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Queue jobs; the lowest place comes first."""
        self.waiting = sorted([*self.waiting, *deliveries])
        self.news.set()

    def draw(self, worker: str, *, has_room: bool) -> Delivery | None:
        """Deliver the next job to a worker."""
        if not self.waiting:
            self.news.clear()
        found = next((item for item in self.waiting if has_room or item.is_again), None)
        if found is None:
            return None
        self.waiting.remove(found)
        if self.rng.random() < self.twice:
            self.put([found])
        self.under_way.setdefault(worker, []).append(found)
        return found

    def ended(self, worker: str, delivery: Delivery) -> None:
        """Forget a delivery that has ended, unless another worker has taken it over."""
        mine = self.under_way.get(worker, [])
        if delivery in mine:
            mine.remove(delivery)


class MemoryEngine:
    """The engine as one machine has it."""

    def __init__(self, queue: MemoryQueue, machine: Machine) -> None:
        self._queue, self._machine = queue, machine
        self._room = 0

    def enqueue(
        self,
        _transaction: Any,
        run_id: str,
        _account: Account,
        jobs: Sequence[tuple[int, str]],
        look: int = 1,
    ) -> None:
        self._queue.put([Delivery(look, order, run_id, job_id) for order, job_id in jobs])

    @asynccontextmanager
    async def working(self, rooms: Mapping[Account, int], live: Live) -> AsyncIterator[None]:
        self._room = max(rooms.values())
        drawing = asyncio.create_task(self._draw(live), name="deliveries")
        try:
            yield
        finally:
            drawing.cancel()

    async def make_room(self, _account: Account, room: int) -> None:
        self._room = max(self._room, room)

    def take_over(self, worker: str) -> None:
        had = self._queue.under_way.pop(worker, [])
        self._queue.put([replace(item, is_again=True) for item in had])

    async def take_over_unknown(self, known: Collection[str]) -> None:
        for worker in self._queue.under_way.keys() - {self._machine.name, *known}:
            self.take_over(worker)

    async def deliver_again(self, run_id: str, _account: Account, job_id: str) -> None:
        queue, mine = self._queue, self._queue.under_way.get(self._machine.name, [])
        mine[:] = [item for item in mine if (item.run_id, item.job_id) != (run_id, job_id)]
        busy = [*queue.waiting, *(item for items in queue.under_way.values() for item in items)]
        if (run_id, job_id) not in {(item.run_id, item.job_id) for item in busy}:
            queue.put([Delivery(1, 0, run_id, job_id, is_again=True)])

    async def forget(self, _run_id: str) -> None:
        return None

    async def _draw(self, live: Live) -> None:
        busy: set[asyncio.Task[None]] = set()
        machine, queue = self._machine, self._queue
        try:
            while True:
                await machine.reach("delivery: draw")
                found = queue.draw(machine.name, has_room=len(busy) < self._room)
                if found is None:
                    await sleep(LOOKS_S, queue.news)
                else:
                    task = asyncio.create_task(self._carry(found, live))
                    busy.add(task)
                    task.add_done_callback(busy.discard)
                await asyncio.sleep(machine.rng.random() * DELIVERS_S)
        finally:
            for task in busy:
                task.cancel()

    async def _carry(self, delivery: Delivery, live: Live) -> None:
        fate = await live(delivery.run_id, delivery.job_id)
        await self._machine.reach("delivery: ends")
        self._queue.ended(self._machine.name, delivery)
        if fate is Fate.BACK:
            self._queue.put([delivery])
