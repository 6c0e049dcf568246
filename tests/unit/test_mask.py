"""The key is found however an answer spells it, and nothing else is touched."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.provider.mask import MASKED, Mask

KEY = "Zm9vYmFy/2Jhei+xdWV1eA=="


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
def test_the_key_is_masked_in_any_spelling(written: str) -> None:
    masked = Mask(KEY).body(f"bad key {written} here".encode()).decode()
    assert MASKED in masked
    assert masked.replace(MASKED, "").strip('"{} ').startswith("bad key")
    for part in ("Zm9vYmFy", "2Jhei", "xdWV1eA", "005a", "005A"):
        assert part not in masked


@given(
    st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40),
    st.text(max_size=20),
)
def test_whatever_the_key_is_it_does_not_survive_json(key: str, around: str) -> None:
    """As text, with escapes or without, and as JSON inside JSON."""
    for ascii_only in (True, False):
        inner = json.dumps(around + key, ensure_ascii=ascii_only)
        for written in (inner, json.dumps(inner, ensure_ascii=ascii_only)):
            assert MASKED in Mask(key).body(written.encode(errors="surrogatepass")).decode()


@pytest.mark.parametrize("raw", [b'{"code":0}', b'{"url":"https:\\/\\/h\\/x%2Fy"}', b"", b"\xff\\"])
def test_an_answer_without_the_key_is_left_as_it_is(raw: bytes) -> None:
    assert Mask(KEY).body(raw) == raw
    assert Mask("short").body(raw + b"short") == raw + b"short"
    assert Mask("").body(raw) == raw


def test_headers_are_masked_and_otherwise_passed_on() -> None:
    plain = {"X-Request-Id": "r-1"}
    assert Mask(KEY).headers(plain) is plain
    assert Mask(KEY).headers({**plain, "X": f"a {KEY}"}) == {**plain, "X": f"a {MASKED}"}


@pytest.mark.parametrize("unit", ["\\", "%", "\\Z", "%5a", "\\u005a", KEY[:-1] + "\\"])
def test_a_large_answer_is_searched_at_once(unit: str) -> None:
    """What takes a second here takes the whole run's second."""
    raw = (unit * (1024 * 1024 // len(unit)) + "\\%").encode()
    begun = time.process_time()
    assert Mask(KEY).body(raw) == raw
    assert time.process_time() - begun < 10.0
