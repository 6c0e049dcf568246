"""Sleeping: exact by itself, by ticks in a crowd, and never too short."""

from __future__ import annotations

import asyncio
import random

from virtual_time import VirtualLoop, run

from batch.waker import TICK_S, TICKS_FROM_S, Waker, sleep


def woken_at(lengths: list[float], *, by_ticks: bool) -> list[float]:
    """Sleep for each of *lengths* at once; return when each ended."""

    async def main(loop: VirtualLoop) -> list[float]:
        async def nap(seconds: float) -> float:
            assert not await sleep(seconds, Waker(), by_ticks=by_ticks)
            return loop.time()

        return await asyncio.gather(*map(nap, lengths))

    return run(main)


def test_a_crowd_wakes_by_ticks_never_early() -> None:
    rng = random.Random(7)
    lengths = [4.0 + rng.random() for _ in range(500)]

    ends = woken_at(lengths, by_ticks=True)

    assert all(0 <= end - length < 1.1 * TICK_S for length, end in zip(lengths, ends, strict=True))
    assert len({round(end / TICK_S) for end in ends}) <= 1 / TICK_S + 2
    assert all(abs(end / TICK_S - round(end / TICK_S)) < 0.05 for end in ends)


def test_a_short_sleep_by_ticks_is_exact() -> None:
    length = TICKS_FROM_S * 0.9 + 0.001
    assert abs(woken_at([length], by_ticks=True)[0] - length) < 1e-4


def test_a_sleep_on_its_own_is_exact() -> None:
    assert abs(woken_at([4.001], by_ticks=False)[0] - 4.001) < 1e-4


def test_a_waker_does_not_wait_for_a_tick() -> None:
    async def main(loop: VirtualLoop) -> float:
        waker = Waker()
        loop.call_later(1.001, waker.set)
        assert await sleep(4.0, waker, by_ticks=True)
        return loop.time()

    assert abs(run(main) - 1.001) < 1e-4
