"""Foreign text: what may be shown of it; and headers that say when to come back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.provider.fields import parse_retry_after
from batch.redact import _scrub, clean, redact_url

NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a\r\nb\tc\x00d\x1b[31m", "a b c d [31m"),
        ("a\u202eb\u2066c\u200bd\ufeff", "a b c d"),
        ("see https://h.example/v.mp4?ksSecret=abc&x=1 now", "see https://h.example/v.mp4?… now"),
        ("https://u:p@h.example/v.mp4#t=1", "https://h.example/v.mp4?…"),
        ('url="https://h/v?sig=1"', 'url="https://h/v?…"'),
        ("https://h/v \n ?ksSecret=abc", "https://h/v ?…"),
        ("go=https%3A%2F%2Fh%2Fv%3FksSecret%3Dabc", "go=https%3A%2F%2Fh%2Fv?…"),
        ("key sk-abcdef0123456789 is bad", "key sk-… is bad"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
        ("authorization: bearer eyJa.b.c/d", "authorization: Bearer …"),
        ("eyJhbGci.eyJzdWIi.c2ln and eyJ-a", "… and eyJ-a"),
        ("eyJ-sk-abcdef0123", "eyJ-sk-…"),
        ("task-abcdef123 is fine", "task-abcdef123 is fine"),
        ("雨の夜 👩‍👩‍👧", "雨の夜 👩‍👩‍👧"),
    ],
)
def test_a_foreign_text_becomes_one_harmless_line(text: str, expected: str) -> None:
    """No control codes, no reversed text, no secrets; other scripts are left alone."""
    assert clean(text) == expected


def test_a_long_text_is_cut() -> None:
    """A log line is a line."""
    assert clean("x" * 400) == "x" * 299 + "…"
    assert clean("abc", limit=0) == ""
    assert clean("abc", limit=1) == "…"
    assert len(clean("x" * 1_000_000)) == 300


@given(st.text(), st.integers(0, 50))
def test_a_cleaned_text_is_printable_and_short(text: str, limit: int) -> None:
    """Whatever comes in."""
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert all(char.isprintable() or char in "\u200c\u200d" for char in cleaned)


@given(
    st.lists(
        st.sampled_from(
            (
                *("http://h/x", "HTTPS", "://", "u:p@h", "?", "&", "#", "%3F", "%3d", "=", "a=b"),
                *("sk-", "Sk-abcdef", "eyJ", "a.b.c", "Bearer", "bEARER ", " ", "  ", "\n", "é"),
                *("\u202e", "\u017fk-abcdef", "word", "-", "_", "."),
            )
        )
        | st.text(max_size=3),
        max_size=8,
    ).map("".join),
    st.integers(0, 60),
)
def test_a_text_without_anything_suspect_is_only_passed_on(text: str, limit: int) -> None:
    """The quick way out is no other rule: it says what the whole treatment says."""
    assert clean(text, limit) == _scrub(text, limit)


@given(
    st.lists(
        st.sampled_from(("?", "&", "%3f", "%26", "%3d", "=", "a", "%", "-", "/", " ", '"')),
        max_size=14,
    ).map("".join)
)
def test_a_query_is_found_wherever_the_plain_rule_finds_one(text: str) -> None:
    """The rule is written so that it takes no run of letters twice; it must mean the same."""
    plain = re.compile(r"(?i)(?:[?&]|%3f|%26)[\w.~%\-\[\]]+(?:=|%3d)\S*")
    assert clean(text) == " ".join(plain.sub("?…", " ".join(text.split())).split())


@given(st.text(alphabet="abcXYZ019_-", min_size=8, max_size=30), st.text(max_size=20))
def test_no_key_and_no_signature_survives(secret: str, around: str) -> None:
    """Whatever stands in front of the link."""
    text = clean(f"{around} https://h.example/v.mp4?ksSecret=Q{secret} sk-{secret}", limit=10_000)
    assert f"Q{secret}" not in text
    assert f"sk-{secret}" not in text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h.example/a/b.mp4?sig=1#t", "https://h.example/a/b.mp4"),
        ("https://u:p@h.example:8443/a", "https://h.example:8443/a"),
        ("https://[::1", "(unreadable URL)"),
    ],
)
def test_a_redacted_url_has_no_secret(url: str, expected: str) -> None:
    """Host and path are what helps; the rest is the key to the file."""
    assert redact_url(url) == expected


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
def test_retry_after_is_read_in_both_forms(value: str | None, expected: float | None) -> None:
    """Seconds or a date, within a day, or nothing."""
    assert parse_retry_after(value, NOW) == expected


@given(st.text())
def test_no_retry_after_raises(value: str) -> None:
    """And what is returned is a time that one can wait."""
    delay = parse_retry_after(value, NOW)
    assert delay is None or 0 <= delay <= 86_400
