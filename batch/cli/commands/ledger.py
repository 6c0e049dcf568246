"""`kling-batch ledger`: every task ever paid for, and what became of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
from click.types import FloatParamType

from batch.cli.folders import folders, folders_argument
from batch.cli.words import counted, kept_for
from batch.clock import SystemClock
from batch.days import parse_time
from batch.errors import ExitCode
from batch.library import ledger
from batch.library.entries import DAY_S, Library, read_library
from batch.run.presence import Presence

HELP = """List every task ever created, with its cost and what became of it.

Without OUTPUT_DIR: of every folder under outputs/, but those of the sandbox, which cost nothing, only
if there are no others. A task that copies of a folder share is listed once. Costs are estimates. Days
and months are those of UTC; with --day-starts, local ones that begin at that time, as those of a budget
per day do. Unconfirmed jobs, which are perhaps paid for, are listed apart. --json prints one object:
schema (1), tasks and perhaps_paid (or, with --by, groups), and total.

\b
Outcomes:
  current       its video stands at its job's name
  former        its video was displaced by a newer one
  discarded     its video was deleted on request
  failed        at the provider
  open          the provider works on it
  to_download   generated, and not here yet
"""


def _time_of_day(text: str) -> time:
    try:
        return parse_time(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Moment(FloatParamType):  # a subscript of ParamType needs click 8.4
    """A day (2026-11-20), or how long ago (30d)."""

    name = "DAY"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds since the epoch."""
        if ago := re.fullmatch(r"([0-9]{1,5}) ?d", str(value).strip()):
            return SystemClock().now() - int(ago[1]) * DAY_S
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            self.fail(f"{value!r} is not a valid day; for example 2026-11-20 or 30d", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@click.command("ledger", help=HELP)
@folders_argument
@click.option(
    "--since", type=Moment(), help="Only tasks submitted since 2026-11-20, or in the last 30d."
)
@click.option("--by", type=click.Choice(list(ledger.GROUPS)), help="Add up instead of listing.")
@click.option(
    "--day-starts",
    type=_time_of_day,
    metavar="HH:MM",
    help="With --by day or month: when a day begins, local time, as limits.day_starts has it.",
)
@click.option(
    "--missing",
    is_flag=True,
    help="Only what is paid for and neither here nor in a bucket, with the days left.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    output_dirs: tuple[Path, ...],
    *,
    since: float | None,
    by: str | None,
    day_starts: time | None,
    missing: bool,
    as_csv: bool,
    as_json: bool,
) -> int:
    """Print the ledger."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    if day_starts is not None and by not in ledger.LOCAL:
        raise click.UsageError("--day-starts goes with --by day or --by month")
    now = SystemClock().now()
    libraries = [read_library(folder, Presence, now) for folder in folders(output_dirs)]
    left_out: list[Library] = []
    if not output_dirs and not all(library.is_sandbox for library in libraries):
        left_out = [library for library in libraries if library.is_sandbox]
        libraries = [library for library in libraries if not library.is_sandbox]
    listed, libraries = libraries, ledger.once(libraries)
    shared = sum(len(a.entries) - len(b.entries) for a, b in zip(listed, libraries, strict=True))
    books = [(item, ledger.chosen(item, since=since, only_missing=missing)) for item in libraries]
    found = ledger.to_json(books, by, day_starts)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif as_csv and by is not None:
        click.echo(ledger.to_csv((by, *found["total"]), found["groups"]), nl=False)
    elif as_csv:
        lines = [*found["tasks"], *found["perhaps_paid"]]
        click.echo(ledger.to_csv(ledger.FIELDS, lines), nl=False)
    else:
        for line in (*_text(found, by), *_sandboxes(libraries, left_out)):
            click.echo(line)
        if sum(group["tasks"] for group in found.get("groups", ())) > found["total"]["tasks"]:
            click.echo("a task of several tags counts under each of them, and once in the total")
        if shared:
            click.echo(f"counted once: {counted(shared, 'task')} that a copy of a folder has, too")
        click.echo(_sum("total", found["total"]))
    return ExitCode.OK


def _text(found: dict[str, Any], by: str | None) -> list[str]:
    if by is not None:
        return [_sum(str(group[by]), group) for group in found["groups"]]
    lines = list(_lines(found["tasks"]))
    if found["perhaps_paid"]:
        lines += ["perhaps paid:", *_lines(found["perhaps_paid"])]
    return lines


def _lines(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each task; those of several folders stand below the name of theirs."""
    is_one_folder = len({item["output_dir"] for item in items}) == 1
    for folder, theirs in groupby(items, itemgetter("output_dir")):
        if not is_one_folder:
            yield f"{folder}:"
        yield from map(_line, theirs)


def _sandboxes(listed: Sequence[Library], left_out: Sequence[Library]) -> Iterator[str]:
    """Say which folders have cost nothing: those listed, and those that are not since others have."""
    told = {
        "made by the sandbox, and paid for by nobody": listed,
        "left out, since the sandbox made it (name it to list it)": left_out,
    }
    for what, libraries in told.items():
        names = ", ".join(str(library.root) for library in libraries if library.is_sandbox)
        if names:
            yield f"{what}: {names}"


def _line(item: dict[str, Any]) -> str:
    cost = "      ?" if item["cost_usd"] is None else f"${item['cost_usd']:6.2f}"
    named = item["task_id"] or item["external_task_id"]
    left = item["days_left"]
    about = f"  {item['file']}" if item["file"] else ""
    if item["url"] and not item["here"]:
        about += "  in the bucket"
    elif left is not None and not item["here"]:
        about += f"  not here, {kept_for(left, 'left')}"
    return (
        f"{item['submitted_at']}  {item['outcome']:<11}  {cost}  {item['job_id']}  {named}{about}"
    )


def _sum(name: str, sums: dict[str, Any]) -> str:
    perhaps = sums["perhaps_paid"]
    doubt = f", perhaps {perhaps} more (${sums['perhaps_usd']:.2f})" if perhaps else ""
    return f"{name}: {counted(sums['tasks'], 'task')}, about ${sums['cost_usd']:.2f}{doubt}"
