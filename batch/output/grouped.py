"""Grouped work: what is asked for at nearly the same time is done in one hop to a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")


class Grouped(Generic[T]):
    """Hands items to *work*, many at a time: at once after a silence, in a crowd every *gap_s* seconds.

    *work* runs in a thread of *pool* and returns what went wrong with each item, None for nothing.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[Exception | None]],
        pool: Executor,
        gap_s: float,
    ) -> None:
        self._work = work
        self._pool = pool
        self._gap_s = gap_s
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._last_at = float("-inf")

    async def do(self, item: T) -> None:
        """Return when the work on *item* is done.

        It is done also if the caller is cancelled, once it has begun.

        Raises:
            Exception: what went wrong with this item, or with all that were done together.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((item, done))
        if len(self._waiting) == 1:
            gap_s = self._last_at + self._gap_s - loop.time()
            if gap_s > 0:
                loop.call_later(gap_s, self._begin, loop)
            else:
                self._begin(loop)
        await done

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the work on everything that waits begin."""
        group = [(item, done) for item, done in self._waiting if not done.done()]
        self._waiting = []
        if not group:
            return  # all of them were given up
        self._last_at = loop.time()
        work = loop.run_in_executor(self._pool, self._work, [item for item, _ in group])
        work.add_done_callback(lambda ended: _settle([done for _, done in group], ended))


def _settle(
    waiting: list[asyncio.Future[None]], ended: asyncio.Future[Sequence[Exception | None]]
) -> None:
    if ended.cancelled():
        for done in waiting:
            done.cancel()
        return
    failure = ended.exception()
    failures = ended.result() if failure is None else [failure] * len(waiting)
    for done, trouble in zip(waiting, failures, strict=True):
        if done.done():
            continue
        if trouble is None:
            done.set_result(None)
        else:
            done.set_exception(trouble)
