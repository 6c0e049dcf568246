"""The pace of requests: when the next one may go out.

asyncio-throttle guarantees that no window of time sees more requests than the rate allows. It is
asked by one caller at a time, at moments that are already spread evenly: with many waiters it burns
a core, and with `period = 1 / rate` it loses most of the rate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from asyncio_throttle.throttler import Throttler

from batch.clock import Clock
from batch.manifest.limits import Rate
from batch.run.account import due_now
from batch.run.share import Share
from batch.waker import Waker, sleep

GUARD_RETRY_INTERVAL_S = 0.002

Guard = AbstractAsyncContextManager[None] | Throttler


def window_guard(rate: Rate) -> Throttler:
    """Return the guard of the window, scaled so that at least one request fits into it.

    A Throttler with a limit below 1 would wait for ever.
    """
    scale = max(1.0, 1.0 / rate.count)
    limit = int(rate.count * scale)
    return Throttler(
        rate_limit=limit,
        period=limit / rate.per_second,
        retry_interval=GUARD_RETRY_INTERVAL_S,
    )


class Pacer:
    """Lets one request after another through, evenly, never more than the rate in any window.

    What a busy event loop has missed follows at once, as far as `due_now` and the window allow.
    """

    def __init__(self, rate: Rate, *, clock: Clock, guard: Guard, share: Share) -> None:
        self._interval_s = 1.0 / rate.per_second
        self._clock = clock
        self._guard = guard
        self._door = asyncio.Lock()
        self._due = clock.monotonic()
        self._share = share

    async def turn(self, stop: Waker, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the turn of one request. False: *stop* came first, or *unless* holds by then."""
        async with self._door:
            due = None if unless() else await self._due_turn(stop)
            if due is None or unless():
                return False
            async with self._guard:
                pass
            now = self._clock.monotonic()
            self._due = due_now(due, now) + self._interval_s
            return not stop.is_set()

    async def _due_turn(self, stop: Waker) -> float | None:
        """Wait for this run's turn, then for the account's; return when it was due."""
        if not await self._sleep_until(self._due, stop):
            return None
        while True:
            due = self._share.turn()
            if due <= self._clock.monotonic():
                return max(due, self._due)
            if not await self._sleep_until(due, stop):
                return None
            if not self.is_paused:
                return due

    async def _sleep_until(self, due: float, stop: Waker) -> bool:
        wait_s = due - self._clock.monotonic()
        return wait_s <= 0 or not await sleep(wait_s, stop)

    @property
    def is_paused(self) -> bool:
        """Whether the provider's wish for silence still lasts."""
        return self._clock.monotonic() < self.paused_until

    @property
    def paused_until(self) -> float:
        """Until when no request may go out."""
        return self._share.paused_until

    def pause(self, seconds: float) -> None:
        """Let no request through for so long; the provider has asked for it."""
        self._share.pause(self._clock.monotonic() + seconds)
