"""The slots of a run: how many tasks may be open at the provider."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from batch.clock import Clock
from batch.run.account import Traffic
from batch.run.share import Share
from batch.waker import Waker

ASK_AGAIN_S = 0.1


class Slots:
    """How many tasks may be open at the provider: a ceiling of ours, and a limit that it teaches.

    The rules of the limit are those of `Traffic`. Waiters get slots in the order of their job in the
    manifest.

    *share* is what the account's other runs on this machine leave. A slot that they hold is asked
    for again every `ASK_AGAIN_S`, and no longer once the run has set *stop*: then nothing is
    submitted in it.
    """

    def __init__(self, ceiling: int, *, clock: Clock, share: Share, stop: Waker) -> None:
        self._ceiling = ceiling
        self._clock = clock
        self._share = share
        self._stop = stop
        self._asks_again: asyncio.TimerHandle | None = None
        self.traffic = Traffic(ceiling)
        self.in_use = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    @property
    def limit(self) -> int:
        """How many may be taken now."""
        return self.traffic.limit

    @property
    def is_waited_for(self) -> bool:
        """Whether a job waits for a slot."""
        return bool(self._waiting)

    def occupy(self) -> None:
        """Take a slot for a task that is open already, whatever the limit says."""
        self.in_use += 1
        self._share.hold(self.in_use)

    async def acquire(self, order: int) -> None:
        """Wait for a slot; the lowest *order* comes first."""
        if not self._waiting and self._take():
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
        self.in_use -= 1
        if not self._grant():
            self._share.hold(self.in_use)

    def learn(self, traffic: Traffic) -> None:
        """Go by *traffic* from now on."""
        self.traffic = traffic
        self._watch()

    def _take(self) -> bool:
        if self.in_use >= self.limit:
            return False
        if self._stop.is_set() or self._share.take(self.in_use):
            self.in_use += 1
            return True
        if self._asks_again is None:
            self._asks_again = asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._ask_again)
        return False

    def _ask_again(self) -> None:
        self._asks_again = None
        self._grant()

    def _grant(self) -> bool:
        """Give slots to those who wait; return whether the share was asked, and knows them all."""
        is_told = False
        while self._waiting and self.in_use < self.limit:
            granted = self._waiting[0][2]
            if not granted.done():
                is_told = True
                if not self._take():
                    break
                granted.set_result(None)
            heapq.heappop(self._waiting)
        return is_told

    def _watch(self) -> None:
        """Have the limit rise when it is time, while a job waits for it."""
        if self.limit >= self._ceiling or not self._waiting:
            return
        delay = max(0.0, self.traffic.raise_at - self._clock.monotonic())
        asyncio.get_running_loop().call_later(delay, self._rise)

    def _rise(self) -> None:
        if not self._waiting:
            return
        risen = self.traffic.risen(self.in_use, self._ceiling, self._clock.monotonic())
        if risen != self.traffic:
            self.traffic = risen
            self._grant()
            self._watch()
