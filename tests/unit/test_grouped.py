"""Grouped work: one hop for a crowd, none waits in a silence, and each has its own fate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from virtual_time import InlineExecutor, VirtualLoop, run

from batch.output.grouped import Grouped


class Work:
    """Notes what it gets; what is odd fails."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[Exception | None]:
        self.groups.append(list(items))
        return [OSError(f"{item} is odd") if item % 2 else None for item in items]


class Broken(Executor):
    """A pool in which all work fails."""

    def submit(self, _fn: Any, /, *_args: Any, **_kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(OSError("no thread"))
        return future


def test_at_once_after_a_silence_and_together_in_a_crowd() -> None:
    work = Work()

    async def main(loop: VirtualLoop) -> float:
        grouped = Grouped(work, InlineExecutor(), 0.05)
        await grouped.do(0)
        assert loop.time() < 0.01, "nobody waits in a silence"
        await asyncio.gather(*(grouped.do(item) for item in (2, 4, 6)))
        return loop.time()

    assert 0.05 <= run(main) < 0.06
    assert work.groups == [[0], [2, 4, 6]]


def test_what_goes_wrong_with_one_is_told_of_that_one() -> None:
    async def main(loop: VirtualLoop) -> list[Any]:
        grouped = Grouped(Work(), InlineExecutor(), 0.05)
        return await asyncio.gather(*map(grouped.do, (0, 2, 3, 4)), return_exceptions=True)

    assert [str(outcome) for outcome in run(main)] == ["None", "None", "3 is odd", "None"]


def test_what_goes_wrong_with_the_hop_is_told_of_all() -> None:
    async def main(loop: VirtualLoop) -> list[Any]:
        grouped = Grouped(Work(), Broken(), 0.05)
        return await asyncio.gather(*map(grouped.do, (0, 2, 4)), return_exceptions=True)

    assert [str(outcome) for outcome in run(main)] == ["no thread"] * 3


def test_who_gives_up_in_time_is_left_out_and_the_others_are_not() -> None:
    work = Work()

    async def main(loop: VirtualLoop) -> None:
        grouped = Grouped(work, InlineExecutor(), 0.05)
        await grouped.do(0)
        waiting = [asyncio.ensure_future(grouped.do(item)) for item in (2, 4)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        await waiting[1]
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]

    run(main)
    assert work.groups == [[0], [4]]
