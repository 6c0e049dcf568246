"""The one structure that the page is made of, and how it is written into a script element."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from batch import __version__, prices
from batch.attempt import Landed
from batch.errors import ExitCode
from batch.report.entries import WORDS, Entry, entries, stands
from batch.report.money import money
from batch.report.needs import Need, needs
from batch.report.night import nights, sentence, touched
from batch.report.records import Records, Run

SCHEMA = 1
_MARKUP = "<>&\u2028\u2029"


class Page(NamedTuple):
    """What a page is made of: *data* for its script; the rest stands in its frame.

    *night* is what to call the latest run that did something.
    """

    data: dict[str, Any]
    trouble: list[Need]
    money: dict[str, Any]
    chips: list[tuple[str, str, int]]
    runs: list[dict[str, Any]]
    night: str


def build(records: Records) -> Page:
    """Return what the page is made of."""
    attempts = [attempt for each in records.attempts.values() for attempt in each]
    active = touched(records)
    night = next((run for run in reversed(records.runs) if run.run_id in active), None)
    latest = records.runs[-1] if records.runs else None
    found = entries(records, night)
    trouble = needs(found, latest, records.now)
    spent = money(attempts, records.now, records.day_starts)
    shown = nights(records, found)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "name": records.name,
        "version": __version__,
        "made": round(records.now),
        "running": records.is_running,
        "sandbox": records.is_sandbox,
        "index": records.has_index,
        "absent": {
            **{status: f"No video: {word}." for status, word in WORDS.items()},
            "missing": "Its file is missing or damaged. Run again: it is downloaded, unpaid.",
            "stored": f"The video is in {records.bucket}.",
        },
        "prices": prices.KLING,
        "words": WORDS,
        "run": None if latest is None else _run(latest, is_running=records.is_running),
        "tiles": _tiles(records, found, trouble, spent, shown[0] if shown else {}),
        "needs": [need.to_json() for need in trouble],
        "nights": [night for night in shown if "tasks" in night],
        "models": _models_shown(records),
        "options": _shared_options(found),
        "jobs": found,
    }
    is_now = records.is_running and night is not None and night is latest
    called = "this run" if is_now else "last night"
    return Page(data, trouble, spent, _chips(found, data["tiles"], called), shown, called)


def script_json(data: dict[str, Any]) -> str:
    """Return *data* as JSON that no HTML parser takes for markup."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for char in _MARKUP:  # `str.translate` takes ten times as long
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _run(run: Run, *, is_running: bool) -> dict[str, Any]:
    return {
        "id": run.run_id,
        "begin": round(run.started_at),
        "end": None if run.finished_at is None else round(run.finished_at),
        "exit": run.exit_code,
        "sentence": sentence(run, is_running=is_running),
        "stopped": run.summary.get("stopped") if run.exit_code == ExitCode.LIMIT else None,
    }


def _tiles(
    records: Records,
    found: list[Entry],
    trouble: list[Need],
    spent: dict[str, Any],
    night: dict[str, Any],
) -> dict[str, Any]:
    flags = [entry.get("flag") for entry in found]
    return {
        "here": sum("now" in entry for entry in found if not entry.get("orphan")),
        "all": sum(not entry.get("orphan") for entry in found),
        "needs": len({number for need in trouble for number in need.jobs})
        + sum(not need.jobs for need in trouble),
        "new": flags.count("new"),
        "changed": flags.count("changed"),
        "night_usd": night.get("usd", 0.0),
        "night_perhaps_usd": night.get("perhaps_usd", 0.0),
        "month_usd": spent["month"],
        "month_perhaps_usd": spent["month_perhaps"],
        "month_budget": records.limits.get("budget_per_month_usd"),
        "away": sum(
            entry["status"] in {"missing", "to_download", "timed_out", "generating"}
            and "task" in entry["tries"][0]
            and not (entry["status"] == "missing" and entry.get("orphan"))
            for entry in found
        ),
    }


def _chips(found: list[Entry], tiles: dict[str, Any], night: str) -> list[tuple[str, str, int]]:
    """Return what the gallery can be narrowed to: value, label and number of jobs."""
    formers = [sum("file" in t for t in entry["tries"]) > ("now" in entry) for entry in found]
    return [
        ("", "all", len(found) or 1),
        ("night", night, sum("night" in entry for entry in found)),
        ("needs", "needs you", tiles["needs"]),
        ("changed", "changed", tiles["changed"]),
        ("new", "new", tiles["new"]),
        ("former", "former versions", sum(formers)),
    ]


def _shared_options(found: list[Entry]) -> list[dict[str, Any]]:
    """Return every set of options once; each attempt keeps its number in place of them."""
    shared: dict[str, int] = {}
    sets: list[dict[str, Any]] = []
    for attempt in (attempt for entry in found for attempt in entry["tries"]):
        if "options" in attempt:
            options = attempt["options"]
            number = shared.setdefault(json.dumps(options), len(sets))
            if number == len(sets):
                sets.append(options)
            attempt["options"] = number
    return sets


def _models_shown(records: Records) -> list[str]:
    """Return the models that made the videos which stand in the folder."""
    return sorted(
        {
            str(attempt.body().get("model_name"))
            for each in records.attempts.values()
            for attempt in each
            if isinstance(attempt.state, Landed) and stands(attempt, records)
        }
    )
