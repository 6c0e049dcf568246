"""Local days and months that begin at a time of day, also where the clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.days import Span, day_of, month_of, next_time, parse_time

BERLIN = ZoneInfo("Europe/Berlin")
NOON = time(12)
ZONES = [
    *("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"),
    *("Africa/Casablanca", "Asia/Kathmandu", "America/Sao_Paulo"),
]


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def hours(span: Span) -> float:
    return (span.ends - span.begins) / 3600


@pytest.mark.parametrize(
    ("moment", "first"),
    [
        ("2026-11-28 11:59:59", date(2026, 11, 27)),
        ("2026-11-28 12:00", date(2026, 11, 28)),
        ("2026-11-29 02:15", date(2026, 11, 28)),
    ],
)
def test_day_begins_at_noon(moment: str, first: date) -> None:
    assert day_of(at(moment), NOON, BERLIN).first == first


def test_day_is_as_long_as_its_clock_makes_it() -> None:
    assert hours(day_of(at("2026-03-29 01:00"), NOON, BERLIN)) == 23
    assert hours(day_of(at("2026-10-25 01:00"), NOON, BERLIN)) == 25
    assert hours(day_of(at("2026-11-28 01:00"), NOON, BERLIN)) == 24


def test_month_begins_with_its_first_day() -> None:
    """The morning of the first belongs to the last night of the month before."""
    morning = month_of(at("2026-12-01 11:59"), NOON, BERLIN)
    assert (morning.first, morning.ends) == (date(2026, 11, 1), at("2026-12-01 12:00"))
    assert month_of(at("2026-12-01 12:00"), NOON, BERLIN).first == date(2026, 12, 1)
    assert month_of(at("2027-01-31 23:00"), NOON, BERLIN).ends == at("2027-02-01 12:00")


def test_next_time_is_later_today_or_tomorrow() -> None:
    six = time(6)
    assert next_time(at("2026-11-28 05:59"), six, BERLIN) == at("2026-11-28 06:00")
    assert next_time(at("2026-11-28 06:00"), six, BERLIN) == at("2026-11-29 06:00")
    assert next_time(at("2026-10-24 22:00"), six, BERLIN) == at("2026-10-25 06:00")


def test_skipped_time_comes_when_it_would_have() -> None:
    """At 02:00 the clock shows 03:00: half past two is half past three."""
    assert next_time(at("2026-03-29 01:00"), time(2, 30), BERLIN) == at("2026-03-29 03:30")


@pytest.mark.parametrize("zone", ZONES)
@given(
    moment=st.floats(1_200_000_000, 2_000_000_000),
    starts=st.times().map(lambda of_day: of_day.replace(second=0, microsecond=0)),
)
def test_every_moment_is_in_one_day(zone: str, moment: float, starts: time) -> None:
    """Days and months leave no gap, and no day is in two months."""
    place = ZoneInfo(zone)
    day, month = day_of(moment, starts, place), month_of(moment, starts, place)
    assert moment in day
    assert moment in month
    assert 21 <= hours(day) <= 48
    assert day_of(day.ends, starts, place).begins == day.ends
    assert day_of(day.begins, starts, place) == day
    assert month.begins <= day.begins < day.ends <= month.ends
    assert month_of(month.ends, starts, place).begins == month.ends


def test_zone_of_the_machine_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    here = datetime.now(UTC).astimezone().replace(hour=12, minute=0, second=0, microsecond=0)
    assert day_of(here.timestamp(), NOON).begins == here.timestamp()
    assert day_of((here - timedelta(seconds=1)).timestamp(), NOON).ends == here.timestamp()


@pytest.mark.parametrize("text", ["25:00", "12:60", "noon", "6", "12:00:00", "-1:00", "", "١٢:٠٠"])
def test_time_of_day_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="for example 06:00"):
        parse_time(text)
