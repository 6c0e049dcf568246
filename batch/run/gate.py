"""The gate to everything that is paid for: how many tasks may be open, and when a request may go out.

    ticket = await gate.enter(order)             a slot
    attempt = await ticket.intend(attempt)       the turn, and the intent on disk
    … the POST …
    await ticket.refused(…) | accepted()  the provider teaches rate and slots
    ticket.leave()                               the slot is free

On one machine (`LocalGate`), rate and slots have a file each (`pacer`, `slots`); both ask the account's
`share`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from batch import events
from batch.attempt import Attempt
from batch.output.state import Put, State
from batch.provider.answers import Saturated, Throttled, Unsent
from batch.provider.protocol import DELIVERED_WITHIN_S
from batch.run.account import Traffic
from batch.run.backoff import delay
from batch.run.context import RunContext
from batch.run.pacer import Guard, Pacer
from batch.run.share import Alone, Share
from batch.run.slots import Slots
from batch.waker import Waker

SEND_WITHIN_S = 10.0  # money rule 7: an intent older than this is looked up, not sent
ARRIVES_WITHIN_S = SEND_WITHIN_S + DELIVERED_WITHIN_S + 2.0  # and a margin
REFUSAL_BASE_S = 1.0
REFUSAL_CAP_S = 60.0


def still_on_its_way(since: float, now: float) -> float:
    """Return for how many more seconds a request of that intent may arrive (money rule 7).

    The process that intended it may be asleep, not dead, and what it has sent may be on its way
    after its death. Both are wall-clock times, which may jump: the answer is never more than a
    request may take to arrive.
    """
    return min(max(since + ARRIVES_WITHIN_S - now, 0.0), ARRIVES_WITHIN_S)


def waits(
    context: RunContext, refusals: int, answer: Throttled | Saturated | Unsent
) -> tuple[float, float | None]:
    """Return how long to wait after one refusal more, and how long the provider has asked for."""
    asked_s = None if isinstance(answer, Unsent) else answer.retry_after_s
    if asked_s is not None:  # no pause keeps the run waiting longer than for a task
        asked_s = min(asked_s, context.limits.task_timeout_s)
    base_s, cap_s = REFUSAL_BASE_S, REFUSAL_CAP_S
    return delay(refusals + 1, asked_s, base_s=base_s, cap_s=cap_s, rng=context.dice), asked_s


class Ticket(Protocol):
    """A slot that an attempt holds until it leaves."""

    @property
    def not_after(self) -> float:
        """When the request of the last intent may go out at the latest (monotonic)."""
        ...

    async def intend(self, attempt: Attempt) -> Attempt | None:
        """Wait for the turn of one request, and put its intent on disk.

        None, and nothing on disk, when the run stops submitting before, or it is too late.
        """
        ...

    async def accepted(self) -> None:
        """Record that the provider has taken a request."""
        ...

    async def refused(self, job_id: str, answer: Throttled | Saturated | Unsent) -> None:
        """Wait until a request that surely created nothing may be worth another try."""
        ...

    async def requeue(self) -> None:
        """Give the slot back, and wait for one like every other job."""
        ...

    def leave(self) -> None:
        """Give the slot back, unless a wait for the next one was cancelled."""
        ...


class Gate(Protocol):
    """Lets attempts in: slots in the order of the manifest, requests at the rate."""

    @property
    def is_waited_for(self) -> bool:
        """Whether a job waits for a slot."""
        ...

    async def enter(self, order: int) -> Ticket:
        """Wait for a slot; the lowest *order* comes first."""
        ...

    async def occupy(self, order: int, attempt: Attempt) -> Ticket:
        """Take a slot for a task that is (or may be) open already, whatever the limit says."""
        ...


IsTooLate = Callable[[str], bool]
"""Tells of a request (canonical JSON) whether the last call for it has passed."""


class LocalGate:
    """The gate of one process.

    *share* is what the account's other runs on this machine leave; without it there are none.
    """

    def __init__(
        self,
        context: RunContext,
        state: State,
        guard: Guard,
        share: Share | None,
        is_too_late: IsTooLate,
    ) -> None:
        clock, limits = context.clock, context.limits
        share = share or Alone(clock)
        self.context = context
        self.state = state
        self.is_too_late = is_too_late
        self.pacer = Pacer(limits.submit_rate, clock=clock, guard=guard, share=share)
        stop = context.stop.feeding
        self.slots = Slots(limits.max_in_flight, clock=clock, share=share, stop=stop)
        self.sent = 0  # slots with a task at the provider, or on its way there

    @property
    def traffic(self) -> Traffic:
        """What is known of the account's traffic."""
        return replace(self.slots.traffic, paused_until=self.pacer.paused_until)

    def learn(self, traffic: Traffic) -> None:
        """Go by *traffic* from now on."""
        self.pacer.pause(traffic.paused_until - self.context.clock.monotonic())
        self.slots.learn(traffic)

    @property
    def is_waited_for(self) -> bool:
        return self.slots.is_waited_for

    @property
    def is_full(self) -> bool:
        """Whether the provider has as many tasks as it takes, by what it has taught."""
        return self.sent >= self.slots.limit

    async def enter(self, order: int) -> LocalTicket:
        await self.slots.acquire(order)
        return LocalTicket(self, order)

    async def occupy(self, order: int, _attempt: Attempt) -> LocalTicket:
        self.slots.occupy()
        ticket = LocalTicket(self, order)
        ticket.mark(is_sent=True)
        return ticket


class LocalTicket:
    """A slot of this process's gate."""

    def __init__(self, gate: LocalGate, order: int) -> None:
        self._gate = gate
        self._order = order
        self._is_held = True
        self._is_sent = False
        self.not_after = 0.0

    def mark(self, *, is_sent: bool) -> None:
        """Record whether the slot has a task at the provider, or on its way there."""
        self._gate.sent += is_sent - self._is_sent
        self._is_sent = is_sent

    async def intend(self, attempt: Attempt) -> Attempt | None:
        context, intended = self._gate.context, None
        # An intent that has waited too long for the disk (another program held the lock) is renewed:
        # nothing was sent by it.
        while await self._turn(context.stop.feeding):
            if intended is None and self._gate.is_too_late(attempt.request):
                return None
            self.not_after = context.clock.monotonic() + SEND_WITHIN_S
            intended = (intended or attempt).intended(context.clock.now())
            await self._gate.state.commit(Put(intended))
            if context.clock.monotonic() <= self.not_after:
                break
        return intended

    async def _turn(self, stop: Waker) -> bool:
        """Wait for a turn; while others wait for theirs, a refusal may take the slot away again."""
        gate = self._gate
        while not await gate.pacer.turn(stop, unless=self._is_over):
            if stop.is_set():
                return False
            await self.requeue()
        self.mark(is_sent=True)
        return True

    def _is_over(self) -> bool:
        return not self._is_sent and self._gate.is_full

    async def accepted(self) -> None:
        slots = self._gate.slots
        slots.traffic = slots.traffic.accepted()

    async def refused(self, job_id: str, answer: Throttled | Saturated | Unsent) -> None:
        gate, context = self._gate, self._gate.context
        wait_s, asked_s = waits(context, gate.traffic.refusals, answer)
        context.notify(events.Delayed(job_id, answer.failure, wait_s))
        self.mark(is_sent=False)
        accepted = gate.sent if isinstance(answer, Saturated) else None
        now = context.clock.monotonic()
        gate.learn(gate.traffic.refused(now, wait_s=wait_s, asked_s=asked_s, accepted=accepted))
        if accepted is not None:
            await self.requeue()

    async def requeue(self) -> None:
        self.leave()
        await self._gate.slots.acquire(self._order)
        self._is_held = True

    def leave(self) -> None:
        self.mark(is_sent=False)
        if self._is_held:
            self._is_held = False
            self._gate.slots.release()
