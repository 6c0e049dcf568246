"""What a run has come to so far, told by its events."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable
from datetime import datetime, time
from types import FrameType
from typing import Any

import pytest

from batch import events
from batch.attempt import Phase
from batch.cli.progress import Expected, Progress
from batch.job import Failure, FailureKind
from batch.manifest.limits import Limits, Rate

REFUSED = Failure(FailureKind.RATE_LIMITED, "too many requests")
BROKEN = Failure(FailureKind.DOWNLOAD, "1 of 2 bytes came")
ROW: dict[str, Any] = {"status": "succeeded", "warnings": [], "file": "a", "bytes": 1}
FAILED = {"status": "failed", "error": {"kind": "moderation", "message": "no"}}


class Moment:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.s = 1000.0

    def monotonic(self) -> float:
        return self.s

    def now(self) -> float:
        return datetime(2026, 11, 28, 5, 58).timestamp()  # noqa: DTZ001 - local, as a deadline is


class Watched(Progress):
    """A run of ten jobs at 0.42 USD each."""

    def __init__(self, jobs: int = 10, times: tuple[float, ...] = (60.0,), **limits: Any) -> None:
        self.moment = Moment()
        costs = {f"job-{n}": 0.42 for n in range(jobs)}
        limits = {"submit_rate": Rate(1000, 1.0), "max_in_flight": 2} | limits
        expected = Expected("night", Limits(**limits), jobs, jobs, costs, list(times))
        super().__init__(expected, self.moment)

    def tell(self, *told: events.Event) -> Watched:
        for event in told:
            self.notify(event)
        return self


def submitted(n: int = 0) -> events.Submitted:
    return events.Submitted(f"job-{n}", str(n), f"kb-{n}", 1)


def ready(n: int = 0, seconds: float = 60.0) -> events.VideoReady:
    return events.VideoReady(f"job-{n}", str(n), seconds)


def ended(n: int = 0, row: dict[str, Any] = ROW, *, superseded: bool = False) -> events.JobEnded:
    return events.JobEnded(f"job-{n}", row, superseded)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([submitted(0), submitted(1)], (0, 2, 0, 0)),
        ([submitted(0), ready(0)], (0, 0, 1, 0)),
        ([submitted(0), ready(0), ended(0)], (1, 0, 0, 0)),
        ([submitted(0), ended(0, FAILED)], (1, 0, 0, 1)),
        ([ended(0, superseded=True)], (0, 0, 0, 0)),
        ([events.Resumed("job-0", Phase.OPEN, "8")], (0, 1, 0, 0)),
        ([events.Resumed("job-0", Phase.GENERATED, "8")], (0, 0, 1, 0)),
        ([events.Resumed("job-0", Phase.LOST, None)], (0, 0, 0, 0)),
        ([submitted(0), events.Polled("job-0", "0", "failed")], (0, 0, 0, 0)),
        ([submitted(0), events.JobLeft("job-0")], (0, 0, 0, 0)),
    ],
)
def test_jobs_are_counted_where_they_stand(told: Any, expected: Any) -> None:
    """Done, generating, downloading, failed."""
    view = Watched().tell(*told).view()
    assert (view.done, view.generating, view.downloading, view.failed) == expected
    assert view.all == 10


def instructions(act: Callable[[], object]) -> int:
    """Return how many instructions of Python *act* takes; unlike its time, the same each time."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "event", [submitted(7), events.Polled("job-7", "7", "processing"), ready(7), ended(7)]
)
def test_event_costs_the_same_among_many_tasks(event: events.Event) -> None:
    few, many = (Watched(jobs).tell(*map(submitted, range(jobs))) for jobs in (10, 1_000))
    assert instructions(lambda: many.notify(event)) == instructions(lambda: few.notify(event))


def test_money_counts_tasks_that_this_run_made() -> None:
    """One of an earlier run that is found again costs nothing now."""
    found = [events.Adopted(f"job-{n}", str(n), f"kb-{n}", is_new=n == 1) for n in (1, 2)]
    view = Watched(budget_usd=25.0).tell(submitted(0), *found).view()
    assert (view.spent_usd, view.budget_usd) == (0.84, 25.0)


def test_speed_is_that_of_the_last_seconds() -> None:
    run = Watched().tell(submitted(), ready())
    run.moment.s += 60
    run.tell(events.Downloading("job-0", 6_000_000))
    assert run.view().bytes_per_s == 1_000_000
    run.moment.s += 7
    assert run.view().bytes_per_s == 0
    assert run.tell(ended()).view().bytes_per_s is None


def test_forecast_is_right_within_a_tenth() -> None:
    """At any moment of a run whose tasks take between 40 and 80 s, as those of the past did."""
    times = [40.0 + n * 40 / 19 for n in range(20)]
    run = Watched(40, tuple(times), max_in_flight=4)
    begun, open_tasks, forecasts = run.moment.s, [], []
    for n in range(40):
        if len(open_tasks) == 4:
            run.moment.s, done = heapq.heappop(open_tasks)
            run.tell(ready(done, 60.0), ended(done))
        run.tell(submitted(n))
        heapq.heappush(open_tasks, (run.moment.s + times[n * 7 % 20], n))
        forecasts.append((run.moment.s - begun, run._left_s(run.moment.s)))
    took = max(open_tasks)[0] - begun
    for elapsed, left in forecasts[4:]:
        assert left is not None
        assert elapsed + left == pytest.approx(took, rel=0.1)


def test_forecast_needs_experience() -> None:
    run = Watched(times=()).tell(submitted())
    assert run.view().left is None
    assert run.tell(ready(seconds=60.0)).view().left == "about 5 min left"


def test_forecast_follows_what_the_provider_takes() -> None:
    """It has refused the second one: half as many slots, twice the time."""
    run = Watched()
    assert run.view().left == "about 5 min left"
    run.tell(submitted(), events.Delayed("job-1", REFUSED, 1.0))
    assert run.view().left == "about 10 min left"


def test_forecast_ends_at_the_deadline() -> None:
    assert Watched(deadline_s=120.0).view().left == "stops at its deadline, in about 2 min"
    assert Watched(deadline_at=time(6)).view().left == "stops at its deadline, in about 2 min"


def test_forecast_ends_with_the_budget() -> None:
    """It covers two jobs of ten."""
    assert Watched(budget_usd=1.0).view().left == "about 1 min left"


def test_silence_is_told_as_long_as_it_lasts() -> None:
    """With seconds that go on, and no forecast."""
    run = Watched().tell(submitted(), events.NotAnswering(5.0, "refused"))
    run.moment.s += 7
    silent = run.view()
    assert silent.notes == ("the provider has not answered for 12 s (refused); still trying",)
    assert silent.left is None
    assert run.tell(events.AnsweringAgain(12.0)).view().notes == ()


def test_long_pause_is_told_with_its_end() -> None:
    run = Watched().tell(events.Delayed("job-0", REFUSED, 40.0))
    run.moment.s += 10
    assert run.view().notes == ("refused for now (too many requests); trying again in 30 s",)
    run.moment.s += 30
    assert run.view().notes == ()
    assert Watched().tell(events.Delayed("job-0", REFUSED, 1.0)).view().notes == ()


def test_stop_is_told_until_the_end() -> None:
    """What is not submitted any more is not waited for."""
    run = Watched().tell(submitted(), events.Stopping("the budget is used up"))
    assert run.view().notes == ("the budget is used up",)
    assert run.view().left == "about 1 min left"


def test_trouble_goes_when_it_is_over() -> None:
    """A broken download that lands, a lost answer whose task is found; a failure stays."""
    broke = [events.DownloadBroke("job-0", BROKEN, 1, tries, 1.0) for tries in (1, 2)]
    run = Watched().tell(submitted(), ready(), broke[0])
    assert run.view().troubles == ()
    assert len(run.tell(broke[1]).view().troubles) == 1
    assert run.tell(ended()).view().troubles == ()
    run.tell(events.AnswerLost("job-1", "kb-1", BROKEN))
    assert len(run.view().troubles) == 1
    run.tell(events.Adopted("job-1", "1", "kb-1", is_new=True), ended(1, FAILED), submitted(2))
    assert run.view().troubles == ("job-1: failed (moderation): no",)
