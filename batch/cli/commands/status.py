"""`kling-batch status`: the state of every job of an output folder."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from batch.attempt import Phase
from batch.cli.words import counted
from batch.errors import ExitCode, UsageError
from batch.output import lock
from batch.output.layout import STATE_FOLDER, Layout
from batch.output.sqlite import Database
from batch.plan import Known

WORDS = {
    Phase.LANDED: "succeeded",
    Phase.OPEN: "generating",
    Phase.GENERATED: "to download",
    Phase.TIMED_OUT: "timed out",
    Phase.FAILED: "failed",
    Phase.UNCONFIRMED: "unconfirmed",
    Phase.INTENDED: "being submitted",
    Phase.LOST: "being looked up",
}
SHOWN = 50
HELP = """Report the state of every job, also during a run.

Without OUTPUT_DIR: of every folder under outputs/.
"""


@click.command("status", help=HELP)
@click.argument("output_dir", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(output_dir: Path | None, *, as_json: bool) -> int:
    """Print what the states hold."""
    found = [look(folder) for folder in _folders(output_dir)]
    if as_json:
        click.echo(json.dumps(found[0] if output_dir is not None else found, ensure_ascii=False))
    else:
        click.echo("\n".join(_text(item) for item in found))
    return ExitCode.OK


def look(folder: Path) -> dict[str, Any]:
    """Return what the state of *folder* holds. Changes nothing.

    Raises:
        StateError: the state cannot be read.
    """
    with Database.open_to_read(Layout(folder).database) as database:
        known = database.known()
        last_run = database.last_run()
    latest = [attempts[-1] for attempts in known.values()]
    counts = Counter(WORDS[item.phase] for item in latest)
    all_attempts = [item for attempts in known.values() for item in attempts]
    return {
        "schema": 1,
        "output_dir": str(folder),
        "running": lock.holder(Layout(folder).lock),
        "last_run": _run(last_run),
        "jobs": dict(counts),
        "tasks_paid": sum(item.task_id is not None for item in all_attempts),
        "paid_without_file": [
            _missing(item)
            for attempts in known.values()
            for item in attempts
            if _is_paid_without_file(folder, item, is_latest=item is attempts[-1])
        ],
        "unconfirmed": [item.job_id for item in latest if item.phase is Phase.UNCONFIRMED],
    }


def _folders(output_dir: Path | None) -> list[Path]:
    if output_dir is not None:
        if not Layout(output_dir).database.exists():
            raise UsageError(
                f"{output_dir} is not an output folder: it has no {STATE_FOLDER}/state.db"
            )
        return [output_dir]
    found = sorted(Path("outputs").glob(f"*/{STATE_FOLDER}/state.db"))
    if not found:
        raise UsageError("there is no output folder under outputs/; name one")
    return [path.parent.parent for path in found]


def _is_paid_without_file(folder: Path, item: Known, *, is_latest: bool) -> bool:
    if item.phase.is_collectable:
        return True
    if item.phase is not Phase.LANDED or item.file is None or not is_latest:
        return False
    return not (folder / item.file).exists()


def _missing(item: Known) -> dict[str, Any]:
    return {"job_id": item.job_id, "task_id": item.task_id, "state": WORDS[item.phase]}


def _run(last: tuple[str, float, float | None, int | None] | None) -> dict[str, Any] | None:
    if last is None:
        return None
    run_id, started_at, finished_at, exit_code = last
    return {
        "run_id": run_id,
        "started_at": _time(started_at),
        "finished_at": _time(finished_at),
        "exit_code": exit_code,
    }


def _time(seconds: float | None) -> str | None:
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds")
    )


def _text(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {word}" for word, count in sorted(found["jobs"].items()))
    lines = [f"{found['output_dir']}: {counts or 'nothing submitted yet'}"]
    if found["running"]:
        lines.append(f"  running: {found['running']}")
    elif found["last_run"] is not None:
        last = found["last_run"]
        end = (
            "did not end properly; run again to go on"
            if last["exit_code"] is None
            else f"ended with exit code {last['exit_code']}"
        )
        lines.append(f"  last run {last['run_id']} {end}")
    lines.append(f"  {counted(found['tasks_paid'], 'task')} paid for so far")
    missing = [
        f"{item['job_id']}  task {item['task_id']}  {item['state']}"
        for item in found["paid_without_file"]
    ]
    lines += _listed("paid for and without a file (the next run downloads them)", missing)
    lines += _listed(
        "unconfirmed, perhaps paid for (the next run looks them up)", found["unconfirmed"]
    )
    return "\n".join(lines)


def _listed(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    lines = [f"  {len(items)} {what}:", *(f"    {item}" for item in items[:SHOWN])]
    if len(items) > SHOWN:
        lines.append(f"    … and {len(items) - SHOWN} more")
    return lines
