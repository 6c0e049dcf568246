"""An event loop in virtual time, a clock that reads it, a rate limit and an executor on it.

No sockets, no threads, no waiting: when nothing is ready, time jumps to the next timer. Futures and
tasks hash by the order of creation, so that sets of them iterate in the same order in every run:
the same seed is the same night.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = 1_790_000_000.0
STEP_S = 1e-6  # per turn of the loop: time never stands still


class DeadlockError(RuntimeError):
    """Nothing is ready and no timer is set: the program would wait for ever."""


class _NumberedFuture(asyncio.Future[Any]):
    def __init__(self, *, loop: VirtualLoop) -> None:
        self._number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _NumberedTask(asyncio.Task[Any]):
    def __init__(self, coro: Any, *, loop: VirtualLoop, **kwargs: Any) -> None:
        self._number = loop.next_number()
        super().__init__(coro, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _Timeline:
    """Replaces the loop's selector; no event ever comes from outside."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("nothing is ready and no timer runs")
        self._loop.jump(max(timeout, STEP_S))
        return []

    def close(self) -> None:
        """Nothing to close."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs until nothing is left to do, as fast as it can. *start* and times in seconds."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._numbers = 0
        super().__init__()
        self._selector = _Timeline(self)
        self._clock_resolution = 1e-9
        self.naps: list[tuple[float, float]] = []  # (from when, how long) the machine is asleep
        self.napped: list[float] = []
        self.set_task_factory(lambda loop, coro, **kw: _NumberedTask(coro, loop=self, **kw))

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass, including any nap that begins meanwhile."""
        self._now += seconds
        while self.naps and self.naps[0][0] <= self._now:
            at, length = self.naps.pop(0)
            self._now = max(self._now, at + length)
            self.napped.append(self._now)

    def next_number(self) -> int:
        """Return the number of futures created before."""
        self._numbers += 1
        return self._numbers

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future that hashes by its number."""
        return _NumberedFuture(loop=self)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As the base does, but for threads of nobody's: what they would do is done at once."""
        return super().run_in_executor(executor or InlineExecutor(), func, *args)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nothing sleeps that could be woken."""


class VirtualClock:
    """The two clocks of a run; the wall clock can be wrong by *offset* seconds."""

    def __init__(self, loop: VirtualLoop, *, offset: float = 0.0, boot: float = 0.0) -> None:
        self._loop = loop
        self.offset = offset
        self._boot = boot

    def now(self) -> float:
        """Wall-clock time."""
        return EPOCH + self._loop.time() + self.offset

    def monotonic(self) -> float:
        """Seconds since boot; the zero differs in every run, so that storing it shows."""
        return self._loop.time() - self._boot


class VirtualWindow:
    """What `batch.run.pacer.window_guard` returns, in virtual time: a sliding window."""

    def __init__(self, clock: VirtualClock, count: float, per_second: float) -> None:
        scale = max(1.0, 1.0 / count)
        self._limit = int(count * scale)
        self._period_s = self._limit / per_second
        self._clock = clock
        self._times: deque[float] = deque()

    async def __aenter__(self) -> None:
        while True:
            now = self._clock.monotonic()
            while self._times and now - self._times[0] > self._period_s:
                self._times.popleft()
            if len(self._times) < self._limit:
                self._times.append(now)
                return
            await asyncio.sleep(self._times[0] + self._period_s - now + 0.002)

    async def __aexit__(self, *_exc: object) -> None:
        return None


class InlineExecutor(Executor):
    """Does work at once in the caller's thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Return a completed future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed on, as a pool does
            future.set_exception(error)
        return future


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main(loop)` on a fresh loop from time 0, and return its result."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()
