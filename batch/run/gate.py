"""The gate to everything that is paid for: how many tasks may be open, and when a request may go out.

    ticket = await gate.enter(order)             a slot
    attempt = await ticket.intend(attempt)       the turn, and the intent on disk
    … the POST …
    await ticket.refused(…) | ticket.accepted()  the provider teaches rate and slots
    ticket.leave()                               the slot is free

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

from batch import events
from batch.attempt import Attempt
from batch.clock import Clock
from batch.manifest.limits import Rate
from batch.output.state import Put, State
from batch.provider.answers import Saturated, Throttled, Unsent
from batch.provider.protocol import DELIVERED_WITHIN_S
from batch.run.backoff import delay
from batch.run.context import RunContext
from batch.waker import Waker, sleep

SEND_WITHIN_S = 10.0  # money rule 7: an intent older than this is looked up, not sent
ARRIVES_WITHIN_S = SEND_WITHIN_S + DELIVERED_WITHIN_S + 2.0  # and a margin
REFUSAL_BASE_S = 1.0
REFUSAL_CAP_S = 60.0
GUARD_RETRY_INTERVAL_S = 0.002
LATE_S = 0.05  # how late a turn may come, of a busy event loop, without the next being later for it


Guard = AbstractAsyncContextManager[None] | Throttler


def still_on_its_way(since: float, now: float) -> float:
    """Return for how many more seconds a request of that intent may arrive (money rule 7).

    The process that intended it may be asleep, not dead, and what it has sent may be on its way
    after its death. Both are wall-clock times, which may jump: the answer is never more than a
    request may take to arrive.
    """
    return min(max(since + ARRIVES_WITHIN_S - now, 0.0), ARRIVES_WITHIN_S)


class Gate:
    """Lets attempts in: slots in the order of the manifest, requests at the rate."""

    def __init__(self, context: RunContext, state: State, guard: Guard | None = None) -> None:
        self.context = context
        self.state = state
        self.pacer = Pacer(context.limits.submit_rate, clock=context.clock, guard=guard)
        self.slots = Slots(context.limits.max_in_flight, clock=context.clock)
        self.refusals = 0  # in a row, of the whole run: they say how the account is

    @property
    def is_waited_for(self) -> bool:
        """Whether a job waits for a slot."""
        return self.slots.is_waited_for

    async def enter(self, order: int) -> Ticket:
        """Wait for a slot; the lowest *order* comes first."""
        await self.slots.acquire(order)
        return Ticket(self, order)

    def occupy(self, order: int) -> Ticket:
        """Take a slot for a task that is (or may be) open already, whatever the limit says."""
        self.slots.occupy()
        return Ticket(self, order)


class Ticket:
    """A slot that an attempt holds until it leaves.

    *not_after* (monotonic) is when the request of the last intent may go out at the latest.
    """

    def __init__(self, gate: Gate, order: int) -> None:
        self._gate = gate
        self._order = order
        self._is_held = True
        self.not_after = 0.0

    async def intend(self, attempt: Attempt) -> Attempt | None:
        """Wait for the turn of one request, and put its intent on disk.

        None, and nothing on disk, when the run stops submitting before. An intent that has waited
        too long for the disk (another program held the lock) is renewed: nothing was sent by it.
        """
        context, intended = self._gate.context, None
        while await self._gate.pacer.turn(context.stop.feeding):
            self.not_after = context.clock.monotonic() + SEND_WITHIN_S
            intended = (intended or attempt).intended(context.clock.now())
            await self._gate.state.commit(Put(intended))
            if context.clock.monotonic() <= self.not_after:
                break
        return intended

    def accepted(self) -> None:
        """Record that the provider has taken a request."""
        self._gate.refusals = 0

    async def refused(self, job_id: str, answer: Throttled | Saturated | Unsent) -> None:
        """Wait until a request that surely created nothing may be worth another try."""
        gate, context = self._gate, self._gate.context
        asked_s = None if isinstance(answer, Unsent) else answer.retry_after_s
        if asked_s is not None:  # no pause keeps the run waiting longer than for a task
            asked_s = min(asked_s, context.limits.task_timeout_s)
        wait_s = delay(
            gate.refusals + 1,
            asked_s,
            base_s=REFUSAL_BASE_S,
            cap_s=REFUSAL_CAP_S,
            rng=context.dice,
        )
        context.notify(events.Delayed(job_id, answer.failure, wait_s))
        if not gate.pacer.is_paused:  # requests refused at the same time are one refusal
            gate.refusals += 1
            # Saturated once, the end of a task of ours frees a slot. Again, and nothing was taken
            # in between: others fill the account, and only time helps.
            if isinstance(answer, Saturated) and gate.refusals > 1:
                gate.pacer.pause(wait_s)
        if not isinstance(answer, Saturated):
            gate.pacer.pause(wait_s)
            return
        if asked_s is not None:
            gate.pacer.pause(asked_s)
        gate.slots.saturated()
        await self.requeue()

    async def requeue(self) -> None:
        """Give the slot back, and wait for one like every other job."""
        self.leave()
        await self._gate.slots.acquire(self._order)
        self._is_held = True

    def leave(self) -> None:
        """Give the slot back, unless a wait for the next one was cancelled."""
        if self._is_held:
            self._is_held = False
            self._gate.slots.release()


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
        guard: Guard | None = None,
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
        """Let no request through for so long; the provider has asked for it."""
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
        """Whether a job waits for a slot."""
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
        """Have the limit rise when it is time, while a job waits for it."""
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
