"""The limits of a manifest: how fast, how much, how long, and how they are written.

`LIMIT_KEYS` is the one table: the key's field, its form, its JSON Schema and its sentence of help.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import time
from enum import StrEnum
from typing import Any, NamedTuple

from batch.days import MIDNIGHT, TIME_PATTERN, next_time, parse_time
from batch.frozen import frozen
from batch.prices import MONEY_PATTERN, parse_money

JsonSchema = dict[str, Any]

KLING_PROMPT_CHARS = 2_500  # accepted by newer Kling; CometAPI documents 500 and 200


# -- the forms of values ---------------------------------------------------------------------


@frozen
class Rate:
    """A number of requests per period; both greater than 0."""

    count: float
    period_s: float

    def __str__(self) -> str:
        """Return the rate as a manifest writes it."""
        unit = next((name for name, s in _PERIODS.items() if s == self.period_s), None)
        return f"{self.count:g}/{unit or f'{self.period_s:g}s'}"

    @property
    def per_second(self) -> float:
        """Return the number of requests per second."""
        return self.count / self.period_s


_PERIODS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS = {"ms": 0.001, "sec": 1.0, "m": 60.0, **_PERIODS}
_SWITCH = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
_SWITCH_PATTERN = "^([Tt]rue|[Ff]alse|on|off|yes|no)$"
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_STEP = rf"({_NUMBER}) ?(ms|sec|s|min|m|h|d)"
DURATION_PATTERN = (
    r"^[0-9]+(\.[0-9]+)?( ?(ms|sec|s|min|m|h|d)( ?[0-9]+(\.[0-9]+)? ?(ms|sec|s|min|m|h|d))*)?$"
)
RATE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?/ ?([0-9]+(\.[0-9]+)? ?)?(ms|sec|s|min|m|h|d)$"
_MAX_DURATION_S = 10 * 366 * 86400.0


def parse_duration(text: str) -> float:
    """Return a duration in seconds: `5s`, `30m`, `1h30m`, `250ms`, or a plain number.

    Raises:
        ValueError: anything else; the message shows an example.
    """
    text = text.strip()
    if re.fullmatch(_NUMBER, text, re.ASCII):
        seconds = float(text)
    elif re.fullmatch(rf"{_STEP}(?: ?{_STEP}){{0,5}}", text, re.ASCII):
        seconds = sum(float(n) * _UNITS[unit] for n, unit in re.findall(_STEP, text, re.ASCII))
    else:
        raise ValueError(f"{text[:40]!r} is not a valid duration; for example 5s or 1h30m")
    if seconds > _MAX_DURATION_S:
        raise ValueError(f"{text[:40]!r} is longer than ten years")
    return seconds


def parse_rate(text: str) -> Rate:
    """Return a rate: `60/min`, `2/s`, `100/h`, also `5/10s`.

    Raises:
        ValueError: anything else, and a rate of 0, which would wait forever.
    """
    form = rf"({_NUMBER}) ?/ ?(?:({_NUMBER}) ?)?(ms|sec|s|min|m|h|d)"
    found = re.fullmatch(form, text.strip(), re.ASCII)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a valid rate; for example 60/min, 2/s or 100/h")
    count, period_s = float(found[1]), float(found[2] or 1) * _UNITS[found[3]]
    if not (count > 0 and period_s > 0 and math.isfinite(count / period_s)):
        raise ValueError(f"the rate {text[:40]!r} must be greater than 0")
    return Rate(count, period_s)


def positive_duration(text: str) -> float:
    """Return a duration that is longer than 0s, in seconds.

    Raises:
        ValueError: anything else.
    """
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("it must be longer than 0s")
    return seconds


def _deadline(text: str) -> float | time:
    """Return a deadline: how long after the start of a run, or at which time of day."""
    if ":" in text:
        return parse_time(text)
    try:
        return positive_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}; or a time of day, for example 06:00") from None


def _whole(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
            raise ValueError(f"{text[:40]!r} must be a whole number from 1 to {most}")
        return int(text)

    return parse


def _order(text: str) -> Order:
    if text not in set(Order):
        raise ValueError(f"{text[:40]!r} is not a valid order; it is one of {', '.join(Order)}")
    return Order(text)


def parse_switch(text: str) -> bool:
    """Return what a switch is set to.

    Raises:
        ValueError: it is neither true nor false.
    """
    if text.lower() not in _SWITCH:
        raise ValueError(f"{text[:40]!r} must be true or false")
    return _SWITCH[text.lower()]


# -- limits ----------------------------------------------------------------------------------


class Order(StrEnum):
    """Which jobs are paid for first. What has failed before comes last in each."""

    MANIFEST = "manifest"
    NEW_FIRST = "new_first"
    CHANGED_FIRST = "changed_first"


class Limits(NamedTuple):
    """How fast, how much, how long.

    Days and months begin at *day_starts*, local time. Of *deadline_s* and *deadline_at* one is set at
    most. *max_attempts_per_run* is as many as *max_attempts* where it is not set.
    """

    submit_rate: Rate = Rate(60, 60.0)
    max_in_flight: int = 5
    max_downloads: int = 4
    poll_interval_s: float = 5.0
    request_timeout_s: float = 30.0
    stall_timeout_s: float = 30.0
    task_timeout_s: float = 1800.0
    max_attempts: int = 3
    settle_time_s: float = 30.0
    max_attempts_per_run: int | None = None
    give_up_after: int | None = None
    order: Order = Order.MANIFEST
    deadline_s: float | None = None
    deadline_at: time | None = None
    budget_usd: float | None = None
    budget_per_day_usd: float | None = None
    budget_per_month_usd: float | None = None
    day_starts: time = MIDNIGHT
    max_plan_cost_usd: float | None = None
    max_prompt_chars: int = 500
    max_negative_prompt_chars: int = 200
    share_account: bool = True

    def with_given(self, **values: Any) -> Limits:
        """Return these limits with *values* laid over them; `deadline_s` may be a time of day."""
        if "deadline_s" in values:
            deadline = values["deadline_s"]
            is_at = isinstance(deadline, time)
            values["deadline_at"] = deadline if is_at else None
            values["deadline_s"] = None if is_at else deadline
        return self._replace(**values)

    def seconds_left(self, now: float) -> float | None:
        """Return how long a run that begins *now* may take; None without a deadline."""
        if self.deadline_at is not None:
            return next_time(now, self.deadline_at) - now
        return self.deadline_s


DEFAULT_LIMITS = Limits()


class LimitKey(NamedTuple):
    """A key under `limits:`: the field it sets, its form, and its sentence of help."""

    field: str
    parse: Callable[[str], Any]
    shape: JsonSchema
    about: str


DURATION_SHAPE: JsonSchema = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": DURATION_PATTERN}]
}
_TIME_OF_DAY: JsonSchema = {"type": "string", "pattern": TIME_PATTERN}
SWITCH_SHAPE: JsonSchema = {
    "anyOf": [{"type": "boolean"}, {"type": "string", "pattern": _SWITCH_PATTERN}]
}
MONEY_SHAPE: JsonSchema = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": MONEY_PATTERN}]
}


def _money(field: str, about: str) -> LimitKey:
    return LimitKey(field, parse_money, MONEY_SHAPE, about)


def _count(field: str, most: int, about: str) -> LimitKey:
    number = {"type": "integer", "minimum": 1, "maximum": most}
    shape = {"anyOf": [number, {"type": "string", "pattern": "^[0-9]+$"}]}
    return LimitKey(field, _whole(most), shape, about)


def _time(field: str, about: str) -> LimitKey:
    return LimitKey(field, positive_duration, DURATION_SHAPE, about)


LIMIT_KEYS: dict[str, LimitKey] = {
    "submit_rate": LimitKey(
        "submit_rate",
        parse_rate,
        {"type": "string", "pattern": RATE_PATTERN},
        "How often the run submits a task: 60/min, 2/s, 100/h.",
    ),
    "max_in_flight": _count("max_in_flight", 100_000, "Tasks open at the provider at once."),
    "max_downloads": _count("max_downloads", 1_000, "Downloads at once."),
    "poll_interval": _time("poll_interval_s", "The shortest time between two polls of a task."),
    "request_timeout": _time("request_timeout_s", "The longest time for one request."),
    "stall_timeout": _time("stall_timeout_s", "A download that stalls for this long is retried."),
    "task_timeout": _time(
        "task_timeout_s", "A run polls a task for this long; the next resumes it."
    ),
    "max_attempts": _count("max_attempts", 100, "The most attempts (paid tasks) for one job."),
    "max_attempts_per_run": _count(
        "max_attempts_per_run", 100, "The most attempts for one job in one run."
    ),
    "give_up_after": _count(
        "give_up_after", 1_000, "A job that failed on so many days rests until it is changed."
    ),
    "order": LimitKey(
        "order",
        _order,
        {"enum": list(map(str, Order))},
        "Which jobs are paid for first; those that failed before always come last.",
    ),
    "settle_time": LimitKey(
        "settle_time_s",
        parse_duration,
        DURATION_SHAPE,
        'How long after a lost answer "not found" may still be wrong.',
    ),
    "deadline": LimitKey(
        "deadline_s",
        _deadline,
        {"anyOf": [*DURATION_SHAPE["anyOf"], _TIME_OF_DAY]},
        "When a run ends: after 5h, or at the next 06:00, local time. What could not be collected by"
        " then is not submitted.",
    ),
    "budget": _money("budget_usd", "The most USD for one run."),
    "budget_per_day": _money("budget_per_day_usd", "The most USD for one day."),
    "budget_per_month": _money("budget_per_month_usd", "The most USD for one month."),
    "day_starts": LimitKey(
        "day_starts",
        parse_time,
        _TIME_OF_DAY,
        "When a day begins, local time; 12:00 cuts no night in two.",
    ),
    "max_plan_cost": _money("max_plan_cost_usd", "A dearer plan submits nothing."),
    "max_prompt_chars": _count("max_prompt_chars", 100_000, "Longest prompt; newer Kling: 2500."),
    "share_account": LimitKey(
        "share_account",
        parse_switch,
        SWITCH_SHAPE,
        "Whether runs at once on this machine, with one key, share rate and slots.",
    ),
    "max_negative_prompt_chars": _count(
        "max_negative_prompt_chars", 100_000, "Longest negative prompt; newer Kling: 2500."
    ),
}
