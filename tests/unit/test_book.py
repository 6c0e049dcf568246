"""The account book: runs of one account keep to its limits together, and fairly."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ACCOUNT
from virtual_time import VirtualClock, VirtualLoop, run

from batch.attempt import Account
from batch.clock import SystemClock
from batch.manifest.limits import Limits, Rate
from batch.paths import state_folder
from batch.run.book import WAITS_S, AccountBook, Entry, Page
from batch.run.pacer import Pacer
from batch.run.share import Alone
from batch.run.slots import ASK_AGAIN_S, Slots
from batch.waker import Waker

TASK_S = 10.0
HOLDS_THREE = """
import sys
from pathlib import Path
from batch.attempt import Account
from batch.clock import SystemClock
from batch.manifest.limits import Limits
from batch.run.book import AccountBook
account = Account("https://scripted.example", "0a1b2c3d")
limits = Limits(max_in_flight=5)
with AccountBook(Path(sys.argv[1]), account, limits, clock=SystemClock(), warn=sys.exit) as book:
    book.hold(3)
    print("holds", flush=True)
    sys.stdin.read()
"""


class Runs:
    """Runs of one account in one process, each with a book of its own."""

    def __init__(self, folder: Path, exits: ExitStack) -> None:
        self.folder, self.exits = folder, exits
        self.warnings: list[str] = []

    def book(self, clock: Any, account: Account = ACCOUNT, **limits: Any) -> AccountBook:
        """Open the book once more."""
        book = AccountBook(
            self.folder, account, Limits(**limits), clock=clock, warn=self.warnings.append
        )
        return self.exits.enter_context(book)

    def slots(self, clock: Any, most: int) -> Slots:
        """Return the slots of another run."""
        return Slots(most, clock=clock, share=self.book(clock, max_in_flight=most), stop=Waker())


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with ExitStack() as exits:
        yield Runs(tmp_path / "state", exits)


async def work(slots: Slots, jobs: int, held: list[int], longest: float = TASK_S) -> None:
    """Do *jobs*, each with a slot for as long as a task takes."""

    async def one(order: int) -> None:
        await slots.acquire(order)
        held.append(1)
        await asyncio.sleep(longest * (0.5 + order % 7 / 14))
        held.append(-1)
        slots.release()

    async with asyncio.TaskGroup() as group:
        for order in range(jobs):
            group.create_task(one(order))


def most(steps: list[int]) -> int:
    open_now, found = 0, 0
    for step in steps:
        open_now += step
        found = max(found, open_now)
    return found


def test_runs_hold_no_more_slots_together_than_one(runs: Runs) -> None:
    """And no fewer: what waits for a slot of another run's has it within 0.1 s."""

    async def main(loop: VirtualLoop) -> float:
        clock = VirtualClock(loop)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work(runs.slots(clock, 20), 60, held))
        return loop.time()

    held: list[int] = []
    took_s = run(main)
    assert most(held) == 20
    assert took_s <= 180 / 20 * TASK_S * (0.5 + 3 / 14) * 1.1


def test_latecomer_gets_its_half_of_the_slots(runs: Runs) -> None:
    """Each free slot goes to the run with the fewest, though the other has many jobs waiting."""

    async def main(loop: VirtualLoop) -> tuple[int, int]:
        clock = VirtualClock(loop)
        first, second = runs.slots(clock, 20), runs.slots(clock, 20)
        tasks = [asyncio.create_task(work(first, 200, []))]
        await asyncio.sleep(5 * TASK_S)
        tasks.append(asyncio.create_task(work(second, 200, [])))
        await asyncio.sleep(TASK_S)
        found = first.in_use, second.in_use
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    assert run(main) == (10, 10)


def test_freed_slot_reaches_another_run_promptly(runs: Runs) -> None:
    async def main(loop: VirtualLoop) -> float:
        clock = VirtualClock(loop)
        first, second = runs.slots(clock, 1), runs.slots(clock, 1)
        await first.acquire(0)
        waiter = asyncio.create_task(second.acquire(0))
        await asyncio.sleep(10.0)
        assert not waiter.done()
        freed_at = loop.time()
        first.release()
        await waiter
        return loop.time() - freed_at

    assert run(main) <= ASK_AGAIN_S


class _Full(Alone):
    """An account whose slots are all another run's; counts how often it is asked."""

    asked = 0

    def take(self, _held: int) -> bool:
        self.asked += 1
        return False


def test_waiting_run_asks_ten_times_a_second_at_most() -> None:
    """However many of its jobs wait."""

    async def main(loop: VirtualLoop) -> int:
        full = _Full(VirtualClock(loop))
        slots = Slots(5, clock=VirtualClock(loop), share=full, stop=Waker())
        waiters = [asyncio.create_task(slots.acquire(order)) for order in range(5)]
        await asyncio.sleep(1.05)
        before = full.asked
        await asyncio.sleep(60.0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        return full.asked - before

    assert run(main) <= 600


def test_run_that_asks_no_more_holds_nobody_up(runs: Runs) -> None:
    """It was stopped or is busy elsewhere: the slot goes to who asks."""

    async def main(loop: VirtualLoop) -> bool:
        clock = VirtualClock(loop)
        first, second = (runs.book(clock, max_in_flight=2) for _ in range(2))
        first.hold(2)
        assert not second.take(0)
        first.hold(1)
        assert not first.take(1), "the other one has waited"
        await asyncio.sleep(WAITS_S + 0.1)
        return first.take(1)

    assert run(main)


@pytest.mark.parametrize(("rates", "together"), [((20.0, 20.0), 20.0), ((20.0, 2.0), 20.0)])
def test_runs_submit_no_faster_together_than_one(
    runs: Runs, rates: tuple[float, float], together: float
) -> None:
    async def main(loop: VirtualLoop) -> None:
        clock = VirtualClock(loop)

        async def submit(rate: Rate) -> None:
            book = runs.book(clock, submit_rate=rate)
            pacer = Pacer(rate, clock=clock, guard=nullcontext(), share=book)
            for _ in range(int(rate.per_second * 20)):
                await pacer.turn(Waker())
                times.append(loop.time())

        async with asyncio.TaskGroup() as group:
            for rate in rates:
                group.create_task(submit(Rate(rate, 1.0)))

    times: list[float] = []
    run(main)
    count = int(together)
    assert all(last - first >= 1.0 for first, last in zip(times, times[count:], strict=False))
    assert (len(times) - 1) / (times[-1] - times[0]) >= min(together, sum(rates)) * 0.97


def test_pause_of_one_run_holds_the_others(runs: Runs) -> None:
    """Also the turn that another one was already waiting for."""

    async def main(loop: VirtualLoop) -> float:
        clock = VirtualClock(loop)
        pacer = Pacer(Rate(1, 10.0), clock=clock, guard=nullcontext(), share=runs.book(clock))
        other = runs.book(clock)
        await pacer.turn(Waker())
        loop.call_later(5.0, other.pause, clock.monotonic() + 60.0)
        await pacer.turn(Waker())
        assert not pacer.is_paused
        return loop.time()

    assert run(main) == pytest.approx(60.0, abs=1.0)


def test_slots_of_a_killed_run_are_free_at_once(runs: Runs) -> None:
    mine = runs.book(SystemClock(), max_in_flight=5)
    command = [sys.executable, "-c", HOLDS_THREE, str(runs.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"holds\n"
        assert [mine.take(held) for held in range(3)] == [True, True, False]
        other.kill()
        other.wait()
        assert [mine.take(held) for held in (2, 3, 4, 5)] == [True, True, True, False]
    assert sorted(path.suffix != "" for path in runs.folder.iterdir()) == [False, True]


def test_other_accounts_share_nothing(runs: Runs) -> None:
    others = [Account(ACCOUNT.base_url, "other"), Account("https://other.example", "0a1b2c3d")]
    clock = SystemClock()
    books = [runs.book(clock, account, max_in_flight=1) for account in (ACCOUNT, *others)]
    assert [book.take(0) for book in books] == [True, True, True]


def test_last_run_leaves_nothing_but_an_empty_book(runs: Runs) -> None:
    """What it leaves says nothing to the next run, which may begin after a restart of the machine."""
    mine = runs.book(SystemClock())
    mine.hold(3)
    mine.pause(1e12)
    mine.__exit__(None, None, None)
    (left,) = runs.folder.iterdir()
    assert b"held" not in left.read_bytes()
    assert runs.book(SystemClock(), max_in_flight=1).paused_until == 0.0


@pytest.mark.parametrize("data", [b"", b"[1, 2", b"[]", b"\0\0\0", b'[0, 0, {"a": [1]}]', b"{}"])
def test_damaged_book_is_begun_anew(runs: Runs, data: bytes) -> None:
    mine = runs.book(SystemClock(), max_in_flight=2)
    (book,) = [path for path in runs.folder.iterdir() if not path.suffix]
    assert mine.take(0)
    book.write_bytes(data)
    assert [mine.take(1), mine.take(2)] == [True, False]
    assert runs.warnings == []


def a_file_in_place_of_the_folder(folder: Path) -> None:
    folder.write_text("")


def a_folder_in_place_of_the_book(folder: Path) -> None:
    with AccountBook(folder, ACCOUNT, Limits(), clock=SystemClock(), warn=pytest.fail):
        (book,) = [path for path in folder.iterdir() if not path.suffix]
    book.unlink()
    book.mkdir()


@pytest.mark.parametrize("spoil", [a_file_in_place_of_the_folder, a_folder_in_place_of_the_book])
def test_run_without_a_book_keeps_to_its_own_limits(
    runs: Runs, spoil: Callable[[Path], None]
) -> None:
    """It is warned once, and pauses still hold."""
    spoil(runs.folder)
    clock = SystemClock()
    mine = runs.book(clock, max_in_flight=1)
    assert [mine.take(0), mine.take(1)] == [True, True], "the run counts its own"
    until = clock.monotonic() + 60.0
    mine.pause(until)
    assert (mine.turn(), mine.paused_until) == (until, until)
    (warning,) = runs.warnings
    assert warning.startswith("limits are not shared with other runs of this account:")


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="other folders there")
@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"XDG_STATE_HOME": "/var/me"}, "/var/me/kling-batch"),
        ({"XDG_STATE_HOME": "relative"}, "~/.local/state/kling-batch"),
        ({}, "~/.local/state/kling-batch"),
    ],
)
def test_state_folder_is_the_platforms(given: dict[str, str], folder: str) -> None:
    assert state_folder(given) == Path(folder).expanduser()


def test_run_that_waits_for_others_says_so_once(runs: Runs) -> None:
    clock = SystemClock()
    first, second = (runs.book(clock, max_in_flight=1) for _ in range(2))
    first.take(0)
    assert [second.take(0), second.take(0)] == [False, False]
    (warning,) = runs.warnings
    assert "other runs of this account on this machine hold all the slots" in warning


def test_stop_ends_the_wait_for_others(runs: Runs) -> None:
    """A run that submits nothing more needs no slot of the account's."""

    async def main(loop: VirtualLoop) -> float:
        clock, stop = VirtualClock(loop), Waker()
        runs.slots(clock, 1).occupy()
        slots = Slots(1, clock=clock, share=runs.book(clock, max_in_flight=1), stop=stop)
        loop.call_later(30.0, stop.set)
        await slots.acquire(0)
        return loop.time()

    assert run(main) == pytest.approx(30.0, abs=ASK_AGAIN_S + 0.01)


@given(
    count=st.integers(1, 400),
    period_s=st.sampled_from([1.0, 10.0, 60.0]),
    steps=st.lists(st.floats(0.0, 0.4) | st.floats(0.0, 0.004), min_size=2, max_size=60),
    more=st.integers(0, 400),
)
def test_late_turns_of_two_runs_keep_the_rate(
    count: int, period_s: float, steps: list[float], more: int
) -> None:
    """However late each is taken, and however many follow at once."""
    page = Page(entries={"a": Entry(9, period_s / count), "b": Entry(9, period_s / count)})
    now, times = 100.0, []
    for step in itertools.chain(steps, itertools.repeat(0.0, more)):
        now += step
        now = max(now, page.turn(now))
        times.append(now)
    windows = zip(times, times[count:], strict=False)
    assert all(last - first >= period_s - 1e-6 for first, last in windows)
