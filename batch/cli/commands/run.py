"""`kling-batch run`: bring the output folder up to date with the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from batch.cli.bug_report import print_error, write_bug_report
from batch.cli.commands.flags import given_by, manifest_argument, settle, with_options
from batch.cli.commands.plan import doubts, show_doubts, show_plan
from batch.clock import SystemClock
from batch.errors import ExitCode
from batch.manifest.model import Manifest
from batch.run.planner import open_planned_run
from batch.run.summary import Summary
from batch.settings import Settings, require_key

TROUBLES_SHOWN = 20


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
    given = given_by(flags)
    in_log = flags["log_format"] == "json" and not dry_run
    loaded, settings = settle(manifest, given)
    _tell_doubts(loaded, settings, in_log=in_log, quiet=quiet)
    if dry_run:
        show_plan(loaded, settings, as_json=as_json, quiet=quiet)
        return ExitCode.OK
    summary = _run(loaded, settings, flags, quiet=quiet)
    for bug in summary.bugs[:1]:
        path = write_bug_report("\n".join(summary.bugs[:10]))
        what = bug.strip().splitlines()[-1].split(":")[0]
        print_error(f"this is a bug of kling-batch ({what}); report it with {path}")
    if not (quiet and summary.exit_code is ExitCode.OK):
        click.echo(
            json.dumps(summary.to_json(), ensure_ascii=False) if as_json else to_text(summary)
        )
    return summary.exit_code


def _tell_doubts(manifest: Manifest, settings: Settings, *, in_log: bool, quiet: bool) -> None:
    """Tell them on stderr: as lines, or where every line there must be JSON, as records."""
    if not in_log:
        show_doubts(manifest, settings, quiet=quiet)
        return
    told = [] if quiet else list(doubts(manifest, settings))
    if told:
        import logging  # noqa: PLC0415 - only for those who have them logged

        from batch.cli import logs  # noqa: PLC0415

        logs.configure(level=logging.WARNING, log_format="json")
        for doubt in told:
            logs.logger.warning(doubt)


def _run(manifest: Manifest, settings: Settings, flags: dict[str, Any], *, quiet: bool) -> Summary:
    clock = SystemClock()
    if not settings.sandbox:
        require_key(settings)
    with open_planned_run(manifest, settings, clock) as planned:
        if not planned.plan.decisions:
            return planned.end_quietly(clock)
        # Imported late: the network's library takes longer to load than a quiet night takes to run.
        from batch.cli.commands.drive import drive  # noqa: PLC0415

        return drive(planned, flags, clock, quiet=quiet)


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
