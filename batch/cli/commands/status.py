"""`kling-batch status`: the state of every job of an output folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from batch.cli.bucket import bucket_line
from batch.cli.folders import folders, folders_argument
from batch.cli.view import View
from batch.cli.words import counted, ending, kept_for
from batch.clock import SystemClock
from batch.errors import ExitCode
from batch.library.status import look
from batch.run.presence import Presence

SHOWN = 50
REDRAW_S = 1.0
AT_PROVIDER = ("being submitted", "being looked up", "generating")
HELP = """Report the state of every job, also during a run.

Without OUTPUT_DIR: of every folder under outputs/. Takes no lock and writes nothing. --json prints a
list of folders, always with the same keys.
"""


@click.command("status", help=HELP)
@folders_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Go on reporting until Ctrl-C.")
def command(output_dirs: tuple[Path, ...], *, as_json: bool, watch: bool) -> int:
    """Print what the states hold."""
    if watch:
        _watch(output_dirs, as_json=as_json)
    else:
        click.echo(_report(output_dirs, as_json=as_json))
    return ExitCode.OK


def _watch(output_dirs: Sequence[Path], *, as_json: bool) -> None:
    """Redraw the report on a terminal; print it when it has changed elsewhere."""
    try:
        if sys.stdout.isatty() and not as_json:
            _redraw(output_dirs)
        before = None
        while True:
            begun = time.monotonic()
            now = _report(output_dirs, as_json=as_json)
            if now != before:
                click.echo(now)
                sys.stdout.flush()
            before = now
            _pause(begun)
    except KeyboardInterrupt:
        return


def _redraw(output_dirs: Sequence[Path]) -> None:
    from rich.console import Console  # noqa: PLC0415 - for terminals only

    from batch.cli.drawing import draw  # noqa: PLC0415
    from batch.cli.screen import Screen, can_draw  # noqa: PLC0415

    console, views = Console(), list[View]()
    if not can_draw(console):
        return
    ascii_only = console.options.ascii_only
    screen = Screen(
        lambda columns: [
            line for view in views for line in draw(view, columns, ascii_only=ascii_only)
        ],
        console,
    )
    while True:
        begun = time.monotonic()
        views[:] = map(to_view, _look(output_dirs))
        screen.draw()
        _pause(begun)


def _pause(begun: float) -> None:
    """Wait for the next report; a large library does not take more than half a core."""
    time.sleep(max(REDRAW_S, time.monotonic() - begun))


def _report(output_dirs: Sequence[Path], *, as_json: bool) -> str:
    found = _look(output_dirs)
    return json.dumps(found, ensure_ascii=False) if as_json else "\n".join(map(to_text, found))


def _look(output_dirs: Sequence[Path]) -> list[dict[str, Any]]:
    now = SystemClock().now()
    return [look(folder, Presence, now) for folder in folders(output_dirs)]


def to_view(found: dict[str, Any]) -> View:
    """Return the report about one folder as the screen of a run shows it."""
    jobs, failed = found["jobs"], len(found["failed"]) + len(found["unconfirmed"])
    return View(
        name=Path(found["output_dir"]).name,
        done=jobs.get("succeeded", 0) + failed,
        all=sum(jobs.values()) + found["waiting"] - found["waiting_again"],
        generating=sum(jobs.get(word, 0) for word in AT_PROVIDER),
        downloading=jobs.get("to download", 0),
        failed=failed,
        spent_usd=found["figures"]["cost_usd"],
        left="; ".join(line.strip() for line in _last_run(found)) or None,
        troubles=[
            f"{item['job_id']}: {ending(item['status'], item)}: {item['message']}"
            for item in (*found["failed"], *found["unconfirmed"])
        ],
    )


def to_text(found: dict[str, Any]) -> str:
    """Return the report about one folder as text."""
    counts = [f"{count} {word}" for word, count in sorted(found["jobs"].items())]
    if found["waiting_again"]:
        counts.append(f"{found['waiting_again']} of these to be made anew")
    if new := found["waiting"] - found["waiting_again"]:
        counts.append(f"{new} waiting")
    lines = [f"{found['output_dir']}: {', '.join(counts) or 'nothing submitted yet'}"]
    lines += _last_run(found)
    lines.append(f"  {_money(found)}")
    if found["uploads"]:
        lines.append(f"  {bucket_line(found['uploads'])}")
    lines += _listed("failed or timed out", [_trouble(item) for item in found["failed"]])
    for rescue in found["rescued"]:
        tasks = counted(len(rescue["task_ids"]), "paid task")
        lines.append(
            f"  {rescue['file']} keeps {tasks} that could not be recorded; the next run asks for them:"
            " keep it"
        )
    in_doubt = [_trouble(item) for item in found["unconfirmed"]]
    lines += _listed("unconfirmed, perhaps paid for", in_doubt)
    for will_be_fetched, what in (
        (True, "paid for and without a file (the next run downloads them)"),
        (False, "paid for and without a file, of jobs that the manifest no longer lists"),
    ):
        missing = [
            _absent(item)
            for item in found["paid_without_file"]
            if item["will_be_fetched"] is will_be_fetched
        ]
        lines += _listed(what, missing)
    return "\n".join(lines)


def _last_run(found: dict[str, Any]) -> list[str]:
    running, last = found["running"], found["last_run"]
    if running is not None:
        from batch.output.lock import Holder  # noqa: PLC0415 - `--help` needs none

        return [f"  running: {Holder(running['pid'], running['host'], running['since'])}"]
    if last is None:
        return []
    end = f"ended with exit code {last['exit_code']}{_meaning(last['exit_code'], last['stopped'])}"
    if last["exit_code"] is None:
        end = "did not end properly; run again to go on"
    return [f"  last run {last['run_id']} {end}"]


def _meaning(code: int | None, stopped: str | None) -> str:
    from batch.report.night import SENTENCES  # noqa: PLC0415 - `--help` needs none

    said = {int(known): words for known, words in SENTENCES.items()}.get(code or 0)
    return f" ({said}{f': {stopped}' if stopped else ''})" if code and said else ""


def _money(found: dict[str, Any]) -> str:
    figures = found["figures"]
    if found["sandbox"]:
        return f"{counted(found['tasks_paid'], 'task')} in the sandbox so far, nothing was paid"
    paid = (
        f"{counted(found['tasks_paid'], 'task')} paid for so far, about ${figures['cost_usd']:.2f}"
    )
    if figures["perhaps_paid"]:
        paid += f"; {figures['perhaps_paid']} perhaps, about ${figures['perhaps_usd']:.2f}"
    return paid


def _trouble(item: dict[str, Any]) -> str:
    what = ending(item["status"], item)
    named = f"task {item['task_id']}" if item["task_id"] else item["external_task_id"]
    return (
        f"{item['job_id']}: {what}: {item['message']}\n"
        f"      {named}, sent {item['submitted_at']}; {item['to_do']}"
    )


def _absent(item: dict[str, Any]) -> str:
    kept = f"kept for {kept_for(item['days_left'] or 0, 'more')} at the provider"
    where = f"in the bucket: {item['url']}" if item["url"] else kept
    return f"{item['job_id']}  task {item['task_id']}  {item['state']}, {where}"


def _listed(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    lines = [f"  {len(items)} {what}:", *(f"    {item}" for item in items[:SHOWN])]
    if len(items) > SHOWN:
        lines.append(f"    … and {len(items) - SHOWN} more")
    return lines
