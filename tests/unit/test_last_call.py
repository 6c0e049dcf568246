"""The last call: what would not be collected by the deadline is not submitted."""

from __future__ import annotations

import random
from datetime import datetime, time
from pathlib import Path

import pytest
from sample_jobs import feed, job, tried
from scripted import Stages, opened, play
from virtual_time import EPOCH

from batch.errors import ExitCode
from batch.job import canonical_request
from batch.manifest.limits import Limits, Order
from batch.output.state import Put
from batch.plan import Action, Decision, Decisions
from batch.provider.answers import Created, Found, Task, TaskStatus
from batch.run.feeder import in_order
from batch.run.last_call import RESERVE_S, LastCall
from batch.run.lessons import Lessons
from batch.run.schedule import History

KIND = "//5"
HOUR = 3600.0
FAST, SLOW, UNKNOWN = (
    canonical_request({"prompt": "a cat", "duration": seconds}) for seconds in ("5", "10", "15")
)
FAILED = Found(Task("7", TaskStatus.FAILED, message="risk control"))


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def last_call(left_s: float | None, clock: Clock) -> LastCall:
    times = {KIND: [60.0] * 90 + [100.0] * 9 + [900.0], "//10": [600.0]}
    return LastCall(left_s, Lessons(times, 5.0, random.Random(1)), clock)


def test_each_kind_has_a_last_call_of_its_own() -> None:
    clock = Clock()
    call = last_call(HOUR, clock)
    clock.at += HOUR - RESERVE_S - 600.0
    assert not call.has_passed(SLOW)
    clock.at += 1.0
    assert call.has_passed(SLOW)
    assert not call.has_passed(FAST)
    clock.at = 1000.0 + HOUR - RESERVE_S - 60.0 + 1.0
    assert call.has_passed(FAST)
    assert not call.has_passed(UNKNOWN), "without history the deadline itself is the last call"


def test_without_deadline_there_is_no_last_call() -> None:
    clock = Clock()
    call = last_call(None, clock)
    clock.at += 1e9
    assert not call.refuses(SLOW)
    assert not call.has_refused


def test_deadline_too_short_for_a_task_says_so() -> None:
    call = last_call(HOUR / 10, Clock())
    assert call.refuses(SLOW)
    assert "the deadline leaves no time to submit anything: a task takes up to 10 min" in (
        call.sentence
    )


@pytest.mark.parametrize(
    ("times", "expected"),
    [([5.0], 5.0), ([1.0, 9.0], 9.0), (list(range(1, 11)), 9.0), (list(range(1, 101)), 90.0)],
)
def test_quantile_is_a_time_that_was_seen(times: list[float], expected: float) -> None:
    assert History(times).quantile(0.9) == expected


def test_open_task_is_collected_after_the_last_call(tmp_path: Path) -> None:
    """Nothing new is submitted, and the run does not wait for its deadline."""

    async def story(stages: Stages) -> tuple[int, ExitCode, list[str], float]:
        stages.state.times = {KIND: [100.0]}
        await stages.wire()
        old, new = job("old"), job("new")
        await stages.state.commit(Put(tried(opened("7"), old, "kb-0")))
        stages.api.queries = [FAILED]
        plan = await feed(stages, new, old)
        code = stages.counts.exit_code(plan, stages.stop)
        return stages.api.count("submit"), code, sorted(stages.counts.left), stages.loop.time()

    sent, code, left, seconds = play(tmp_path, story, deadline_s=200.0, proved_at=EPOCH)
    assert (sent, code, left) == (0, ExitCode.LIMIT, ["new"])
    assert seconds < 200.0


def test_job_that_waited_past_its_last_call_is_left(tmp_path: Path) -> None:
    """The slot comes free too late: the request does not go out, and nothing is on disk."""

    async def story(stages: Stages) -> tuple[int, list[str], list[str]]:
        stages.state.times = {KIND: [100.0]}
        await stages.wire()
        old, new = job("old"), job("new")
        await stages.state.commit(Put(tried(opened("7"), old, "kb-0")))
        pending = Found(Task("7", TaskStatus.PROCESSING))
        stages.api.queries = [*[pending] * 4, FAILED]
        stages.api.submits = [Created(Task("8", TaskStatus.SUBMITTED))]
        await feed(stages, new, old)
        return stages.api.count("submit"), sorted(stages.counts.left), list(stages.state.attempts)

    limits = {"max_in_flight": 1, "poll_interval_s": 100.0, "deadline_s": 500.0}
    assert play(tmp_path, story, proved_at=EPOCH, **limits) == (0, ["new"], ["kb-0"])


def test_deadline_at_a_time_of_day_is_the_next_one() -> None:
    six = Limits().with_given(deadline_s=time(6))
    now = datetime(2026, 11, 28, 2).timestamp()  # noqa: DTZ001 - local
    assert six.seconds_left(now) == 4 * HOUR
    assert six.seconds_left(now + 5 * HOUR) == 23 * HOUR
    assert six.with_given(deadline_s=60.0).seconds_left(now) == 60.0
    assert Limits().seconds_left(now) is None


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.MANIFEST, ["new", "changed", "new", "forced", "retry", "retry"]),
        (Order.NEW_FIRST, ["new", "new", "changed", "forced", "retry", "retry"]),
        (Order.CHANGED_FIRST, ["changed", "new", "new", "forced", "retry", "retry"]),
    ],
)
def test_order_puts_retries_last(order: Order, expected: list[str]) -> None:
    actions = ["retry", "new", "changed", "new", "retry", "forced"]
    between = Decision(Action.RESUME, "open", "")
    planned = [Decision(Action(name), f"j{place}", "") for place, name in enumerate(actions)]
    decisions = Decisions(decision for each in planned for decision in (each, between))
    found = list(in_order(decisions, order))
    assert [decision.action.value for _, decision in found] == expected
    assert [place for place, _ in found] == [0, 2, 4, 6, 8, 10]
