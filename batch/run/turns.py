"""So many polls are under way at once; the others wait for their turn and hold no connection.

A poll is short: a few hundred connections are enough for tens of thousands of tasks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batch.waker import Waker, sleep

POLLS_AT_ONCE = 500  # some 1,500 polls a second, more than one event loop can do


class Turns:
    """Turns for at most *most* at once, in the order of asking."""

    def __init__(self, most: int = POLLS_AT_ONCE) -> None:
        self._left = most
        self._queue: dict[Waker, None] = {}

    @asynccontextmanager
    async def turn(self, *urgent: Waker) -> AsyncIterator[None]:
        """Wait for a turn, but no longer than until one of *urgent* is set; have it for the block."""
        if self._left <= 0:
            await self._wait(*urgent)
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1
            self._call_next()

    async def _wait(self, *urgent: Waker) -> None:
        called = Waker()
        self._queue[called] = None
        try:
            await sleep(None, called, *urgent)
        except BaseException:
            self._queue.pop(called, None)
            self._call_next()  # it may have been called, and does not come
            raise
        self._queue.pop(called, None)

    def _call_next(self) -> None:
        if self._left > 0 and self._queue:
            called = next(iter(self._queue))
            del self._queue[called]
            called.set()
