"""Single values: when to come back, and what a link is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.provider.fields import parse_retry_after
from batch.provider.links import as_sent, is_same_origin

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
        ("1445412510", 30.0),
        ("1445412510.5", 30.5),
        ("1445412510500", 30.5),
        ("1445412470", 0.0),
        ("1000000000", 0.0),
        ("9999999999", 86_400.0),
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


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example/v.mp4", True),
        ("https://API.example:443/other/path", True),
        ("http://api.example/v.mp4", False),
        ("https://api.example:8443/v.mp4", False),
        ("https://cdn.api.example/v.mp4", False),
        ("https://api.example.evil/v.mp4", False),
        ("https://api.example@evil/v.mp4", False),
        ("https://joe@api.example/v.mp4", False),
        ("https://[::1", False),
        ("/v.mp4", False),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, *, expected: bool) -> None:
    assert is_same_origin(url, "https://api.example/kling/") is expected


def test_host_name_is_sent_in_ascii() -> None:
    assert as_sent("https://bücher.example:81/a?b") == "https://xn--bcher-kva.example:81/a?b"


@given(st.text(st.characters(codec="utf-8", min_codepoint=33), max_size=30))
def test_any_path_is_sent_in_ascii(path: str) -> None:
    sent = as_sent(f"https://h.example/{path}")
    assert sent.isascii()
    assert " " not in sent
