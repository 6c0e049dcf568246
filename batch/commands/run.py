"""`kling-batch run`: bring the output folder up to date with the manifest."""

from __future__ import annotations

import gc
import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from batch import logs
from batch.bug_report import print_error, write_bug_report
from batch.clock import SystemClock
from batch.commands.flags import manifest_argument, settle, with_options
from batch.commands.plan import doubts, show_doubts, show_plan
from batch.config import Settings, require_key
from batch.errors import BatchError, ExitCode
from batch.manifest import Manifest
from batch.session import Session, Summary, open_session, quiet_night

TROUBLES_SHOWN = 20
GC_ALLOCATIONS = 20_000


@click.command("run", help=__doc__)
@manifest_argument
@with_options
@click.option("--dry-run", is_flag=True, help="Only plan: the same as the command `plan`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON summary on stdout.")
@click.option("--quiet", is_flag=True, help="Print nothing when the exit code is 0.")
@click.option("--verbose", is_flag=True, help="Log every step.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="KLING_BATCH_LOG_FORMAT",
    help="How the log on stderr is written.  [env: KLING_BATCH_LOG_FORMAT]",
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    envvar="KLING_BATCH_PROGRESS",
    help="Draw a bar: on a terminal, always or never.  [env: KLING_BATCH_PROGRESS]",
)
def command(manifest: Path, *, dry_run: bool, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Load, run, tell."""
    loaded, settings = settle(manifest, flags)
    logs_json = flags["log_format"] == "json" and not dry_run
    show_doubts(loaded, settings, quiet=quiet or logs_json)
    if dry_run:
        show_plan(loaded, settings, as_json=as_json, quiet=quiet)
        return ExitCode.OK
    with ExitStack() as exits:
        observers, held = _observers(exits, flags, quiet=quiet)
        if logs_json and not quiet:
            for doubt in doubts(loaded, settings):
                logs.logger.warning(doubt)
        try:
            summary = _run(loaded, settings, observers)
        except BatchError:
            _hand_over(held)
            raise
    if summary.exit_code is not ExitCode.OK:
        _hand_over(held)
    for bug in summary.bugs[:1]:
        path = write_bug_report("\n".join(summary.bugs[:10]))
        what = bug.strip().splitlines()[-1].split(":")[0]
        print_error(f"this is a bug of kling-batch ({what}); report it with {path}")
    if not (quiet and summary.exit_code is ExitCode.OK):
        click.echo(
            json.dumps(summary.to_json(), ensure_ascii=False) if as_json else to_text(summary)
        )
    return summary.exit_code


def _run(manifest: Manifest, settings: Settings, observers: list[Any]) -> Summary:
    clock = SystemClock()
    if not settings.sandbox:
        require_key(settings)
    with open_session(manifest, settings, clock) as session:
        return _execute(session, observers, clock)


def _execute(session: Session, observers: list[Any], clock: SystemClock) -> Summary:
    if not session.plan.decisions:
        return quiet_night(session, clock)
    # Imported late: the network's library takes longer to load than a quiet night takes to run.
    import asyncio  # noqa: PLC0415

    from batch import bootstrap  # noqa: PLC0415

    # The jobs stay until the end: no collection needs to walk them again, and what a job in flight
    # leaves behind is freed by its reference counts, so that looking for cycles can be rare.
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)
    return asyncio.run(bootstrap.execute(session, observers, clock, handle_signals=True))


def _observers(
    exits: ExitStack, flags: dict[str, Any], *, quiet: bool
) -> tuple[list[Any], logs.Held | None]:
    """Choose who is told of what happens: a bar, lines, or, with --quiet, nobody yet."""
    level = logging.DEBUG if flags["verbose"] else logging.WARNING if quiet else logging.INFO
    handler = logs.configure(level=level, log_format=flags["log_format"])
    if quiet:
        held = logs.Held(handler)
        logs.logger.handlers[:] = [held]
        return [logs.LogObserver()], held
    wants_bar = flags["progress"] == "always" or (
        flags["progress"] == "auto"
        and sys.stderr.isatty()
        and flags["log_format"] == "text"
        and not flags["verbose"]
    )
    if not wants_bar:
        return [logs.LogObserver()], None
    from batch.progress import ProgressBar  # noqa: PLC0415 - rich is for terminals only

    return [exits.enter_context(ProgressBar())], None


def _hand_over(held: logs.Held | None) -> None:
    if held is not None:
        held.hand_over()


def to_text(summary: Summary) -> str:
    """Write the summary for a person."""
    made = summary.outcomes.get("succeeded", 0)
    parts = [f"{made} made"]
    names = {"failed": "failed", "timed_out": "timed out", "unconfirmed": "unconfirmed"}
    parts += [
        f"{summary.outcomes[key]} {word}" for key, word in names.items() if key in summary.outcomes
    ]
    idle = {"unchanged": "unchanged", "resting": "failed before", "orphaned": "orphaned"}
    parts += [
        f"{summary.planned[key]} {word}" for key, word in idle.items() if key in summary.planned
    ]
    if summary.left:
        parts.append(f"{summary.left} left to the next run")
    if summary.superseded:
        parts.append(f"{summary.superseded} former versions collected")
    lines = [f"{summary.name}: {', '.join(parts)}"]
    lines.append(
        f"  {summary.tasks_created} tasks created, about ${summary.cost_usd:.2f},"
        f" in {summary.seconds:.0f} s"
    )
    for row in summary.troubles[:TROUBLES_SHOWN]:
        error = row["error"] or {}
        task = f" [task {row['task_id']}]" if row["task_id"] else ""
        lines.append(
            f"  {row['job_id']}: {row['status']} ({error.get('kind')}){task}: {error.get('message')}"
        )
    lines += [f"  {job_id}: {reason}" for job_id, reason in summary.resting[:TROUBLES_SHOWN]]
    hidden = len(summary.troubles[TROUBLES_SHOWN:]) + len(summary.resting[TROUBLES_SHOWN:])
    if hidden:
        lines.append(f"  … and {hidden} more, see results.jsonl")
    if "unconfirmed" in summary.outcomes:
        lines.append(
            "  unconfirmed jobs may have been paid for; they are looked for again in the next run,"
            " and submitted again only with --resubmit-unconfirmed"
        )
    if summary.stopped:
        lines.append(f"  stopped early: {summary.stopped}")
    lines.append(f"  {summary.output_dir}")
    return "\n".join(lines)
