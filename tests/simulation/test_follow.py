"""Who follows a run ends it where no worker would."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import Any

import pytest
from memory_fleet import MemoryFleet
from scripted import ACCOUNT

from batch.clock import SystemClock
from batch.engines import follow
from batch.engines.follow import Follower
from batch.errors import ExitCode
from batch.events import Event, Warned
from batch.output.fleet import JobState, OpenRun, Work
from batch.run.stop import StopReason

STOP = (StopReason.INTERRUPTED.value, "SIGINT")


class Ending:
    """Writes no files."""

    def write(self, *_args: Any) -> tuple[ExitCode, str]:
        return ExitCode.INTERRUPTED, "{}"


class Library:
    """Has no rows."""

    def result_lines(self, _first: int) -> list[str]:
        return []


@contextmanager
def library() -> Any:
    yield Library()


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> MemoryFleet:
    async def no_summary(*_args: Any) -> None:
        return None

    monkeypatch.setattr(Follower, "_summary", no_summary)
    monkeypatch.setattr(follow.Terms, "of", lambda _run: None)
    return MemoryFleet(time.monotonic)


async def followed(
    fleet: MemoryFleet, *, is_stopped: bool = True, told: list[Event] | None = None
) -> asyncio.Task[Any]:
    """Follow a run of one job, beside a living worker that has its key."""
    run = OpenRun("r1", "library", "/videos", ACCOUNT, "{}", began_at=1.5)
    await fleet.hand_over(run, [Work(0, "a", "{}")], lambda _transaction: None)
    await fleet.beat("w1", [ACCOUNT])
    if is_stopped:
        await fleet.stop("r1", *STOP)
    times = {"looks_s": 0.01, "quiet_s": 0.2}
    ends: Any = Ending()
    follower = Follower(run, fleet, ends, "me", SystemClock(), (told or []).append, **times)
    return asyncio.create_task(follower.follow(library))


async def test_stopped_run_that_no_worker_takes_up_is_ended(fleet: MemoryFleet) -> None:
    """They lack its folder, and refuse it."""
    await asyncio.wait_for(await followed(fleet), 10)
    assert fleet.runs["r1"].exit_code == ExitCode.INTERRUPTED


async def test_stopped_run_is_left_to_who_has_a_job(fleet: MemoryFleet) -> None:
    task = await followed(fleet)
    assert await fleet.claim("r1", "a", "w1") is not None
    await asyncio.sleep(0.5)
    assert not task.done()
    task.cancel()


@pytest.mark.parametrize("is_taken_up", [False, True])
async def test_run_that_no_worker_takes_up_is_told_of(
    fleet: MemoryFleet, *, is_taken_up: bool
) -> None:
    """All of them lack its folder, or they are busy: its follower cannot know which."""
    told: list[Event] = [Warned("before")]
    task = await followed(fleet, is_stopped=False, told=told)
    if is_taken_up:
        assert await fleet.claim("r1", "a", "w1") is not None
    await asyncio.sleep(0.6)
    task.cancel()
    said = [] if is_taken_up else [Warned(follow.NOT_TAKEN_UP)]
    assert told[1:] == said


async def test_done_run_that_no_worker_can_end_is_ended(fleet: MemoryFleet) -> None:
    """They may not write into its folder, and who follows it may."""
    task = await followed(fleet, is_stopped=False)
    await asyncio.sleep(0.5)
    assert not task.done()
    found = await fleet.claim("r1", "a", "w1")
    assert found is not None
    await fleet.settle(found.claim, JobState.DONE)
    await asyncio.wait_for(task, 10)
    assert fleet.runs["r1"].exit_code == ExitCode.INTERRUPTED
