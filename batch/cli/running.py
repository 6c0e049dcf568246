"""Carry out `kling-batch run`: from its flags to the summary and the page."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from batch.cli.bug_report import print_error, write_bug_report
from batch.cli.commands.flags import settle
from batch.cli.notice import notice
from batch.cli.reporting import warn
from batch.cli.words import counted, ending
from batch.clock import SystemClock
from batch.errors import BatchError, ExitCode, UsageError
from batch.key import ENGINE_VARIABLE, require_key
from batch.manifest.model import Manifest
from batch.run.planner import PlannedRun, open_planned_run, unexpected_library
from batch.run.summary import Summary
from batch.settings import Settings

TROUBLES_SHOWN = 20
TO_DO = {"moderation": "change the prompt", "invalid_request": "change the job"}
SHARED = 3  # jobs with the same trouble that are named one by one
GC_ALLOCATIONS = 20_000


def run(manifest: Path, *, dry_run: bool, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Run the manifest, print the summary, and return the exit code."""
    in_log = flags["log_format"] == "json" and not dry_run
    told = notice()
    told.quiet, told.in_log, told.metrics_file = quiet, in_log, flags["metrics_file"]
    loaded, settings = settle(manifest, flags)
    if not quiet:
        from batch.cli.planned import warnings  # noqa: PLC0415 - a quiet run shows none

        warn(warnings(loaded, settings), in_log=in_log)
    if dry_run:
        from batch.cli.planned import show_plan  # noqa: PLC0415 - a run shows no plan

        show_plan(loaded, settings, as_json=as_json, quiet=quiet)
        return ExitCode.OK
    with ExitStack() as afterwards:  # the first line of a mail is the summary's, then comes the log
        summary = _run(loaded, settings, flags, afterwards, quiet=quiet)
        if summary is None:
            return _tell_handed_over(settings, as_json=as_json, quiet=quiet)
        told.run_id, told.result, told.text = summary.run_id, summary.to_json(), to_text(summary)
        _tell(summary, as_json=as_json, quiet=quiet)
    if summary.outcomes or summary.superseded:
        page = _draw(settings.output_dir, summary.exit_code, in_log=in_log, quiet=quiet)
        if page is not None and not (as_json or quiet):
            click.echo(f"  {page}")
    return summary.exit_code


def _tell_handed_over(settings: Settings, *, as_json: bool, quiet: bool) -> int:
    """Say that the workers have the run now."""
    root = settings.output_dir
    if as_json:
        click.echo(json.dumps({"schema": 1, "output_dir": str(root), "handed_over": True}))
    elif not quiet:
        click.echo(f"handed over to the workers; `kling-batch status {root}` shows how far it is")
    notice().is_wanted = False  # it has not ended
    return ExitCode.OK


def _tell(summary: Summary, *, as_json: bool, quiet: bool) -> None:
    """Print what the run came to."""
    for bug in summary.bugs[:1]:
        path = write_bug_report("\n".join(summary.bugs[:10]))
        what = bug.strip().splitlines()[-1].split(":")[0]
        print_error(f"this is a bug of kling-batch ({what}); report it with {path}")
    if not (quiet and summary.exit_code is ExitCode.OK):
        for warning in summary.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(
            json.dumps(summary.to_json(), ensure_ascii=False) if as_json else to_text(summary)
        )


def _draw(output_dir: Path, exit_code: ExitCode, *, in_log: bool, quiet: bool) -> Path | None:
    """Write the page after a run that has committed a row; return it. A failure is a warning."""
    from batch.report.posters import BUDGET_S  # noqa: PLC0415 - a quiet night draws nothing
    from batch.report.write import LARGE_LIBRARY, write_report  # noqa: PLC0415
    from batch.run.presence import Presence  # noqa: PLC0415

    # Somebody who interrupts a run wants it to end: the pictures can wait for the next one.
    is_interrupted = exit_code in {ExitCode.INTERRUPTED, ExitCode.TERMINATED}
    budget_s = 0.0 if is_interrupted else BUDGET_S
    try:
        return write_report(output_dir, Presence, budget_s=budget_s, up_to=LARGE_LIBRARY).path
    except KeyboardInterrupt:
        pass  # the run is over, and its exit code stands
    except Exception as error:  # noqa: BLE001 - whatever it is, the run went well
        if quiet:
            return None
        reason = error if isinstance(error, BatchError) else f"{type(error).__name__}: {error}"
        warn([f"no report was written: {reason}"], in_log=in_log)
    return None


def _run(
    manifest: Manifest,
    settings: Settings,
    flags: dict[str, Any],
    afterwards: ExitStack,
    *,
    quiet: bool,
) -> Summary | None:
    """Run, and return the summary; None if the run was handed over, and nobody waits for it."""
    clock = SystemClock()
    if not settings.sandbox:
        require_key(settings.api_key)
    if flags["detach"] and not settings.engine:  # first: a folder that was made is no new library
        raise UsageError(
            f"--detach is for the runs of a fleet; {ENGINE_VARIABLE} is not set, or --sandbox was"
            " given. Nothing was sent"
        )
    if flags["join"]:
        return _join(settings, flags, clock, quiet=quiet)
    settings = _ask(manifest, settings)
    with ExitStack() as held:
        planned = held.enter_context(open_planned_run(manifest, settings, clock))
        if planned.is_quiet:
            return planned.end_quietly(clock)
        release = None if planned.folder.database.library is None else held.close
        return _drive(planned, flags, clock, afterwards, quiet=quiet, release=release)


def _join(settings: Settings, flags: dict[str, Any], clock: SystemClock, *, quiet: bool) -> Summary:
    """Follow the latest run, which workers carry out."""
    import asyncio  # noqa: PLC0415 - as in `_drive`
    import logging  # noqa: PLC0415

    from batch.cli import logs  # noqa: PLC0415
    from batch.cli.fleet import join  # noqa: PLC0415

    level = logging.DEBUG if flags["verbose"] else logging.WARNING if quiet else logging.INFO
    logs.configure(level=level, log_format=flags["log_format"])
    watchers = [logs.LogObserver()]
    return asyncio.run(join(settings.output_dir, lambda _run: watchers, clock))


def _ask(manifest: Manifest, settings: Settings) -> Settings:
    """Ask on a terminal before a new library is paid for; return the settings with the answer."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return settings
    unexpected = unexpected_library(manifest, settings)
    if unexpected is None:
        return settings
    if not click.confirm(f"{unexpected}. Go on?", err=True):
        raise UsageError("nothing was sent, and no folder was made")
    return replace(settings, new=True)


def _drive(
    planned: PlannedRun,
    flags: dict[str, Any],
    clock: SystemClock,
    afterwards: ExitStack,
    *,
    quiet: bool,
    release: Callable[[], None] | None,
) -> Summary | None:
    """Carry out the plan; with *quiet*, the log is written *afterwards*, if the exit code is not 0.

    With *release*, the workers of a fleet do it, and *release* leaves the folder to them.
    """
    # Imported late: the network's library takes longer to load than a quiet night takes to run.
    from batch.cli.watching import observers, reporters, until_started  # noqa: PLC0415
    from batch.run.resources import fit, raise_descriptor_limit, run_loop  # noqa: PLC0415

    # The jobs stay until the end: no collection needs to walk them again, and what a job in flight
    # leaves behind is freed by its reference counts, so that looking for cycles can be rare.
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)
    raise_descriptor_limit()
    fit(planned.settings.limits, is_embedded=planned.settings.sandbox)  # before the loop needs some
    exit_code = None
    with ExitStack() as exits:
        watchers, held = observers(exits, flags, planned, clock, quiet=quiet)
        try:
            told = [*watchers, *reporters(notice())]
            carried_out: Coroutine[Any, Any, Summary | None]
            if release is None:
                from batch.run.execute import execute  # noqa: PLC0415 - as above

                carried_out = execute(planned, told, clock, handle_signals=True)
            else:
                from batch.cli.fleet import carry_out  # noqa: PLC0415 - needs psycopg

                carried_out = carry_out(
                    planned, told, clock, release=release, is_detached=flags["detach"]
                )
            summary = run_loop(until_started(notice(), carried_out))
            exit_code = ExitCode.OK if summary is None else summary.exit_code
        finally:
            if held is not None and exit_code is not ExitCode.OK:
                afterwards.callback(held.hand_over)
    return summary


def to_text(summary: Summary) -> str:
    """Return the summary as text; its first line is the news."""
    counts = ", ".join(_counts(summary)) or "no jobs"
    lines = [f"{summary.name}: {counts}"]
    if summary.stopped:
        lines = [f"{summary.name}: stopped early: {summary.stopped}", f"  {counts}"]
    lines.append(f"  {_money(summary)}")
    if summary.library.to_collect:
        what = counted(summary.library.to_collect, "task")
        made = "created" if summary.sandbox else "paid for"
        lines.append(f"  {what} {made} and not here yet: the next run collects what is there")
    if summary.uploads and summary.uploads["uploaded"]:
        files = counted(summary.uploads["uploaded"], "file")
        lines.append(f"  {files} uploaded to {summary.uploads['target']}")
    lines += _troubles(summary)
    if "unconfirmed" in summary.outcomes:
        lines.append(
            "  unconfirmed jobs may have been paid for, and the next run looks for them again. Where you"
            f" see the task at the provider: kling-batch adopt {summary.output_dir} JOB TASK_ID; where"
            f" you see that there is none: kling-batch forget {summary.output_dir} JOB; where there is"
            " none of any, for example at a wrong base URL: run once with --resubmit-unconfirmed"
        )
    lines.append(f"  {summary.output_dir}")
    return "\n".join(lines)


def _counts(summary: Summary) -> Iterator[str]:
    """Yield what became of the jobs, news first."""
    for status in ("failed", "timed_out", "unconfirmed"):
        if status in summary.outcomes:
            yield f"{summary.outcomes[status]} {ending(status, None)}"
    if summary.planned.get("resting"):
        yield f"{summary.planned['resting']} failed before"
    if summary.left:
        yield f"{summary.left} left to the next run"
    if summary.outcomes or summary.tasks_created or summary.left:
        yield f"{summary.outcomes.get('succeeded', 0)} made"
    if summary.superseded:
        yield f"{counted(summary.superseded, 'former version')} collected"
    if summary.moved:
        yield f"{summary.moved} moved"
    for action in ("unchanged", "orphaned"):
        if summary.planned.get(action):
            yield f"{summary.planned[action]} {action}"


def _money(summary: Summary) -> str:
    tasks, library = counted(summary.tasks_created, "task"), summary.library
    if summary.sandbox:
        worth = f"; real ones would cost about ${summary.cost_usd:.2f}" if summary.cost_usd else ""
        return (
            f"{tasks} created in the sandbox, nothing was paid{worth}; in {summary.seconds:.0f} s"
        )
    created = f"{tasks} created, about ${summary.cost_usd:.2f}"
    if library.perhaps_paid:
        doubt = f"{library.perhaps_paid} perhaps, about ${library.perhaps_usd:.2f}"
        created = f"{created} ({doubt})"
    return f"{created}, in {summary.seconds:.0f} s"


def _troubles(summary: Summary) -> list[str]:
    """Return a line for each trouble; many jobs with the same one share a line."""
    jobs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in summary.troubles:
        error = row["error"] or {}
        message = "; ".join(
            filter(None, (str(error.get("message")), TO_DO.get(str(error.get("kind")))))
        )
        jobs.setdefault((ending(row["status"], row["error"]), message), []).append(row)
    lines = []
    for (what, message), rows in jobs.items():
        if len(rows) > SHARED:
            named = ", ".join(row["job_id"] for row in rows[:SHARED])
            lines.append(f"  {named} and {len(rows) - SHARED} more: {what}: {message}")
            continue
        for row in rows:
            task = f" [task {row['task_id']}]" if row["task_id"] else ""
            lines.append(f"  {row['job_id']}: {what}{task}: {message}")
    lines += [f"  {job_id}: {reason}" for job_id, reason in summary.resting]
    if len(lines) > TROUBLES_SHOWN:
        hidden = len(lines) - TROUBLES_SHOWN
        more = f"  … and {hidden} more, see kling-batch status {summary.output_dir}"
        lines = [*lines[:TROUBLES_SHOWN], more]
    return lines
