"""What was paid, by day and by model, and how long generation took. All costs are estimates.

A sum is over attempts, never over rows: a job that failed three times has one row, and three paid
tasks. Days and months are local ones, as those of the budgets; what is only perhaps paid for is told
apart, and a budget counts it.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Iterable
from datetime import time, tzinfo
from typing import Any

from batch.attempt import Attempt, Discarded, Failed, Generated, Landed
from batch.days import MIDNIGHT, Span, day_of, month_of
from batch.library.accounts import Figures, figures

DAYS = 30
STRIP = 240  # the width of the picture of generation times
TIMES_SHOWN = 200  # dots for each model: the latest


def money(
    attempts: Iterable[Attempt],
    now: float,
    day_starts: time = MIDNIGHT,
    zone: tzinfo | None = None,
) -> dict[str, Any]:
    """Return the sums, and the seconds of generation by model.

    Args:
        attempts: those of the whole library.
        now: the end of the last day that is shown.
        day_starts: when a day begins, local time.
        zone: what is local; the machine's if None.
    """
    listed = sorted(attempts, key=lambda attempt: attempt.sent_at)
    moments = [attempt.sent_at for attempt in listed]

    def within(span: Span) -> Figures:
        return figures(listed[bisect_left(moments, span.begins) : bisect_left(moments, span.ends)])

    days: list[Span] = [day_of(now, day_starts, zone)]
    while len(days) < DAYS:
        days.append(day_of(days[-1].begins - 1, day_starts, zone))
    sums = [(day, within(day)) for day in reversed(days)]
    month, total = within(month_of(now, day_starts, zone)), figures(listed)
    most = max(found.cost_usd for _, found in sums)
    models: dict[str, dict[str, Any]] = {}
    for attempt in listed:
        if attempt.task is not None:
            _add(models, attempt)
    longest = max((t for found in models.values() for t in found["times"]), default=1.0)
    return {
        "month": month.cost_usd,
        "month_perhaps": month.perhaps_usd,
        "total": total.cost_usd,
        "perhaps": total.perhaps_usd,
        "unconfirmed": total.perhaps_paid,
        "recent": round(sum(found.cost_usd for _, found in sums), 4),
        "most": most,
        "tasks": total.tasks,
        "day_starts": "" if day_starts == MIDNIGHT else f"{day_starts:%H:%M}",
        "days": [_day(day, found.cost_usd, found.tasks, most) for day, found in sums],
        "models": [_model(name, found, longest) for name, found in sorted(models.items())],
    }


def _day(day: Span, usd: float, tasks: int, most: float) -> dict[str, Any]:
    """Return a day; the height of its bar is in per cent."""
    height = round(max(2.0, 100 * usd / most), 1) if usd else 0.8
    return {"date": day.first, "usd": usd, "tasks": tasks, "height": height}


def _add(models: dict[str, dict[str, Any]], attempt: Attempt) -> None:
    usd = attempt.cost_usd or 0.0
    name = str(attempt.body().get("model_name") or "unknown model")
    found = models.setdefault(name, {"tasks": 0, "usd": 0.0, "lost": 0.0, "times": []})
    found["tasks"] += 1
    found["usd"] += usd
    if isinstance(attempt.state, Failed):
        found["lost"] += usd
    if isinstance(attempt.state, Generated | Landed | Discarded):
        found["times"].append(max(attempt.state.generated_at - attempt.sent_at, 0.0))


def _model(name: str, found: dict[str, Any], longest: float) -> dict[str, Any]:
    """Return a model; its dots and ticks (median, p90) are places in a strip `STRIP` wide."""
    times: list[float] = found["times"]
    model = {
        "name": name,
        "tasks": found["tasks"],
        "usd": round(found["usd"], 4),
        "lost": round(found["lost"], 4),
        "times": [round(seconds, 1) for seconds in times[-TIMES_SHOWN:]],
    }
    if times:
        median, p90 = statistics.median(times), sorted(times)[int(0.9 * (len(times) - 1))]
        scale = (STRIP - 10) / max(longest, 1.0)
        model |= {"median": round(median, 1), "p90": round(p90, 1)}
        model["dots"] = [round(5 + seconds * scale, 1) for seconds in model["times"]]
        model["ticks"] = [round(5 + seconds * scale, 1) for seconds in (median, p90)]
    return model
