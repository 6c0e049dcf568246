"""Single values: when to come back, and what a link is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.provider.fields import parse_retry_after

NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("-3", 0.0),
        ("999999999", 86_400.0),
        ("9" * 60, 86_400.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 9999 07:28:30 GMT", 86_400.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("٣", None),
        ("Wed, 99 Oct 2015 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_moment(value: str | None, expected: float | None) -> None:
    """Seconds or a date, within a day, or nothing."""
    assert parse_retry_after(value, NOW) == expected


@given(st.text())
def test_any_retry_after_is_read_without_raising(value: str) -> None:
    """And what is returned is a time that one can wait."""
    delay = parse_retry_after(value, NOW)
    assert delay is None or 0 <= delay <= 86_400
