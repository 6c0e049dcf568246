"""Refusals are counted by time and code, in bounded room."""

from __future__ import annotations

from batch import events
from batch.job import Failure, FailureKind
from batch.run.refusals import MOST, Refusals


class Clock:
    at = 100.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> float:
        return self.at


def delayed(code: str | None, http_status: int | None = 429) -> events.Delayed:
    failure = Failure(FailureKind.RATE_LIMITED, "wait", code=code, http_status=http_status)
    return events.Delayed("job", failure, 1.0)


def test_refusals_are_counted_by_second_and_code() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for event in (delayed("1303"), delayed("1303"), delayed(None), delayed(None, None)):
        refusals.notify(event)
    clock.at += 7.5
    refusals.notify(delayed("1303"))
    refusals.notify(events.Warned("nothing of it"))
    assert refusals.marks == [
        (0, "1303", 2),
        (0, "429", 1),
        (0, "no connection", 1),
        (7, "1303", 1),
    ]


def test_long_run_has_coarser_marks() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(3 * MOST):
        refusals.notify(delayed("1303"))
        clock.at += 10
    marks = refusals.marks
    assert MOST // 2 <= len(marks) <= MOST
    assert sum(count for *_, count in marks) == 3 * MOST
    assert marks[-1][0] <= clock.at - 100
