"""Readers of one foreign value each, from JSON or from a header.

Each takes anything that `parse` returns, and returns None for a value of another kind; none raises.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

T = TypeVar("T")

MAX_RETRY_AFTER_S = 86_400.0
_MAX_ID = 128  # characters; Kling's ids have 18 or 19 digits
_MAX_INT = 40  # digits; a longer number stays text
_MOMENT_FROM = 1e9  # a wait of more than 30 years; September 2001 as a moment
_MILLISECONDS_FROM = 1e11  # an epoch beyond this (the year 5138) is in milliseconds

# How languages write "nothing" where an id should be.
_NO_IDS = frozenset({"0", ".", "..", "null", "none", "nil", "<nil>", "undefined"})
# An id becomes part of a path. The blank is the only white space that `isprintable` lets pass.
_NOT_IN_ID = frozenset(" /\\\ufffd")


# -- JSON ------------------------------------------------------------------------------------


def parse(text: str) -> Any:
    """Return parsed JSON, or None for anything else and for a bomb."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | str:
    # Ids beyond 2**53 must not lose a digit, and int() refuses thousands of them.
    return int(digits) if len(digits) <= _MAX_INT else digits


# Lenient (strict=False) about line ends inside strings: the task id beside them is worth money.
_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=lambda _: None, strict=False)


def as_dict(value: Any) -> dict[str, Any] | None:
    """Return an object that may be wrapped in a list of one, or written into a text."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        start = value.find("{")
        try:
            value = _DECODER.raw_decode(value, start)[0] if start >= 0 else None
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


_ERROR_KEYS = {"code", "message", "msg", "error"}


def as_error(value: Any) -> dict[str, Any] | None:
    """Return an error that is an object, or is written into a text; other braces are just text."""
    found = as_dict(value)
    return found if found is not None and _ERROR_KEYS & {key.lower() for key in found} else None


def find(layers: Iterable[dict[str, Any]], read: Callable[[Any], T | None], *keys: str) -> T | None:
    """Return the first value of any of *keys* that *read* can read, outermost layer first."""
    for layer in layers:
        for key in keys:
            if key in layer and (value := read(layer[key])) is not None:
                return value
    return None


def flat(layer: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its keys in one spelling: `errorCode` and `error_code` are `errorcode`."""
    return {key.lower().replace("_", ""): value for key, value in layer.items()}


# -- values -------------------------------------------------------------------------


def identifier(value: Any) -> str | None:
    """Read an id, as text. A float has lost its digits already."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if value > 0 else None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ID or value.lower() in _NO_IDS:
        return None
    return value if value.isprintable() and _NOT_IN_ID.isdisjoint(value) else None


def positive(value: Any) -> float | None:
    """Read a number above zero, which may be written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def epoch(value: Any) -> float | None:
    """Read a time in seconds or milliseconds since the epoch, and return it in seconds."""
    number = positive(value)
    if number is None:
        return None
    seconds = number / 1_000 if number >= _MILLISECONDS_FROM else number
    return seconds if seconds < _MILLISECONDS_FROM else None


# -- headers ---------------------------------------------------------------------------------


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return the header *name* (lower case), however it is written."""
    return next((value for key, value in headers.items() if key.lower() == name), None)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Read a Retry-After header: seconds from *now* (epoch seconds), or None if it says nothing.

    Both forms of RFC 9110 (10.2.3), fractions, and a moment since the epoch: a number of 10^9 and
    above. Never negative, never more than a day.
    """
    text = (value or "").strip()[:64]
    try:
        if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", text):
            delay = float(text)
            if delay >= _MOMENT_FROM and (moment := epoch(delay)) is not None:
                delay = moment - now
        else:
            moment = parse_date(text)
            if moment is None:
                return None
            delay = moment - now
    except (ValueError, OverflowError):
        return None
    return min(max(delay, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(delay) else None


def is_carried_out(status: int, location: str | None, path: str) -> bool:
    """Return whether a redirect leads to what a POST to *path* has made, and not to another address.

    303 is meant for that (RFC 9110, 15.4.4), and also leads to log-ins; 301 and 302 are used for it, too.
    """
    target = re.split("[?#]", location or "")[0].rstrip("/")
    if status in {301, 302}:
        return f"{path}/" in target
    last = target.rpartition("/")[2]
    is_id = len(last) > 3 and re.search(r"\d", last) is not None
    return status == 303 and is_id and not target.endswith(path)


def parse_date(value: str | None) -> float | None:
    """Return the moment that a header names (epoch seconds), or None if it is none."""
    try:
        date = parsedate_to_datetime((value or "").strip()[:64])
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, LookupError):
        return None
