"""One door for everything that is paid for: when a request may go out, and how many tasks may be open.

asyncio-throttle guarantees that no window of time sees more requests than the rate allows. It is
asked by one caller at a time, at moments that are already spread evenly: with many waiters it burns
a core, and with `period = 1 / rate` it loses most of the rate.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import AbstractAsyncContextManager, nullcontext

from asyncio_throttle.throttler import Throttler

from batch.clock import Clock
from batch.manifest.schema import Rate
from batch.waker import Waker, sleep

GUARD_RETRY_INTERVAL_S = 0.002
LATE_S = 0.05  # how late a turn may come, of a busy event loop, without the next being later for it


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
    """Lets one request after another through, evenly, never more than the rate in any window."""

    def __init__(
        self,
        rate: Rate,
        *,
        clock: Clock,
        guard: AbstractAsyncContextManager[None] | Throttler | None = None,
    ) -> None:
        self._interval_s = 1.0 / rate.per_second
        self._clock = clock
        self._guard = nullcontext() if guard is None else guard
        self._door = asyncio.Lock()
        self._due = clock.monotonic()
        self._paused_until = self._due

    async def turn(self, stop: Waker) -> bool:
        """Wait for the turn of one request. False if *stop* came first: then there is none."""
        async with self._door:
            while True:
                due = max(self._due, self._paused_until)
                wait = due - self._clock.monotonic()
                if wait <= 0:
                    break
                if await sleep(wait, stop):
                    return False
            async with self._guard:
                pass
            # A turn that came a little late does not lower the rate; a silence saves up none.
            late_s = min(self._clock.monotonic() - due, self._interval_s, LATE_S)
            self._due = self._clock.monotonic() - late_s + self._interval_s
            return not stop.is_set()

    @property
    def is_paused(self) -> bool:
        """Whether the provider's wish for silence still lasts."""
        return self._clock.monotonic() < self._paused_until

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long; the provider has asked for it."""
        self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)


class Slots:
    """How many tasks may be open at the provider: a ceiling of ours, and a limit that it teaches.

    A refusal (1303) says what the provider takes: the limit falls to what was open at that moment.
    After a quiet while it rises by one, and only if it was really used; if that is refused again,
    the while doubles. Waiters get slots in the order of their job in the manifest.
    """

    QUIET_S = 60.0
    QUIET_MAX_S = 960.0

    def __init__(self, ceiling: int, *, clock: Clock) -> None:
        self._ceiling = ceiling
        self._clock = clock
        self._limit = ceiling
        self._quiet_s = self.QUIET_S
        self._raise_at = 0.0
        self._probing = False
        self._in_use = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    @property
    def in_use(self) -> int:
        """How many slots are taken."""
        return self._in_use

    @property
    def limit(self) -> int:
        """How many may be taken now."""
        return self._limit

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody could use a slot, had one been free."""
        return bool(self._waiting)

    def occupy(self) -> None:
        """Take a slot for a task that is open already, whatever the limit says."""
        self._in_use += 1

    async def acquire(self, order: int) -> None:
        """Wait for a slot; the lowest *order* comes first."""
        if not self._waiting and self._has_room():
            self._in_use += 1
            return
        granted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (order, next(self._count), granted))
        self._grant()
        self._watch()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back; the next waiter has it at once."""
        self._in_use -= 1
        self._grant()

    def saturated(self) -> None:
        """The provider has refused a task because too many are open. The caller holds a slot."""
        accepted = max(1, self._in_use - 1)
        if self._probing and accepted >= self._limit - 1:
            self._quiet_s = min(self._quiet_s * 2, self.QUIET_MAX_S)
        self._probing = False
        self._limit = max(1, min(self._limit, accepted))
        self._raise_at = self._clock.monotonic() + self._quiet_s
        self._watch()

    def _has_room(self) -> bool:
        return self._in_use < self._limit

    def _grant(self) -> None:
        while self._waiting and self._has_room():
            _, _, granted = heapq.heappop(self._waiting)
            if not granted.done():
                self._in_use += 1
                granted.set_result(None)

    def _watch(self) -> None:
        """Have the limit rise when it is time, while somebody waits for it."""
        if self._limit >= self._ceiling or not self._waiting:
            return
        delay = max(0.0, self._raise_at - self._clock.monotonic())
        asyncio.get_running_loop().call_later(delay, self._rise)

    def _rise(self) -> None:
        due = self._clock.monotonic() >= self._raise_at
        used = self._in_use >= self._limit and bool(self._waiting)
        if not due or not used or self._limit >= self._ceiling:
            return
        if self._probing:  # the last rise was used for a whole quiet while, and not refused
            self._quiet_s = self.QUIET_S
        self._limit += 1
        self._probing = True
        self._raise_at = self._clock.monotonic() + self._quiet_s
        self._grant()
        self._watch()
