"""The only place that sleeps, and what ends a sleep early."""

from __future__ import annotations

import asyncio
import math

TICK_S = 0.02  # what a crowd is woken by; a wake costs more than what most sleepers then do
TICKS_FROM_S = 0.25  # shorter sleeps are exact


class Waker:
    """A switch that ends sleeps early. Once set it stays set, until `clear`."""

    def __init__(self) -> None:
        self._is_set = False
        # In the order in which they came: the same run wakes them in the same order.
        self._sleepers: dict[asyncio.Future[None], None] = {}

    def is_set(self) -> bool:
        """Tell whether sleeps on this waker end at once."""
        return self._is_set

    def set(self) -> None:
        """End all sleeps on this waker, now and later."""
        self._is_set = True
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    def clear(self) -> None:
        """Let later sleeps last again."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until set."""
        await sleep(None, self)

    def attach(self, sleeper: asyncio.Future[None]) -> None:
        """Have *sleeper* resolved when this waker is set."""
        self._sleepers[sleeper] = None

    def detach(self, sleeper: asyncio.Future[None]) -> None:
        """Forget *sleeper*."""
        self._sleepers.pop(sleeper, None)


async def sleep(seconds: float | None, *wakers: Waker, by_ticks: bool = False) -> bool:
    """Wait *seconds* (None: for ever), or until one of *wakers* is set. True if one was.

    One future and one timer, no tasks: ten thousand of these at once are the normal case. *by_ticks*
    is for such a crowd: who would be woken within the same `TICK_S` is woken at its end, together.
    """
    if any(map(Waker.is_set, wakers)):
        return True
    loop = asyncio.get_running_loop()
    sleeper: asyncio.Future[None] = loop.create_future()
    timer = None
    if seconds is not None:
        wake_at = loop.time() + max(seconds, 0.0)
        if by_ticks and seconds >= TICKS_FROM_S:
            wake_at = math.ceil(wake_at / TICK_S) * TICK_S
        timer = loop.call_at(wake_at, _wake, sleeper)
    for waker in wakers:
        waker.attach(sleeper)
    try:
        await sleeper
    finally:
        if timer is not None:
            timer.cancel()
        for waker in wakers:
            waker.detach(sleeper)
    return any(map(Waker.is_set, wakers))


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
