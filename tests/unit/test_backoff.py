"""How long to wait before the same request goes out again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.run.backoff import backoff, delay


def rng() -> random.Random:
    return random.Random(1)


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (9, 60.0)]
)
def test_the_wait_doubles_up_to_the_cap(attempt: int, ceiling: float) -> None:
    """Between a half and all of it, spread evenly."""
    dice = rng()
    waits = [backoff(attempt, base_s=1.0, cap_s=60.0, rng=dice) for _ in range(2_000)]
    assert ceiling / 2 <= min(waits) < 0.51 * ceiling
    assert 0.99 * ceiling < max(waits) <= ceiling


@given(
    st.integers(-10, 10**9),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(0, 2**32),
)
def test_no_wait_is_negative_or_beyond_the_cap(
    attempt: int, base_s: float, cap_s: float, seed: int
) -> None:
    """At any attempt; the ten thousandth overflows nothing."""
    wait = backoff(attempt, base_s=base_s, cap_s=cap_s, rng=random.Random(seed))
    assert 0 <= wait <= cap_s


def test_the_dice_are_the_callers() -> None:
    """The same seed waits the same."""
    first = backoff(4, base_s=1.0, cap_s=60.0, rng=rng())
    assert first == backoff(4, base_s=1.0, cap_s=60.0, rng=rng())


@pytest.mark.parametrize(
    ("retry_after_s", "least", "most"), [(None, 2, 4), (1, 2, 4), (90, 90, 90)]
)
def test_the_servers_word_wins_if_it_is_longer(
    retry_after_s: float | None, least: float, most: float
) -> None:
    """Even beyond our cap; never if it is shorter than our own wait."""
    wait = delay(3, retry_after_s, base_s=1.0, cap_s=60.0, rng=rng())
    assert least <= wait <= most
