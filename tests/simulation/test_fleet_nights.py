"""Some seeds of a fleet in virtual time, and each of its walls taken away.

Many more by `python tests/simulation/nights.py --fleet`.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fleet_night import ALL, Walls, play


@pytest.mark.parametrize("first", range(0, 24, 4))
def test_fleet_pays_once_and_loses_nothing(first: int) -> None:
    """Whichever machine dies, sleeps, is cut off or ended, at whatever step."""
    broken = {
        f"nights.py --fleet --seed {seed} --verbose": report.violations
        for seed in range(first, first + 4)
        if (report := play(seed)).violations
    }
    assert not broken


# Seeds that need the wall, found by trying many. In the storms workers are taken for dead within two
# seconds, answers are lost, and the provider takes a second request of the same id.
NEEDED = {
    "claims": (replace(ALL, claims=False), False, 37),
    "claims and indexes": (replace(ALL, claims=False, indexes=False), False, 44),
    "send deadline": (replace(ALL, send_deadline=False), True, 105),
    "one clock": (replace(ALL, one_clock=False), True, 44),
}


@pytest.mark.parametrize(("walls", "is_stormy", "seed"), NEEDED.values(), ids=NEEDED)
def test_fleet_without_the_wall_pays_twice(walls: Walls, is_stormy: bool, seed: int) -> None:
    assert play(seed, walls=walls, is_stormy=is_stormy).paid_twice
    assert not play(seed, is_stormy=is_stormy).paid_twice


def test_fleet_believes_no_answer_from_before_its_sleep() -> None:
    """A look-up was answered before the request of another worker arrived, and read long after."""
    assert not play(3553).violations


def test_claims_hold_without_the_indexes() -> None:
    """They are what is left to catch a bug."""
    assert not play(8, walls=replace(ALL, indexes=False)).violations


def test_seed_repeats_its_fleet() -> None:
    """Otherwise a failure could not be replayed."""
    first, second = (_trace(9) for _ in range(2))
    assert first == second


def _trace(seed: int) -> list[str]:
    return [re.sub(r"0x[0-9a-f]+", "", line) for line in play(seed).trace]
