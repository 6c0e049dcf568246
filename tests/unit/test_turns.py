"""Turns: a crowd of tasks shares few connections, and what is urgent waits for none of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scripted import Stages, attempt, found, opened, play
from virtual_time import EPOCH, VirtualLoop, run

from batch.callbacks.hints import Hint, News
from batch.provider.answers import Found, TaskStatus
from batch.run.turns import POLLS_AT_ONCE, Turns

CROWD = 2 * POLLS_AT_ONCE + 50
ANSWER_S = 30.0


class Slow:
    """A provider that takes its time for each poll, and knows how many wait for it at once."""

    def __init__(self, stages: Stages) -> None:
        self.under_way = self.most = 0
        self.asked_at: dict[str, float] = {}
        self._loop = stages.loop
        stages.api.query = self.query  # type: ignore[method-assign]

    async def query(self, identifier: str) -> Found:
        self.asked_at.setdefault(identifier, self._loop.time())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(ANSWER_S)
        self.under_way -= 1
        return found(TaskStatus.FAILED, task_id=identifier)

    def watch(self, stages: Stages, hint: Hint | None = None, number: int = 0) -> asyncio.Task[Any]:
        watched = attempt(opened(f"t{number}"), name=f"kb-t{number}", job_id=f"j{number}")
        poll = stages.run.poller.poll(watched, hint or Hint(), is_fresh=False)
        return asyncio.ensure_future(poll)


def test_crowd_polls_only_so_many_at_once(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Slow:
        slow = Slow(stages)
        await asyncio.gather(*(slow.watch(stages, number=number) for number in range(CROWD)))
        return slow

    slow = play(tmp_path, story, proved_at=EPOCH)
    assert slow.most == POLLS_AT_ONCE
    assert len(slow.asked_at) == CROWD
    begun = sorted(slow.asked_at.values())
    assert begun[-1] - begun[0] == pytest.approx(2 * ANSWER_S)  # none waits longer than it has to


def test_announced_end_is_polled_past_the_crowd(tmp_path: Path) -> None:
    async def story(stages: Stages) -> float:
        slow, hint = Slow(stages), Hint()
        crowd = [slow.watch(stages, number=number) for number in range(1, CROWD)]
        await asyncio.sleep(1.0)
        announced = slow.watch(stages, hint)
        await asyncio.sleep(1.0)
        assert "t0" not in slow.asked_at
        hint.record(News("t0", None, has_ended=True))
        begun = stages.loop.time()
        await announced
        await asyncio.gather(*crowd)
        return slow.asked_at["t0"] - begun

    assert play(tmp_path, story, proved_at=EPOCH) == pytest.approx(0.0, abs=0.1)


def test_run_that_is_left_polls_none_in_line(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[int, float]:
        slow = Slow(stages)
        crowd = [slow.watch(stages, number=number) for number in range(CROWD)]
        await asyncio.sleep(1.0)
        stages.stop.leaving.set()
        begun = stages.loop.time()
        await asyncio.gather(*crowd)
        return len(slow.asked_at), stages.loop.time() - begun

    asked, took_s = play(tmp_path, story, proved_at=EPOCH)
    assert asked == POLLS_AT_ONCE
    assert took_s <= ANSWER_S


def test_turn_of_a_cancelled_waiter_goes_on() -> None:
    async def main(_loop: VirtualLoop) -> None:
        turns = Turns(1)

        async def take() -> None:
            async with turns.turn():
                await asyncio.sleep(1.0)

        first, second, third = (asyncio.ensure_future(take()) for _ in range(3))
        first.add_done_callback(lambda _: second.cancel())  # just as its turn has come
        with suppress(asyncio.CancelledError):
            await second
        await asyncio.wait_for(third, 5.0)

    run(main)
