"""The promises of `Share` to a run that shares with nobody: its own limits, used to the full."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted import ACCOUNT
from virtual_time import VirtualClock, VirtualLoop, VirtualWindow, run

from batch.manifest.limits import Limits, Rate
from batch.run.account import LATE_S
from batch.run.book import AccountBook
from batch.run.pacer import Pacer
from batch.run.share import Alone, Share
from batch.run.slots import Slots
from batch.waker import Waker

IMPLEMENTATIONS = ("alone", "book")
RATES = [Rate(60, 60.0), Rate(2, 1.0), Rate(50, 1.0), Rate(0.5, 1.0)]


class Run:
    """A run on virtual time, with the share that is tried."""

    def __init__(self, loop: VirtualLoop, share: Callable[..., Share], limits: Limits) -> None:
        self.clock = VirtualClock(loop)
        self.share = share(limits, self.clock)
        rate = limits.submit_rate
        window = VirtualWindow(self.clock, rate.count, rate.per_second)
        self.pacer = Pacer(rate, clock=self.clock, guard=window, share=self.share)
        self.slots = Slots(limits.max_in_flight, clock=self.clock, share=self.share, stop=Waker())
        self.times: list[float] = []

    async def take_turns(self, count: int) -> None:
        for _ in range(count):
            assert await self.pacer.turn(Waker())
            self.times.append(self.clock.monotonic())


@pytest.fixture(params=IMPLEMENTATIONS)
def share(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Share]:
    """Give a function that opens the share of a run with these limits."""

    def opened(limits: Limits, clock: VirtualClock) -> Share:
        if request.param == "alone":
            return Alone(clock)
        book = AccountBook(tmp_path, ACCOUNT, limits, clock=clock, warn=pytest.fail)
        request.addfinalizer(lambda: book.__exit__(None, None, None))
        return book.__enter__()

    return opened


def play(share: Callable[..., Share], story: Callable[[Run], object], **limits: object) -> Run:
    async def main(loop: VirtualLoop) -> Run:
        mine = Run(loop, share, Limits(**limits))  # type: ignore[arg-type]
        await story(mine)  # type: ignore[misc]
        return mine

    return run(main)


@pytest.mark.parametrize("rate", RATES)
def test_rate_is_used_to_the_full(share: Callable[..., Share], rate: Rate) -> None:
    times = play(share, lambda mine: mine.take_turns(400), submit_rate=rate).times
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(rate.per_second, rel=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_no_window_sees_more_than_the_rate(share: Callable[..., Share], rate: Rate) -> None:
    async def story(mine: Run) -> None:
        dice = random.Random(7)
        for _ in range(60):
            await asyncio.sleep(dice.choice((0.0, 0.3, 5.0, 100.0)))
            if dice.random() < 0.2:
                mine.pacer.pause(dice.random() * 10)
            async with asyncio.TaskGroup() as group:
                for _ in range(dice.randint(1, 9)):
                    group.create_task(mine.take_turns(1))

    times = play(share, story, submit_rate=rate).times
    count = max(1, int(rate.count))
    period_s = count / rate.per_second
    pairs = zip(times, times[count:], strict=False)
    assert all(last - first >= period_s - 1e-6 for first, last in pairs)


@pytest.mark.parametrize("rate", [Rate(2, 1.0), Rate(50, 1.0), Rate(500, 1.0), Rate(6000, 60.0)])
def test_late_turns_are_made_up_for(share: Callable[..., Share], rate: Rate) -> None:
    """The event loop is busy again and again; still no window sees more than the rate."""

    async def story(mine: Run) -> None:
        dice, loop = random.Random(11), asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        naps = itertools.accumulate(0.05 + dice.expovariate(20.0) for _ in range(70))
        loop.naps += [(at, dice.random() * LATE_S) for at in naps]
        await mine.take_turns(int(rate.per_second * 6))

    times = play(share, story, submit_rate=rate).times
    assert times[-1] - times[0] <= (len(times) - 1) / rate.per_second * 1.02
    count = max(1, int(rate.count))
    windows = zip(times, times[count:], strict=False)
    assert all(last - first >= count / rate.per_second - 1e-6 for first, last in windows)


def test_silence_saves_up_no_turn(share: Callable[..., Share]) -> None:
    async def story(mine: Run) -> None:
        await mine.take_turns(1)
        await asyncio.sleep(60.0)
        await mine.take_turns(6)

    times = play(share, story, submit_rate=Rate(2, 1.0)).times
    assert min(after - before for before, after in itertools.pairwise(times[1:])) >= 0.45


def test_pause_holds_every_turn(share: Callable[..., Share]) -> None:
    """A shorter one that follows does not end it, and one that comes meanwhile counts."""

    async def story(mine: Run) -> None:
        mine.pacer.pause(42.0)
        mine.pacer.pause(1.0)
        asyncio.get_running_loop().call_later(41.0, mine.pacer.pause, 9.0)
        assert mine.pacer.is_paused
        await mine.take_turns(1)

    assert play(share, story, submit_rate=Rate(10, 1.0)).times == [pytest.approx(50.0, abs=0.2)]


def test_stop_ends_the_wait_for_a_turn(share: Callable[..., Share]) -> None:
    async def story(mine: Run) -> None:
        stop = Waker()
        mine.pacer.pause(42.0)
        asyncio.get_running_loop().call_later(5.0, stop.set)
        assert not await mine.pacer.turn(stop)
        assert mine.clock.monotonic() == pytest.approx(5.0, abs=0.01)

    play(share, story)


def test_every_slot_is_given_at_once(share: Callable[..., Share]) -> None:
    async def story(mine: Run) -> None:
        for order in range(5):
            await mine.slots.acquire(order)
        waiter = asyncio.create_task(mine.slots.acquire(9))
        await asyncio.sleep(1.0)
        assert not waiter.done()
        begun = mine.clock.monotonic()
        mine.slots.release()
        await waiter
        assert mine.clock.monotonic() == pytest.approx(begun, abs=0.001)
        assert mine.slots.in_use == 5

    play(share, story, max_in_flight=5)


def test_open_tasks_count_whatever_the_limit(share: Callable[..., Share]) -> None:
    async def story(mine: Run) -> None:
        for _ in range(3):
            mine.slots.occupy()
        waiter = asyncio.create_task(mine.slots.acquire(0))
        mine.slots.release()
        await asyncio.sleep(1.0)
        assert not waiter.done()
        mine.slots.release()
        await asyncio.wait_for(waiter, 0.2)

    play(share, story, max_in_flight=2)
