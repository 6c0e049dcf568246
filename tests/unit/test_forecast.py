"""How long a run will go on yet."""

from __future__ import annotations

from typing import Any

import pytest

from batch.cli.forecast import Outlook, in_words, seconds_left

MINUTE = [60.0]


def left(**values: Any) -> float | None:
    """Forecast, with plenty of everything that is not given."""
    plenty: dict[str, Any] = {
        "waiting": 0,
        "ages": (),
        "to_download": 0,
        "times": MINUTE,
        "slots": 100,
        "interval_s": 0.0,
    }
    return seconds_left(Outlook(**plenty | values))


def test_nothing_to_do_takes_no_time() -> None:
    assert left(times=()) == 0


def test_unknown_generation_times_give_no_forecast() -> None:
    assert left(waiting=1, times=()) is None
    assert left(ages=[5.0], times=()) is None


def test_slots_bound_the_run() -> None:
    """Ten minutes of work for two, and for two that are half way through theirs."""
    assert left(waiting=10, slots=2) == 300
    assert left(waiting=10, slots=2, ages=[30.0, 30.0]) == 330


def test_rate_bounds_the_run() -> None:
    """The tenth goes out after 90 s."""
    assert left(waiting=10, interval_s=10.0) == 150


def test_last_open_task_decides() -> None:
    """Of two of the same age, one is taken for the longer kind."""
    assert left(ages=[5.0, 5.0], times=[10.0, 100.0]) == 95


def test_overdue_task_is_given_a_quarter_more() -> None:
    assert left(ages=[80.0]) == 20


def test_downloads_are_waited_for() -> None:
    """Those that queue, or the one of the last task."""
    assert left(to_download=8, download_s=10.0, downloads=4) == 20
    assert left(ages=[30.0], download_s=10.0, downloads=4) == 40


def test_more_open_tasks_than_slots_are_waited_for() -> None:
    """An earlier run may have had more."""
    assert left(waiting=1, slots=2, ages=[0.0, 20.0, 40.0]) == 40 + 60


@pytest.mark.parametrize("waiting", [600, 100_000])
def test_many_jobs_are_forecast_quickly(waiting: int) -> None:
    times = [50.0, 60.0, 70.0]
    found = left(waiting=waiting, slots=5, times=times)
    assert found == pytest.approx(waiting * 60 / 5, rel=0.02)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (59, "less than a minute"),
        (60, "about 1 min"),
        (14 * 60 + 20, "about 14 min"),
        (33 * 60, "about 35 min"),
        (59 * 60, "about 1 h"),
        (62 * 60, "about 1 h"),
        (83 * 60, "about 1 h 25 min"),
        (12.4 * 3600, "about 12 h"),
    ],
)
def test_forecast_is_said_roughly(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
