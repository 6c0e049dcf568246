"""Local days and months that begin at a time of day, for example at noon, so that no night is cut.

A zone of None is the machine's own (TZ, /etc/localtime). A day is as long as the clocks make it: 23 or
25 hours where they change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, tzinfo

from batch.frozen import frozen

MIDNIGHT = time()
TIME_PATTERN = r"^([01]?[0-9]|2[0-3]):[0-5][0-9]$"
_DAY = timedelta(days=1)


def parse_time(text: str) -> time:
    """Return a time of day: `06:00`, `6:00`, `23:30`.

    Raises:
        ValueError: anything else; the message shows an example.
    """
    if not re.fullmatch(TIME_PATTERN, text.strip(), re.ASCII):
        raise ValueError(f"{text[:40]!r} is not a valid time of day; for example 06:00 or 23:30")
    hour, minute = text.strip().split(":")
    return time(int(hour), int(minute))


@frozen
class Span:
    """A day or a month, in seconds since the epoch; *ends* is the first moment after it.

    *first* is the date on which it begins.
    """

    first: date
    begins: float
    ends: float

    def __contains__(self, at: float) -> bool:
        return self.begins <= at < self.ends


def day_of(at: float, starts: time = MIDNIGHT, zone: tzinfo | None = None) -> Span:
    """Return the day that a moment is in; it is named by the date on which it *starts*."""
    return _span_of(at, starts, zone, lambda day: day, lambda day: day + _DAY)


def month_of(at: float, starts: time = MIDNIGHT, zone: tzinfo | None = None) -> Span:
    """Return the month that a moment is in; it begins with its first day, so no day is in two."""
    return _span_of(at, starts, zone, lambda day: day.replace(day=1), _next_month)


def next_time(at: float, of_day: time, zone: tzinfo | None = None) -> float:
    """Return the next moment after *at* when a local clock shows *of_day*."""
    return day_of(at, of_day, zone).ends


def local_date(at: float, zone: tzinfo | None = None) -> date:
    """Return the date that a local calendar shows."""
    return datetime.fromtimestamp(at, zone).date()


def local_minute(at: float, zone: tzinfo | None = None) -> str:
    """Return date and time as a local clock shows them, for messages."""
    return f"{datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M}"


def local_second(at: float, zone: tzinfo | None = None) -> str:
    """Return date and time to the second, as a local clock shows them."""
    return f"{datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M:%S}"


def _span_of(
    at: float,
    starts: time,
    zone: tzinfo | None,
    first: Callable[[date], date],
    following: Callable[[date], date],
) -> Span:
    day = first(local_date(at, zone))
    # More than once where the zone has left out a date: both of its ends are one moment then.
    while _moment(day, starts, zone) > at:
        day = first(day - _DAY)
    while (ends := _moment(following(day), starts, zone)) <= at:
        day = following(day)
    return Span(day, _moment(day, starts, zone), ends)


def _moment(day: date, of_day: time, zone: tzinfo | None) -> float:
    """Return when a local clock shows this; where it jumps over it, when it would have shown it."""
    return datetime.combine(day, of_day, zone).timestamp()


def _next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
