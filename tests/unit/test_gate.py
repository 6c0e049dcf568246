"""The gate: the rate is exact, the slots find what the provider takes, an intent is on disk."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from scripted import SAID, Stages, attempt, play
from virtual_time import EPOCH, VirtualClock, VirtualLoop, VirtualWindow, run

from batch.attempt import Doubt, Intended
from batch.manifest.limits import Rate
from batch.provider.answers import Saturated
from batch.run.account import QUIET_S
from batch.run.gate import SEND_WITHIN_S
from batch.run.pacer import Pacer, window_guard
from batch.run.schedule import SLOT_WORTH, History, next_poll
from batch.run.share import Alone
from batch.run.slots import Slots
from batch.run.stop import StopReason
from batch.waker import Waker

HOUR_S = 3600.0


def pacer_of(loop: VirtualLoop, rate: Rate) -> Pacer:
    clock = VirtualClock(loop)
    window = VirtualWindow(clock, rate.count, rate.per_second)
    return Pacer(rate, clock=clock, guard=window, share=Alone(clock))


def slots_of(loop: VirtualLoop, ceiling: int) -> Slots:
    clock = VirtualClock(loop)
    return Slots(ceiling, clock=clock, share=Alone(clock), stop=Waker())


def refuse(slots: Slots) -> None:
    """Have the provider refuse a task of one who holds a slot, since too many are open."""
    slots.learn(slots.traffic.saturated(slots.in_use - 1, slots._clock.monotonic()))


async def take_turns(loop: VirtualLoop, pacer: Pacer, count: int, times: list[float]) -> None:
    for _ in range(count):
        assert await pacer.turn(Waker())
        times.append(loop.time())


def test_turns_are_spread_evenly_over_the_window() -> None:
    async def main(loop: VirtualLoop) -> list[float]:
        times: list[float] = []
        await take_turns(loop, pacer_of(loop, Rate(60, 60.0)), 30, times)
        return [after - before for before, after in itertools.pairwise(times)]

    assert min(run(main)[1:]) >= 0.99


def test_a_stop_ends_every_wait_for_a_turn() -> None:
    """Nobody who waited gets a turn, and nobody goes on waiting."""

    async def main(loop: VirtualLoop) -> tuple[list[bool], float]:
        pacer, stop = pacer_of(loop, Rate(1, 60.0)), Waker()
        assert await pacer.turn(stop)
        loop.call_later(5.0, stop.set)
        turns = [asyncio.create_task(pacer.turn(stop)) for _ in range(100)]
        return list(await asyncio.gather(*turns)), loop.time()

    turns, ended = run(main)
    assert not any(turns)
    assert ended == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize(
    ("rate", "limit", "period_s"),
    [(Rate(60, 60.0), 60, 60.0), (Rate(0.5, 1.0), 1, 2.0), (Rate(2.5, 1.0), 2, 0.8)],
)
def test_the_guard_of_a_small_rate_opens(rate: Rate, limit: int, period_s: float) -> None:
    """A Throttler with a limit below one would wait for ever."""
    guard: Any = window_guard(rate)
    assert guard.rate_limit == limit
    assert guard.period == pytest.approx(period_s)


# -- slots


def test_slots_are_given_in_the_manifests_order() -> None:
    async def main(loop: VirtualLoop) -> list[int]:
        slots, served = slots_of(loop, 1), []
        await slots.acquire(0)

        async def wait(order: int) -> None:
            await slots.acquire(order)
            served.append(order)
            slots.release()

        async with asyncio.TaskGroup() as group:
            for order in (5, 3, 9, 1):
                group.create_task(wait(order))
            await asyncio.sleep(1.0)
            slots.release()
        return served

    assert run(main) == [1, 3, 5, 9]


def test_a_cancelled_waiter_takes_no_slot_with_it() -> None:
    async def main(loop: VirtualLoop) -> int:
        slots = slots_of(loop, 1)
        await slots.acquire(0)
        waiter = asyncio.create_task(slots.acquire(1))
        await asyncio.sleep(0)
        slots.release()  # granted at this very moment
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        return slots.in_use

    assert run(main) == 0


def test_a_refusal_teaches_the_limit() -> None:
    async def main(loop: VirtualLoop) -> int:
        slots = slots_of(loop, 50)
        for order in range(6):
            await slots.acquire(order)
        refuse(slots)
        return slots.limit

    assert run(main) == 5


def test_the_limit_rises_only_if_it_is_used() -> None:
    """Quiet alone says nothing about what the provider would take."""

    async def main(loop: VirtualLoop) -> tuple[int, int]:
        slots = slots_of(loop, 50)
        for order in range(3):
            await slots.acquire(order)
        refuse(slots)
        slots.release()
        await asyncio.sleep(10 * QUIET_S)
        unused = slots.limit
        slots.occupy()
        waiter = asyncio.create_task(slots.acquire(9))
        await asyncio.sleep(1.0)
        waiter.cancel()
        return unused, slots.limit

    assert run(main) == (2, 3)


class _Provider:
    """Takes *cap* tasks at once; what comes on top is refused (1303)."""

    def __init__(self, cap: int, clock: VirtualClock) -> None:
        self.cap, self.clock, self.dice = cap, clock, random.Random(3)
        self.history = History()
        self.open = 0
        self.worked_s = 0.0
        self.looks = 0
        self.refused_at: list[float] = []

    async def take(self, slots: Slots, pacer: Pacer, order: int) -> None:
        """Submit a job that has a slot and a turn, as the submitter does; watch its task to the end."""
        while self.open >= self.cap:
            self.refused_at.append(self.clock.monotonic())
            refuse(slots)
            slots.release()
            await slots.acquire(order)
            await pacer.turn(Waker())
        self.open += 1
        took_s = 60.0 * self.dice.lognormvariate(0.0, 0.25)
        asyncio.get_running_loop().call_later(took_s, self._end, took_s)
        age_s, begun = 0.0, self.clock.monotonic()
        while age_s < took_s:
            wait_s = next_poll(
                age_s,
                poll_interval_s=2.2,  # to the generation time as 5 s is to 135 s
                history=self.history,
                rng=self.dice,
                worth=SLOT_WORTH if slots.is_waited_for else 1.0,
            )
            await asyncio.sleep(wait_s)
            self.looks += 1
            age_s = self.clock.monotonic() - begun
        self.history.add(took_s)
        slots.release()

    def _end(self, took_s: float) -> None:
        self.open -= 1
        self.worked_s += took_s


@pytest.mark.parametrize("cap", [1, 5, 20])
def test_a_cap_below_the_ceiling_is_used(cap: int) -> None:
    """With a ceiling of 50, at least 95 % of what the provider takes is in use.

    The first minutes teach the limit; after the first hour it is asked for more four times an hour
    at the most. Looking for tasks that have ended is not what pays for it.
    """
    hours = 4
    jobs = cap * 60 * hours

    async def main(loop: VirtualLoop) -> tuple[float, list[float], float]:
        clock = VirtualClock(loop)
        slots, pacer = slots_of(loop, 50), pacer_of(loop, Rate(60, 60.0))
        provider = _Provider(cap, clock)
        async with asyncio.TaskGroup() as group:
            for order in range(jobs):
                await slots.acquire(order)
                await pacer.turn(Waker())
                group.create_task(provider.take(slots, pacer, order))
        used = provider.worked_s / (cap * loop.time())
        return used, provider.refused_at, provider.looks / jobs

    used, refused_at, looks = run(main)
    assert used >= 0.95
    later = sum(at > HOUR_S for at in refused_at)
    assert len(refused_at) - later <= 9
    assert later / (hours - 1) <= 4
    assert looks <= 10


def test_refusal_holds_what_waits_for_turns(tmp_path: Path) -> None:
    """The provider takes 3: of 20 jobs that have slots, the fourth learns it for all."""

    async def story(stages: Stages) -> list[str]:
        gate, taken, requests = stages.run.gate, [], []

        async def submit(order: int) -> None:
            ticket = await gate.enter(order)
            while await ticket.intend(attempt(name=f"kb-{order}", job_id=f"{order}")):
                requests.append(f"{order} at {stages.loop.time():.0f} s")
                if len(taken) < 3:
                    return taken.append(ticket)
                await ticket.refused(str(order), Saturated(SAID))
            return None

        jobs = [asyncio.create_task(submit(order)) for order in range(20)]
        await asyncio.sleep(30.0)
        taken.pop(1).leave()
        await asyncio.sleep(10.0)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        assert gate.sent == gate.slots.in_use == len(taken)
        return requests

    requests = play(tmp_path, story, submit_rate=Rate(60, 60.0), max_in_flight=50)
    assert requests == ["0 at 0 s", "1 at 1 s", "2 at 2 s", "3 at 3 s", "3 at 30 s"]


# -- the intent


@pytest.mark.parametrize("doubt", [None, Doubt(SAID, on_request=True)])
def test_the_intent_is_committed_at_its_turn(tmp_path: Path, doubt: Doubt | None) -> None:
    """Not before it, or it would be too old to be sent; with the doubt that there is."""

    async def story(stages: Stages) -> tuple[Any, Any, float]:
        ticket = await stages.enter()
        stages.run.gate.pacer.pause(60.0)
        intended = await ticket.intend(attempt(Intended(1.0, doubt)))
        left_s = ticket.not_after - stages.clock.monotonic()
        return intended, stages.state.attempts["kb-1"], left_s

    intended, on_disk, left_s = play(tmp_path, story)
    assert intended == on_disk
    assert intended.state == Intended(pytest.approx(EPOCH + 60.0, abs=0.1), doubt)
    assert left_s == pytest.approx(SEND_WITHIN_S, abs=0.1)


def test_a_stop_before_the_turn_leaves_no_intent(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[Any, list[Any]]:
        ticket = await stages.enter()
        stages.run.gate.pacer.pause(60.0)
        stages.loop.call_later(5.0, stages.stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        return await ticket.intend(attempt()), stages.state.commits

    assert play(tmp_path, story) == (None, [])
