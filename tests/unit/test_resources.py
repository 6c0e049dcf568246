"""Limits of a run are fitted to the descriptors that are left."""

from __future__ import annotations

import asyncio
import resource
import threading

import pytest

from batch.errors import StateError
from batch.manifest.limits import Limits, Rate
from batch.run.resources import fit, raise_descriptor_limit, run_loop, start_pool
from batch.run.turns import POLLS_AT_ONCE

WANTED = Limits(max_in_flight=50, max_downloads=10)


@pytest.mark.parametrize("is_embedded", [False, True])
def test_enough_descriptors_change_nothing(is_embedded: bool) -> None:
    assert fit(WANTED, is_embedded=is_embedded, room=1000).limits == WANTED
    assert fit(WANTED, is_embedded=is_embedded).limits == WANTED


@pytest.mark.parametrize("is_embedded", [False, True])
def test_no_more_is_open_than_there_is_room(is_embedded: bool) -> None:
    """A submission and a query for each task in flight, a connection and a file for a download."""
    ends = 2 if is_embedded else 1
    for room in range(7, 300):
        granted = fit(WANTED, is_embedded=is_embedded, room=room)
        limits = granted.limits
        assert granted.queries >= limits.max_in_flight >= 1
        sockets = limits.max_in_flight + granted.queries + limits.max_downloads
        assert sockets * ends + limits.max_downloads <= room


@pytest.mark.parametrize(
    ("rate", "timeout_s", "fits"), [(60.0, 30.0, True), (500.0, 30.0, True), (700.0, 30.0, False)]
)
def test_tasks_that_wait_hold_no_descriptor(rate: float, timeout_s: float, fits: bool) -> None:
    """Twenty thousand fit into as many descriptors; only submissions hold one each."""
    wanted = Limits(max_in_flight=20_000, submit_rate=Rate(rate, 1.0), request_timeout_s=timeout_s)
    granted = fit(wanted, is_embedded=False, room=19_900)
    assert (granted.limits == wanted) == fits
    assert granted.queries >= 2 * POLLS_AT_ONCE
    submissions = min(granted.limits.max_in_flight, rate * timeout_s)
    assert submissions + granted.queries + 2 * wanted.max_downloads <= 19_900


@pytest.mark.parametrize("room", [-5, 0, 1, 2, 3])
def test_too_few_descriptors_are_told(room: int) -> None:
    with pytest.raises(StateError, match="ulimit -n.*nothing was sent"):
        fit(WANTED, is_embedded=False, room=room)


def test_limit_of_descriptors_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(before[1], 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_pool_runs_before_it_gets_work() -> None:
    before = threading.active_count()
    with start_pool(3, "trial") as pool:
        assert threading.active_count() == before + 3
        assert pool.submit(sum, [1, 2]).result() == 3


def test_loop_ends_without_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it returns is returned, and what it raises is raised."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main(number: int) -> int:
        found = await asyncio.to_thread(int, number)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        return 1 // found

    assert run_loop(main(1)) == 1
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError):
        run_loop(main(0))


def test_pool_waits_for_threads_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may count a thread for a moment that has ended."""
    start, refusals = threading.Thread.start, iter([True] * 6)

    def refuse_at_first(thread: threading.Thread) -> None:
        if next(refusals, False):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_at_first)
    with start_pool(4, "trial") as pool:
        assert pool.submit(sum, [1, 2]).result() == 3
