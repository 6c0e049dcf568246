"""Two hundred seeds of the simulation; many more by `python tests/simulation/nights.py`."""

from __future__ import annotations

import re

import pytest
from night import play
from virtual_time import DeadlockError, VirtualLoop, run

BLOCK = 25


@pytest.mark.parametrize("first", range(0, 200, BLOCK))
def test_night_pays_nothing_twice_and_loses_nothing(first: int) -> None:
    """Every seed keeps every rule; a failure names the seed to replay verbosely."""
    broken = {
        f"nights.py --seed {seed} --verbose": report.violations
        for seed in range(first, first + BLOCK)
        if (report := play(seed)).violations
    }
    assert not broken


@pytest.mark.parametrize("first", range(0, 16, 4))
def test_year_with_a_person_pays_each_request_once(first: int) -> None:
    broken = {
        f"nights.py --years --seed {seed} --verbose": report.violations
        for seed in range(first, first + 4)
        if (report := play(seed, is_year=True)).violations
    }
    assert not broken


@pytest.mark.parametrize("seed", [360, 378, 448])
def test_backup_comes_back_where_an_id_is_taken_twice(seed: int) -> None:
    """Years that pay twice where nothing outside of the folder tells that it is old."""
    assert not play(seed, is_year=True).violations


@pytest.mark.parametrize("seed", [2, 87, 511])
def test_seed_repeats_its_night(seed: int) -> None:
    """Otherwise a failure could not be replayed."""
    first, second = (_trace(seed) for _ in range(2))
    assert first == second


def test_endless_wait_raises_deadlock() -> None:
    async def wait(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(DeadlockError):
        run(wait)


def _trace(seed: int) -> list[str]:
    # The run's own id is drawn by the operating system.
    return [re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN", line) for line in play(seed).trace]
