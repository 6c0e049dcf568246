"""The ledger: one line for each task ever created, in text, CSV or JSON.

Never add up results.jsonl instead: a job that failed three times has one row there, and three tasks.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from batch.days import day_of, month_of
from batch.library.accounts import figures
from batch.library.entries import Entry, Fate, Library

SCHEMA = 1
FIELDS = (
    *("submitted_at", "output_dir", "job_id", "task_id", "external_task_id", "model", "mode"),
    *("duration", "tags", "cost_usd", "outcome", "file", "here"),
    *("days_left", "sandbox", "url"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NO_TAG = "(no tag)"
GROUPS: dict[str, Callable[[Entry], Sequence[str]]] = {
    "day": lambda entry: (_utc(entry.submitted_at, "%Y-%m-%d"),),
    "month": lambda entry: (_utc(entry.submitted_at, "%Y-%m"),),
    "model": lambda entry: (str(entry.attempt.body().get("model_name", "")),),
    "tag": lambda entry: entry.tags or (_NO_TAG,),
    "outcome": lambda entry: (entry.fate.value,),
}
LOCAL = {"day": (day_of, "%Y-%m-%d"), "month": (month_of, "%Y-%m")}


def chosen(
    library: Library, *, since: float | None = None, only_missing: bool = False
) -> list[Entry]:
    """Return the entries submitted *since* a moment, oldest first, or only what is missing."""
    entries = (
        entry
        for entry in library.entries
        if (since is None or entry.submitted_at >= since) and (entry.is_missing or not only_missing)
    )
    return sorted(entries, key=lambda entry: entry.submitted_at)


def once(libraries: Sequence[Library]) -> list[Library]:
    """Return *libraries* with each task in one of them, as copies of a folder have the same tasks.

    That is the first that knows the task's id and has its video; or else the first that does better.
    """
    best: dict[str, tuple[bool, bool, int]] = {}
    for number, library in enumerate(libraries):
        for entry in library.entries:
            mine = (entry.task_id is None, not entry.is_here, number)
            best[entry.external_task_id] = min(mine, best.get(entry.external_task_id, mine))
    return [
        replace(library, entries=[e for e in library.entries if best[e.external_task_id][2] == n])
        for n, library in enumerate(libraries)
    ]


def line(root: Path, entry: Entry, *, is_sandbox: bool) -> dict[str, Any]:
    """Return an entry with the `FIELDS` of the ledger."""
    body = entry.attempt.body()
    return {
        "submitted_at": iso(entry.submitted_at),
        "output_dir": str(root),
        "job_id": entry.attempt.job_id,
        "task_id": entry.task_id,
        "external_task_id": entry.external_task_id,
        "model": body.get("model_name"),
        "mode": body.get("mode"),
        "duration": body.get("duration"),
        "tags": list(entry.tags),
        "cost_usd": entry.cost_usd,
        "outcome": entry.fate.value,
        "file": entry.file,
        "here": entry.is_here,
        "days_left": entry.days_left,
        "sandbox": is_sandbox,
        "url": entry.url,
    }


def to_json(
    books: Sequence[tuple[Library, list[Entry]]], by: str | None, day_starts: time | None = None
) -> dict[str, Any]:
    """Return the ledger as plain JSON values.

    `tasks` are those created, `perhaps_paid` the unconfirmed ones, both lists of the same fields;
    with *by* there are `groups` instead. `total` is always there. Days and months are those of UTC, or
    local ones that begin at *day_starts*, as those of a budget do.
    """
    entries = [entry for _library, listed in books for entry in listed]
    found: dict[str, Any] = {"schema": SCHEMA}
    if by is None:
        lines = [
            line(library.root, entry, is_sandbox=library.is_sandbox)
            for library, listed in books
            for entry in listed
        ]
        found["tasks"] = [item for item in lines if item["outcome"] != Fate.UNCONFIRMED]
        found["perhaps_paid"] = [item for item in lines if item["outcome"] == Fate.UNCONFIRMED]
    else:
        found["by"] = by
        found["groups"] = [
            {by: key, **total(group)} for key, group in grouped(entries, by, day_starts)
        ]
    return {**found, "total": total(entries)}


def total(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the sums of *entries*."""
    sums = figures(entries)._asdict()
    return {name: sums[name] for name in ("tasks", "cost_usd", "perhaps_paid", "perhaps_usd")}


def grouped(
    entries: Iterable[Entry], by: str, day_starts: time | None = None
) -> list[tuple[str, list[Entry]]]:
    """Return *entries* by a key of `GROUPS`, in its order. With several tags, one is in each."""
    keys_of = GROUPS[by] if day_starts is None or by not in LOCAL else _local(by, day_starts)
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        for key in keys_of(entry):
            groups.setdefault(key, []).append(entry)
    return sorted(groups.items())


def _local(by: str, day_starts: time) -> Callable[[Entry], Sequence[str]]:
    """Return what names the local day or month of an entry, by the date on which it begins."""
    span_of, form = LOCAL[by]
    return lambda entry: (f"{span_of(entry.submitted_at, day_starts).first:{form}}",)


def to_csv(fields: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    """Return *lines* as CSV that a spreadsheet takes for texts, never for formulas."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(fields)
    for item in lines:
        table.writerow([_cell(item[name]) for name in fields])
    return out.getvalue()


def iso(seconds: float) -> str:
    """Return a time in UTC, ISO 8601, whole seconds."""
    return _utc(seconds, "%Y-%m-%dT%H:%M:%SZ")


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = " ".join(value)
    is_formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if is_formula else value


def _utc(seconds: float, form: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)
