"""Hours of slots in virtual time: refusals of a provider with few slots.

    python tests/benchmarks/slots_hour.py CAP MAX_IN_FLIGHT HOURS

The slots and the schedule of polls are the real ones; submission and provider are a few lines.
Prints JSON: refusals of each hour, the share of the provider's slots in use, and polls per task.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import sys
from typing import Any

from batch.run.schedule import SLOT_WORTH, History, next_poll
from batch.run.slots import Slots

MEDIAN_S = 60.0
SPREAD = 0.25
POLL_INTERVAL_S = 2.2  # to the generation time as 5 s is to 135 s
PACE_S = 1.0  # 60/min
HOUR_S = 3_600.0


class _Jump(selectors.SelectSelector):
    """Never wait: time jumps to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jump.now


class _LoopClock:
    def __init__(self, loop: _Loop) -> None:
        self.monotonic = self.now = loop.time


class _Night:
    """A feeder like the run's, over a provider that counts."""

    def __init__(self, loop: _Loop, cap: int, most: int, hours: int) -> None:
        self.slots = Slots(most, clock=_LoopClock(loop))
        self.refused = [0] * hours
        self.used_s = 0.0
        self.tasks = 0
        self.polls = 0
        self._history = History()
        self._loop = loop
        self._cap = cap
        self._ends: list[float] = []
        self._ends_at = hours * HOUR_S
        self._dice = random.Random(1)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            order, due = 0, 0.0
            while self._loop.time() < self._ends_at:
                await self.slots.acquire(order)
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                due = self._loop.time() + PACE_S
                group.create_task(self._job(order))
                order += 1

    async def _job(self, order: int) -> None:
        while not (took_s := self._submit()):
            self.slots.saturated()
            self.slots.release()
            await self.slots.acquire(order)
        await self._watch(took_s)
        self.slots.release()

    async def _watch(self, took_s: float) -> None:
        """Poll a task on the run's schedule until its end is seen."""
        begun, age_s = self._loop.time(), 0.0
        while age_s < took_s:
            is_urgent = self.slots.is_waited_for
            wait_s = next_poll(
                age_s,
                poll_interval_s=POLL_INTERVAL_S,
                history=self._history,
                rng=self._dice,
                worth=SLOT_WORTH if is_urgent else 1.0,
            )
            await asyncio.sleep(wait_s)
            self.polls += 1
            age_s = self._loop.time() - begun
        self._history.add(took_s)

    def _submit(self) -> float:
        now = self._loop.time()
        self._ends = [end for end in self._ends if end > now]
        if len(self._ends) >= self._cap:
            if now < self._ends_at:
                self.refused[int(now / HOUR_S)] += 1
            return 0.0
        took_s = MEDIAN_S * self._dice.lognormvariate(0.0, SPREAD)
        self._ends.append(now + took_s)
        self.tasks += 1
        self.used_s += max(0.0, min(took_s, self._ends_at - now))
        return took_s


def main(cap: int, most: int, hours: int) -> None:
    """Simulate the hours and print their figures."""
    loop = _Loop()
    night = _Night(loop, cap, most, hours)
    loop.run_until_complete(night.run())
    loop.close()
    share = night.used_s / (cap * hours * HOUR_S)
    polls = night.polls / night.tasks
    print(json.dumps({"refused": night.refused, "share": share, "polls": polls}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
