"""The machines of a simulated fleet, all in one virtual loop: each may die or fall asleep at any step.

What a dead machine still does has no effect: each of its steps waits for ever. An asleep one goes on
when it wakes up, as if nothing had happened. Its way to the shared records is slow, may be cut, and may
lose an answer, after which the same is done again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from memory_fleet import FencedState, MemoryDesk, MemoryFleet
from mortal import Died, Life
from virtual_time import VirtualLoop

from batch.errors import AwayError
from batch.manifest.limits import Limits
from batch.output.state import Change
from batch.run.admission import Deny, Wait
from batch.run.doorkeeper import Admitted, Learn, Request

T = TypeVar("T")
AT_ONCE = frozenset({"submit: before sending"})
"""Steps within one call of the system: nothing sleeps between the last look at the clock and the POST."""


class Machine(Life):
    """One worker's process: it dies at step *dies_at*, and sleeps *nap_s* at step *naps_at*.

    Or the first time that it comes to a step of that name.
    """

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        rng: random.Random,
        *,
        dies_at: int | None = None,
        naps_at: int | str | None = None,
        nap_s: float = 0.0,
        cut: tuple[float, float] = (0.0, 0.0),
        loses: float = 0.0,
    ) -> None:
        super().__init__(dies_at)
        self.name, self.clock_loop, self.rng = name, loop, rng
        self.naps_at, self.nap_s, self.cut, self.loses = naps_at, nap_s, cut, loses
        self.napped_of: str | None = None
        self.asleep_until = 0.0

    async def reach(self, name: str) -> None:
        await super().reach(name)
        naps_at = self.naps_at
        is_time = naps_at == name if isinstance(naps_at, str) else self.count >= (naps_at or 1e9)
        if is_time and name not in AT_ONCE:
            self.naps_at, self.napped_of = None, name
            self.asleep_until = self.clock_loop.time() + self.nap_s
        while self.clock_loop.time() < self.asleep_until and name not in AT_ONCE:
            await asyncio.sleep(self.asleep_until - self.clock_loop.time())
            if self.is_dead:
                await super().reach(name)

    @property
    def is_cut_off(self) -> bool:
        """Whether it cannot reach the shared records now."""
        return self.cut[0] <= self.clock_loop.time() < self.cut[1]

    async def call(self, name: str, work: Callable[[], Awaitable[T]], *, once: bool = False) -> T:
        """Return what *work* at the shared records does: at least once, and after a while.

        Raises:
            AwayError: *once*, and no answer came.
        """
        await self.reach(f"{name}: before")
        while self.is_cut_off:
            if once:
                await asyncio.sleep(self.rng.random())
                raise AwayError("no answer")
            await asyncio.sleep(1.0)
        await asyncio.sleep(self.rng.random() * 0.02)
        await self.reach(f"{name}: asked")
        found = await work()
        if self.rng.random() < self.loses:
            await asyncio.sleep(self.rng.random() * 2.0)
            await self.reach(f"{name}: answer lost")
            if once:
                raise AwayError("no answer")
            found = await work()
        await self.reach(f"{name}: answered")
        return found


class MachineDisk(Executor):
    """Does blocking work on the loop, slightly later; a machine that is asleep does it when awake."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        loop = self._machine.clock_loop

        def work() -> None:
            if loop.time() < self._machine.asleep_until:
                loop.call_at(self._machine.asleep_until, work)
                return
            try:
                self._machine.point("disk: before")
                result = fn(*args, **kwargs)
                self._machine.point("disk: after")
            except Died:
                return
            except Exception as error:  # noqa: BLE001 - handed on, as a pool does
                future.set_exception(error)
            else:
                future.set_result(result)

        loop.call_later(self._machine.rng.choice((0.0, 0.001, 0.05, 0.4)), work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing waits here."""


class RemoteState:
    """A library's state as one machine sees it. A commit that has begun is not cancelled."""

    def __init__(self, machine: Machine, state: FencedState) -> None:
        self._machine, self._state = machine, state
        self._last: asyncio.Task[None] | None = None

    async def commit(self, *changes: Change) -> None:
        before = self._last

        async def work() -> None:
            if before is not None:
                await asyncio.wait([before])
            await self._machine.call("commit", lambda: self._state.commit(*changes))

        self._last = asyncio.create_task(work())
        self._last.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._last)

    def __getattr__(self, name: str) -> Any:
        read = getattr(self._state, name)

        async def remote(*args: Any, **kwargs: Any) -> Any:
            return await self._machine.call("read", lambda: read(*args, **kwargs))

        return remote


class RemoteDesk:
    """The desk of the gate as one machine sees it."""

    def __init__(self, machine: Machine, desk: MemoryDesk) -> None:
        self._machine, self._desk = machine, desk

    async def ask(
        self, requests: Sequence[Request], limits: Limits
    ) -> list[Admitted | Wait | Deny]:
        return await self._machine.call("ask", lambda: self._desk.ask(requests, limits), once=True)

    async def occupy(self, request: Request) -> None:
        await self._machine.call("occupy", lambda: self._desk.occupy(request), once=True)

    async def free(self, request: Request) -> None:
        await self._machine.call("free", lambda: self._desk.free(request), once=True)

    async def learn(self, external_task_id: str, rule: Learn) -> None:
        name = external_task_id
        await self._machine.call("learn", lambda: self._desk.learn(name, rule), once=True)


class RemoteFleet:
    """The shared records as one machine sees them."""

    def __init__(self, machine: Machine, fleet: MemoryFleet) -> None:
        self._machine, self._fleet = machine, fleet

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._fleet, name)

        async def remote(*args: Any, **kwargs: Any) -> Any:
            return await self._machine.call(name, lambda: call(*args, **kwargs))

        return remote
