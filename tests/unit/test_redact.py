"""No secret is shown, however it is spelled, and nothing else is touched."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.redact import MASKED_KEY, Mask, _scrub, clean, redact

KEY = "Zm9vYmFy/2Jhei+xdWV1eA=="


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
        ("via http://joe:p@ssword@proxy:3128", "via http://proxy:3128"),
        ("via socks5h://joe:password@proxy", "via socks5h://proxy"),
        ("X-Amz-Signature=0a1b2c X-Amz-Date=2026", "X-Amz-Signature=… X-Amz-Date=…"),
        ("mode=std x=1", "mode=std x=1"),
        ("雨の夜 👩‍👩‍👧", "雨の夜 👩‍👩‍👧"),
    ],
)
def test_foreign_text_becomes_one_harmless_line(text: str, expected: str) -> None:
    """No control codes, no reversed text, no secrets; other scripts are left alone."""
    assert clean(text) == expected


def test_long_text_is_cut() -> None:
    """A log line is a line."""
    assert clean("x" * 400) == "x" * 299 + "…"
    assert clean("abc", limit=0) == ""
    assert clean("abc", limit=1) == "…"
    assert len(clean("x" * 1_000_000)) == 300


@given(st.text(), st.integers(0, 50))
def test_cleaned_text_is_printable_and_short(text: str, limit: int) -> None:
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
def test_unsuspicious_text_takes_the_quick_way(text: str, limit: int) -> None:
    """The quick way out is no other rule: it says what the whole treatment says."""
    assert clean(text, limit) == _scrub(text, limit)


@given(
    st.lists(
        st.sampled_from(("?", "&", "%3f", "%26", "%3d", "=", "a", "%", "-", "/", " ", '"')),
        max_size=14,
    ).map("".join)
)
def test_queries_match_the_plain_rule(text: str) -> None:
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
    "written",
    [
        KEY,
        json.dumps(KEY),
        KEY.replace("/", r"\/"),
        json.dumps({"message": json.dumps({"key": KEY}).replace("/", r"\/")}),
        "".join(f"\\u{ord(char):04x}" for char in KEY),
        "".join(f"\\u{ord(char):04X}" for char in KEY),
        json.dumps("".join(f"\\u{ord(char):04x}" for char in KEY)),
        KEY.replace("=", r"\u003d").replace("+", r"\u002B"),
        quote(KEY, safe=""),
        quote(KEY),
    ],
)
def test_key_is_masked_in_any_spelling(written: str) -> None:
    masked = Mask(KEY).body(f"bad key {written} here".encode()).decode()
    assert MASKED_KEY in masked
    assert masked.replace(MASKED_KEY, "").strip('"{} ').startswith("bad key")
    for part in ("Zm9vYmFy", "2Jhei", "xdWV1eA", "005a", "005A"):
        assert part not in masked


@given(
    st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40),
    st.text(max_size=20),
)
def test_any_key_is_masked_inside_json(key: str, around: str) -> None:
    """As text, with escapes or without, and as JSON inside JSON."""
    for ascii_only in (True, False):
        inner = json.dumps(around + key, ensure_ascii=ascii_only)
        for written in (inner, json.dumps(inner, ensure_ascii=ascii_only)):
            assert MASKED_KEY in Mask(key).body(written.encode(errors="surrogatepass")).decode()


@pytest.mark.parametrize("raw", [b'{"code":0}', b'{"url":"https:\\/\\/h\\/x%2Fy"}', b"", b"\xff\\"])
def test_answer_without_the_key_is_unchanged(raw: bytes) -> None:
    assert Mask(KEY).body(raw) == raw
    assert Mask("short").body(raw + b"short") == raw + b"short"
    assert Mask("").body(raw) == raw


def test_headers_are_masked_or_passed_on() -> None:
    plain = {"X-Request-Id": "r-1"}
    assert Mask(KEY).headers(plain) is plain
    assert Mask(KEY).headers({**plain, "X": f"a {KEY}"}) == {**plain, "X": f"a {MASKED_KEY}"}


@pytest.mark.parametrize("unit", ["\\", "%", "\\Z", "%5a", "\\u005a", KEY[:-1] + "\\"])
def test_large_answer_is_masked_quickly(unit: str) -> None:
    """What takes a second here takes the whole run's second."""
    raw = (unit * (1024 * 1024 // len(unit)) + "\\%").encode()
    begun = time.process_time()
    assert Mask(KEY).body(raw) == raw
    assert time.process_time() - begun < 10.0


def test_several_secrets_are_masked_longest_first() -> None:
    mask = Mask("password", "password-long", "short", shown="(secret)")
    assert mask.text("a password-long, a password, a short") == "a (secret), a (secret), a short"
    assert Mask("caf\u00e9-\udcff-\u591c", shown="-").text("x caf\u00e9-\udcff-\u591c y") == "x - y"


def test_redaction_keeps_the_lines_of_a_report() -> None:
    text = 'File "a.py", line 11\n  get("https://h/v?sig=1")\n    sk-abcdefgh\n'
    assert redact(text) == 'File "a.py", line 11\n  get("https://h/v?…")\n    sk-…\n'
