"""A clock that is a year off for one night, in either direction: nothing hangs or is paid twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from patience import PATIENCE_S

from batch.clock import SystemClock
from batch.errors import ExitCode
from batch.output.layout import Layout
from batch.output.sqlite import Database
from batch.output.store import last_run
from batch.run.stop import Stop, StopReason

YEAR_S = 365 * 86400.0
OFF = pytest.mark.parametrize("off_s", [YEAR_S, -YEAR_S], ids=["ahead", "behind"])


class WrongClock(SystemClock):
    """The machine's clock, so many seconds off."""

    def __init__(self, off_s: float) -> None:
        super().__init__()
        self._off_s = off_s

    def now(self) -> float:
        return super().now() + self._off_s


class StopWhenOpen:
    """Stops a run once *count* tasks are open."""

    def __init__(self, stop: Stop, count: int) -> None:
        self._stop, self._left = stop, count

    def notify(self, event: Any) -> None:
        self._left -= type(event).__name__ == "Submitted"
        if self._left == 0:
            self._stop.ask(StopReason.TERMINATED, "enough")


@OFF
async def test_run_after_a_wrong_clock_is_the_last_one(desk: Any, off_s: float) -> None:
    async with desk.sandbox() as box:
        desk.clock = WrongClock(off_s)
        first = await desk.run(box, 1)
        desk.clock = SystemClock()
        second = await desk.run(box, 2, is_checked=False)
    with Database.open_to_read(Layout(desk.root).database) as database:
        last = last_run(database)
    assert first.run_id != second.run_id
    assert last is not None
    assert last[0] == second.run_id


@OFF
async def test_zeros_are_mended_after_a_wrong_clock(desk: Any, off_s: float) -> None:
    """The file was written to before it "landed", by the clock of that night: no proof of anything."""
    async with desk.sandbox() as box:
        desk.clock = WrongClock(off_s)
        await desk.run(box, 2, is_checked=False)
        desk.clock = SystemClock()
        dead = desk.videos["job-00.mp4"]
        dead.write_bytes(bytes(dead.stat().st_size))
        assert desk.plan(box, 2) == {"unchanged": 1, "fetch": 1}
        summary = await desk.run(box, 2, is_checked=False)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 2
        assert desk.plan(box, 2) == {"unchanged": 2}


@OFF
@pytest.mark.parametrize("is_wrong_first", [True, False])
async def test_tasks_are_collected_across_a_jump(
    desk: Any, off_s: float, is_wrong_first: bool
) -> None:
    """Open tasks and lost answers, before and after the clock is set."""
    desk.limits = {"task_timeout": "2s"}  # what a year-old task is watched for at least
    clocks = [WrongClock(off_s), SystemClock()]
    async with desk.sandbox("submit:drop-after:first=2", median_s=0.4) as box:
        desk.clock = clocks.pop(0 if is_wrong_first else 1)
        stop = Stop()
        await desk.run(box, 4, stop=stop, observers=[StopWhenOpen(stop, 2)], is_checked=False)
        desk.clock = clocks.pop()
        # No wait is longer than a request may take to arrive.
        async with asyncio.timeout(PATIENCE_S):
            summary = await desk.run(box, 4, is_checked=False)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 4
