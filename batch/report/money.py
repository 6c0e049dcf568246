"""What was paid, by day and by model, and how long generation took. All costs are estimates.

A sum is over attempts, never over rows: a job that failed three times has one row, and three paid
tasks.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from batch.attempt import Attempt, Discarded, Failed, Generated, Landed
from batch.report.entries import sent_at

DAYS = 30
STRIP = 240  # the width of the picture of generation times
TIMES_SHOWN = 200  # dots for each model: the latest


def money(attempts: Iterable[Attempt], now: float) -> dict[str, Any]:
    """Return the sums, and the seconds of generation by model."""
    paid = [(sent, a) for a in attempts if (sent := sent_at(a)) is not None]
    today = datetime.fromtimestamp(now, UTC).date()
    days = {today - timedelta(days=ago): [0.0, 0] for ago in reversed(range(DAYS))}
    models: dict[str, dict[str, Any]] = {}
    month, total = 0.0, 0.0
    for sent, attempt in sorted(paid, key=lambda item: item[0]):
        usd, day = attempt.cost_usd or 0.0, datetime.fromtimestamp(sent, UTC).date()
        total += usd
        if (day.year, day.month) == (today.year, today.month):
            month += usd
        if day in days:
            days[day] = [days[day][0] + usd, days[day][1] + 1]
        _add(models, attempt, sent, usd)
    most = max(usd for usd, _ in days.values())
    longest = max((t for found in models.values() for t in found["times"]), default=1.0)
    return {
        "month": round(month, 4),
        "total": round(total, 4),
        "recent": round(sum(usd for usd, _ in days.values()), 4),
        "most": round(most, 4),
        "tasks": len(paid),
        "days": [_day(day, usd, int(tasks), most) for day, (usd, tasks) in days.items()],
        "models": [_model(name, found, longest) for name, found in sorted(models.items())],
    }


def _day(day: date, usd: float, tasks: int, most: float) -> dict[str, Any]:
    """Return a day; the height of its bar is in per cent."""
    height = round(max(2.0, 100 * usd / most), 1) if usd else 0.8
    return {"date": day, "usd": round(usd, 4), "tasks": tasks, "height": height}


def _add(models: dict[str, dict[str, Any]], attempt: Attempt, sent: float, usd: float) -> None:
    name = str(attempt.body().get("model_name") or "unknown model")
    found = models.setdefault(name, {"tasks": 0, "usd": 0.0, "lost": 0.0, "times": []})
    found["tasks"] += 1
    found["usd"] += usd
    if isinstance(attempt.state, Failed):
        found["lost"] += usd
    if isinstance(attempt.state, Generated | Landed | Discarded):
        found["times"].append(max(attempt.state.generated_at - sent, 0.0))


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
