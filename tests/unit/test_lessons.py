"""Lessons: what wakes the tasks that wait for their next poll."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from scripted import attempt
from virtual_time import VirtualLoop, run

from batch.run.lessons import Lessons
from batch.run.schedule import SCOUTS
from batch.waker import sleep


def slept_s(act: Callable[[Lessons, ExitStack], None], *, watched: int = 1) -> float:
    """Return how long a task sleeps for a minute when *act* happens after a second."""

    async def main(loop: VirtualLoop) -> float:
        lessons = Lessons({}, 5.0, random.Random(1))
        with ExitStack() as open_tasks:
            for _ in range(watched):
                open_tasks.enter_context(lessons.watch())
            loop.call_later(1.0, act, lessons, open_tasks)
            await sleep(60.0, lessons.changed)
            return loop.time()

    return run(main)


def test_first_end_of_kind_wakes_sleepers() -> None:
    """Their polls knew nothing until then."""
    woken_at = slept_s(lambda lessons, _: lessons.learn(attempt(), 30.0) and None)
    assert woken_at == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("watched", "woken_at"), [(5, 1.0), (1_000, 60.0)])
def test_tail_wakes_few_sleepers(watched: int, woken_at: float) -> None:
    """A crowd sleeps on: its lateness is not the run's end yet."""
    woken = slept_s(lambda lessons, _: lessons.begin_tail(), watched=watched)
    assert woken == pytest.approx(woken_at, abs=0.01)


def test_shrinking_tail_wakes_sleepers() -> None:
    """The fewer are left, the more often they are polled."""

    def halve(lessons: Lessons, open_tasks: ExitStack) -> None:
        lessons.begin_tail()
        open_tasks.close()

    assert slept_s(halve, watched=65) == pytest.approx(1.0, abs=0.01)


def test_oldest_tasks_are_scouts_until_one_ends() -> None:
    """Only of their own kind; what has not been seen open teaches nothing."""
    lessons = Lessons({}, 5.0, random.Random(1))
    tasks = [attempt(name=f"kb-{number}") for number in range(1, SCOUTS + 2)]
    *scouts, young = tasks
    for age_s, each in enumerate(scouts[1:], 100):
        lessons.saw_open(each, float(age_s))
    lessons.saw_open(young, 20.0)
    assert lessons.next_poll(young, 20.0) < 7.0  # it is the eighth
    lessons.saw_open(scouts[0], 90.0)
    assert lessons.next_poll(young, 20.0) == 70.0
    assert lessons.next_poll(scouts[0], 90.0) < 16.0
    lessons.learn(scouts[0], 95.0)
    lessons.saw_open(scouts[1], 120.0)
    assert 20.0 < lessons.next_poll(young, 20.0) < 90.0
