"""The gate of a fleet: one doorkeeper for each run and worker asks for all jobs that wait.

    while jobs wait:
        those that hold a slot already, then the lowest in the manifest
        ask the desk        one transaction: claims, stop, budget, slots, turns, intents
        admitted            its POST may go out at its turn, for ten seconds from before the question
        not now             sleep until then, or until a slot of the account is free
        denied              the run stops for that reason, or leaves the job
        no answer           sleep, and ask the same again

A slot is a column of the attempt: it is taken with the intent, and the commit that ends the task frees
it, so that no death leaves one behind.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from batch import events
from batch.attempt import Attempt
from batch.errors import AwayError, BatchError
from batch.frozen import frozen
from batch.manifest.limits import Limits
from batch.output.fleet import CLAIM, Claim
from batch.provider.answers import Saturated, Throttled, Unsent
from batch.run.account import Traffic
from batch.run.admission import Deny, Wait
from batch.run.context import RunContext
from batch.run.gate import ARRIVES_WITHIN_S, SEND_WITHIN_S, IsTooLate, waits
from batch.waker import Waker, sleep

ASK_AGAIN_S = 5.0  # for a slot, where nobody says that one is free
AWAY_S = 1.0  # until a desk that did not answer is asked again
JITTER_S = 0.03  # a free slot wakes the doorkeepers of all workers
MOST_ASKED = 50  # for whom the desk is asked at once


@frozen
class Request:
    """An attempt that is to be sent, under which claim, and for how long it may hold a slot."""

    attempt: Attempt
    claim: Claim | None
    slot_s: float


@frozen
class Admitted:
    """The attempt is intended, on disk, and its turn is in *in_s* seconds.

    *refusals* the account has had in a row; the next turn is due in *next_s* at the earliest.
    """

    attempt: Attempt
    refusals: int
    next_s: float
    in_s: float = 0.0


Answer = Admitted | Wait | Deny
Learn = Callable[[Traffic, float, int], Traffic]
"""What becomes of an account's traffic, at a moment, beside so many slots that others hold."""


class Desk(Protocol):
    """Where slots, turns and budgets of an account are kept. Every call may be repeated.

    Each may raise AwayError, where it does not answer and may have done it all the same, or
    ClaimLostError, where the claim that it names is not the newest.
    """

    async def ask(self, requests: Sequence[Request], limits: Limits) -> list[Answer]:
        """Judge requests (`batch.run.admission`) and keep what follows, in one transaction.

        The answers end with the first that is not admitted. Where the claim of one of them is lost,
        nothing is kept of any.
        """
        ...

    async def occupy(self, request: Request) -> None:
        """Let an attempt hold a slot, whatever the limit says."""
        ...

    async def free(self, request: Request) -> None:
        """Take the slot of an attempt away."""
        ...

    async def learn(self, external_task_id: str, rule: Learn) -> None:
        """Apply a rule to the account, beside the slots of others than this attempt."""
        ...


class FleetGate:
    """The gate of one run in one worker. *news* is set when a slot of the account may be free."""

    def __init__(
        self, context: RunContext, desk: Desk, news: Waker, is_too_late: IsTooLate
    ) -> None:
        self.context = context
        self.desk = desk
        self._news = news
        self._is_too_late = is_too_late
        self._waiting: list[tuple[bool, int, int, _Waiter]] = []
        self._count = itertools.count()
        self._keeper: asyncio.Task[None] | None = None
        self._waits_for_slot = False
        self._most_asked = 1

    @property
    def is_waited_for(self) -> bool:
        return self._waits_for_slot and bool(self._waiting)

    async def enter(self, order: int) -> FleetTicket:
        return FleetTicket(self, order)

    async def occupy(self, order: int, attempt: Attempt) -> FleetTicket:
        ticket = FleetTicket(self, order, holder=attempt)
        await self.insist(lambda: self.desk.occupy(self.request(attempt)))
        return ticket

    def request(self, attempt: Attempt) -> Request:
        """Return what the desk is to know of an attempt of the current task's claim."""
        limits = self.context.limits
        slot_s = ARRIVES_WITHIN_S + limits.request_timeout_s + limits.task_timeout_s
        return Request(attempt, CLAIM.get(), slot_s)

    async def admit(
        self, attempt: Attempt, order: int, *, is_held: bool
    ) -> tuple[Admitted, float] | None:
        """Wait until an attempt is intended; return until when it may be sent (monotonic), too."""
        answer: asyncio.Future[tuple[Admitted, float] | None]
        answer = asyncio.get_running_loop().create_future()
        waiter = _Waiter(self.request(attempt), answer)
        heapq.heappush(self._waiting, (not is_held, order, next(self._count), waiter))
        if is_held:
            self._news.set()  # it needs no slot, unlike the one that is waited for now
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="doorkeeper")
        try:
            return await answer
        finally:
            if answer.cancelled():
                self._news.set()

    async def insist(self, call: Callable[[], Awaitable[None]]) -> None:
        """Ask the desk until it answers, unless the run is left meanwhile."""
        while True:
            with suppress(AwayError):
                return await call()
            if await sleep(AWAY_S, self.context.stop.leaving):
                return None

    # -- the doorkeeper

    async def _keep(self) -> None:
        try:
            while waiters := self._next():
                await self._serve(waiters)
                self._waiting = [item for item in self._waiting if not item[3].answer.done()]
                heapq.heapify(self._waiting)
        except Exception as error:  # noqa: BLE001 - a bug of ours, told by every job that waits
            waiting, self._waiting = self._waiting, []
            for *_, waiter in waiting:
                waiter.fail(error)

    def _next(self) -> list[_Waiter]:
        """Return for whom to ask next: for a doubted attempt, of which something is known, alone."""
        first = [waiter for *_, waiter in heapq.nsmallest(self._most_asked, self._waiting)]
        new = itertools.takewhile(lambda waiter: waiter.request.attempt.doubt is None, first)
        return list(new) or first[:1]

    async def _serve(self, waiters: list[_Waiter]) -> None:
        """Ask for some jobs, and tell those that have an answer."""
        context, clock = self.context, self.context.clock
        for waiter in waiters:
            if context.stop.feeding.is_set() or self._is_too_late(waiter.request.attempt.request):
                waiter.tell(None)
        asking = [waiter for waiter in waiters if not waiter.answer.done()]
        if not asking:
            return
        self._news.clear()
        not_after = clock.monotonic() + SEND_WITHIN_S
        try:
            found = await self.desk.ask([waiter.request for waiter in asking], context.limits)
        except AwayError:
            await sleep(AWAY_S, context.stop.feeding)
            return
        except BatchError as error:
            if len(asking) == 1:
                asking[0].fail(error)
            self._most_asked = 1  # to find out whose it is
            return
        admitted = sum(isinstance(answer, Admitted) for answer in found)
        self._most_asked = min(2 * admitted + 1, MOST_ASKED)
        answered_at = clock.monotonic()
        for waiter, answer in zip(asking, found, strict=False):
            await self._tell(waiter, answer, not_after, answered_at)
        if isinstance(found[-1], Admitted) and len(self._waiting) > len(asking):
            await self._until(answered_at + found[-1].next_s)

    async def _tell(
        self, waiter: _Waiter, answer: Answer, not_after: float, answered_at: float
    ) -> None:
        match answer:
            case Admitted():
                self._waits_for_slot = False
                await self._until(answered_at + answer.in_s)
                # Nothing was sent by an intent whose record took too long: it is renewed.
                if self.context.clock.monotonic() <= not_after:
                    waiter.tell((answer, not_after))
            case Deny():
                self.context.stop.ask(answer.reason, answer.sentence)
                waiter.tell(None)
            case Wait():
                await self._sleep(answer, answered_at)

    async def _until(self, moment: float) -> None:
        left_s = moment - self.context.clock.monotonic()
        if left_s > 0:
            await sleep(left_s, self.context.stop.feeding)

    async def _sleep(self, wait: Wait, answered_at: float) -> None:
        context = self.context
        self._waits_for_slot = wait.for_slot
        most_s = ASK_AGAIN_S * (1.0 - context.dice.random() / 2)
        wait_s = most_s if wait.for_s is None else min(wait.for_s, most_s)
        wait_s -= context.clock.monotonic() - answered_at
        if await sleep(wait_s, context.stop.feeding, self._news) and wait.for_slot:
            await sleep(context.dice.random() * JITTER_S, context.stop.feeding)


@frozen
class _Waiter:
    """A job at the gate, and what it waits for: None tells it to leave."""

    request: Request
    answer: asyncio.Future[tuple[Admitted, float] | None]

    def tell(self, found: tuple[Admitted, float] | None) -> None:
        if not self.answer.done():  # cancelled: the next run looks up what is intended
            self.answer.set_result(found)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class FleetTicket:
    """A slot that is taken with the intent; *holder* is the attempt that has it."""

    def __init__(self, gate: FleetGate, order: int, holder: Attempt | None = None) -> None:
        self._gate = gate
        self._order = order
        self._holder = holder
        self._refusals = 0
        self.not_after = 0.0

    async def intend(self, attempt: Attempt) -> Attempt | None:
        is_held = self._holder is not None
        found = await self._gate.admit(attempt, self._order, is_held=is_held)
        if found is None:
            return None
        admitted, self.not_after = found
        self._holder, self._refusals = admitted.attempt, admitted.refusals
        return admitted.attempt

    async def accepted(self) -> None:
        if self._refusals:
            await self._learn(lambda traffic, _now, _others: traffic.accepted())

    async def refused(self, job_id: str, answer: Throttled | Saturated | Unsent) -> None:
        context, told_s = self._gate.context, 0.0

        def rule(traffic: Traffic, now: float, others: int) -> Traffic:
            nonlocal told_s
            told_s, asked_s = waits(context, traffic.refusals, answer)
            accepted = others if isinstance(answer, Saturated) else None
            return traffic.refused(now, wait_s=told_s, asked_s=asked_s, accepted=accepted)

        await self._learn(rule)
        context.notify(events.Delayed(job_id, answer.failure, told_s))
        if isinstance(answer, Saturated):
            await self.requeue()

    async def requeue(self) -> None:
        holder, self._holder = self._holder, None
        if holder is not None:
            gate, request = self._gate, self._gate.request(holder)
            await gate.insist(lambda: gate.desk.free(request))

    def leave(self) -> None:
        """Do nothing: the commit that ends the task frees its slot."""

    async def _learn(self, rule: Learn) -> None:
        name = "" if self._holder is None else self._holder.external_task_id
        await self._gate.insist(lambda: self._gate.desk.learn(name, rule))
