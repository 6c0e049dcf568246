"""The figures of a benchmark, each beside a peer's where there is one, and their tables.

Seconds cannot be compared between machines, or between hours on one; ratios of values measured in
the same run can. A slow result fails nothing: a goal is met or missed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Report = dict[str, Any]
"""JSON-ready: `benchmark`, `about`, `figures`, `rows` and `notes`; see `report`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value.

    *ours* and *theirs* are medians, in *unit*; *ratio* is the median of the ratios of each round
    and *ratios* are those of all rounds. The goal bounds the ratio, or *ours* if there is no peer.
    """

    name: str
    unit: str
    ours: float
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    ratios: tuple[float, ...] = ()
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        judged = self.ours if self.ratio is None else self.ratio
        if self.at_most is not None:
            return judged <= self.at_most
        return None if self.at_least is None else judged >= self.at_least

    @property
    def goal(self) -> str:
        """The goal as text."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"


def compared(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Return the figure of values measured in rounds, ours and the peer's in each."""
    ratios = tuple(round(our / their, 4) for our, their in zip(ours, theirs, strict=True))
    return Figure(
        name=name,
        unit=unit,
        ours=rounded(statistics.median(ours)),
        peer=peer,
        theirs=rounded(statistics.median(theirs)),
        ratio=rounded(statistics.median(ratios)),
        ratios=ratios,
        at_most=at_most,
        at_least=at_least,
    )


def rounded(value: float) -> float:
    """Return *value* with four significant digits; more would be noise."""
    return float(f"{value:.4g}")


def report(
    benchmark: str,
    about: str,
    figures: Sequence[Figure],
    *,
    rows: Sequence[Mapping[str, object]] = (),
    notes: Sequence[str] = (),
) -> Report:
    """Return a benchmark's report. *rows* are a table of details, all with the same keys."""
    told = [
        asdict(figure) | {"ratios": list(figure.ratios), "is_met": figure.is_met}
        for figure in figures
    ]
    return {
        "benchmark": benchmark,
        "about": about,
        "figures": told,
        "rows": [dict(row) for row in rows],
        "notes": list(notes),
    }


def figures_of(found: Report) -> list[Figure]:
    """Return the figures of a report."""
    names = Figure.__slots__
    return [
        Figure(**{name: told[name] for name in names if name in told}) for told in found["figures"]
    ]


# -- where and when ----------------------------------------------------------------------------


def machine() -> str:
    """Return the kind of this machine; seconds are only comparable between machines of one kind."""
    cores = os.cpu_count() or 1
    return (
        f"{platform.system()} {platform.machine()}, {cores} cores ({_processor()}),"
        f" {platform.python_implementation()} {platform.python_version()}"
    )


def machine_slug() -> str:
    """Return the kind of this machine as part of a file name."""
    text = f"{platform.system()}-{platform.machine()}-{os.cpu_count() or 1}-cores"
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def today() -> str:
    """Return the date (UTC)."""
    return dt.datetime.now(dt.UTC).date().isoformat()


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1] if found else "unknown"


# -- tables ------------------------------------------------------------------------------------

HEAD = ("what", "ours", "peer", "theirs", "ratio", "spread", "goal", "")


def table(found: Report) -> list[Sequence[str]]:
    """Return the figures of a report as cells, below a header."""
    return [HEAD, *(_cells(figure) for figure in figures_of(found))]


def details(found: Report) -> list[Sequence[str]]:
    """Return the rows of a report as cells, below a header; empty if there are none."""
    rows = found["rows"]
    if not rows:
        return []
    return [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]


def _cells(figure: Figure) -> Sequence[str]:
    spread = ""
    if len(figure.ratios) > 1:
        spread = f"{min(figure.ratios):.2f}…{max(figure.ratios):.2f}"
    met = {True: "met", False: "MISSED", None: ""}[figure.is_met]
    return (
        figure.name,
        f"{figure.ours:g} {figure.unit}".strip(),
        figure.peer or "",
        "" if figure.theirs is None else f"{figure.theirs:g} {figure.unit}".strip(),
        "" if figure.ratio is None else f"{figure.ratio:.3g}",
        spread,
        figure.goal,
        met,
    )


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Format cells as columns of text."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Format cells as a Markdown table."""
    head, *body = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([head, f"|{' --- |' * len(cells[0])}", *body])


def to_text(found: Report) -> str:
    """Format a report for a terminal."""
    parts = [f"{found['benchmark']}: {found['about']}", aligned(table(found))]
    if found["rows"]:
        parts.append(aligned(details(found)))
    parts += [f"({note})" for note in found["notes"]]
    return "\n".join(parts)


def verdict(reports: Sequence[Report]) -> str:
    """Return a line for each goal: met or missed."""
    lines = []
    for found in reports:
        for figure in figures_of(found):
            if figure.is_met is not None:
                word = "met   " if figure.is_met else "MISSED"
                value = figure.ours if figure.ratio is None else figure.ratio
                what = f"{found['benchmark']}: {figure.name}"
                lines.append(f"{word}  {what}: {value:g} (goal {figure.goal})")
    return "\n".join(lines)


def main(measure: Callable[..., Report], argv: Sequence[str] | None = None) -> None:
    """Run one benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(measure.__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers, to try it out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--check", action="store_true", help="also print which goals are met")
    options = parser.parse_args(argv)
    found = measure(quick=options.quick)
    if options.json:
        print(json.dumps({"date": today(), "machine": machine(), **found}, ensure_ascii=False))
        return
    print(f"{today()}, {machine()}\n\n{to_text(found)}")
    if options.check:
        print(f"\n{verdict([found])}")
