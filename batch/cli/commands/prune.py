"""`kling-batch prune`: orphans go to versions/; old versions and strays go on request."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from batch.cli.bucket import bring_bucket_up_to_date
from batch.cli.commands.flags import (
    FLAGS,
    SANDBOX_FOLDER,
    manifest_argument,
    settle,
    with_options,
)
from batch.cli.folders import check_folder, held_folder
from batch.cli.grouped import GroupedCommand, examples
from batch.cli.words import counted
from batch.clock import SystemClock
from batch.errors import BatchError, ExitCode, UsageError
from batch.job import Job
from batch.library.derived import renew
from batch.library.entries import DAY_S
from batch.library.prune import (
    Action,
    Item,
    Pruning,
    Wanted,
    carry_out,
    find,
)
from batch.manifest.model import Manifest
from batch.output.layout import Layout
from batch.output.store import Store
from batch.output.stores import open_to_read
from batch.plan import Selection

SCHEMA = 1
KINDS = ("orphans", "versions", "strays")
SHARED = ("output_dir", "sandbox", "select", "exclude")
DONE = {Action.MOVE: "move", Action.DELETE: "delete", Action.LIST: "(kept)"}
HELP = f"""Tidy a library: list what may go, with its size, age and reason, and ask.

{
    examples(
        "kling-batch prune nature.yaml --orphans",
        "kling-batch prune nature.yaml --versions --delete --dry-run",
    )
}

--orphans moves videos of jobs that have left the manifest to versions/. Former versions that
output.keep_versions and output.keep_within do not keep (--versions) and files that the state does not
know (--strays) are only listed, unless --delete is given; with it, orphans are deleted, too.

Never touched: a task that is still to be collected, a pinned version, a current video. What is deleted
stays in the ledger; wanted again, it is downloaded as long as the provider keeps it (30 days).
"""


@click.command("prune", help=HELP, cls=GroupedCommand)
@manifest_argument
@click.option("--orphans", is_flag=True, help="Videos of jobs that have left the manifest.")
@click.option("--versions", is_flag=True, help="Former versions that `output:` does not keep.")
@click.option("--strays", is_flag=True, help="Files that the state does not know.")
@click.option("--delete", is_flag=True, help="Delete; without it orphans are moved, no more.")
@click.option("--dry-run", is_flag=True, help="Only list.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--expect",
    type=click.IntRange(min=0),
    metavar="N",
    help="So many videos are orphaned; needed where that is more than half of all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@partial(with_options, names=SHARED, sandbox=SANDBOX_FOLDER)
def command(
    manifest: Path,
    *,
    delete: bool,
    dry_run: bool,
    yes: bool,
    expect: int | None,
    as_json: bool,
    **flags: Any,
) -> int:
    """List, ask, prune."""
    kinds = {kind: flags[kind] for kind in KINDS}
    if not any(kinds.values()):
        raise click.UsageError("say what may go: --orphans, --versions or --strays")
    loaded, settings = settle(manifest, {**dict.fromkeys(FLAGS), **flags})
    selection = settings.policy.selection
    wanted = Wanted(**kinds, delete=delete, selection=selection, keep=loaded.keep)
    root, now = settings.output_dir, SystemClock().now()
    check_folder(root)
    if dry_run:
        with open_to_read(root) as database:
            found = _find(Layout(root), database, loaded, wanted, now)
        _tell(root, found, as_json=as_json, dry_run=True)
        return ExitCode.OK
    with held_folder(root) as folder:
        found = _find(folder.layout, folder.database, loaded, wanted, now)
        if wanted.orphans:
            _check_number(found, expect)
        if found.work and not yes:
            _confirm(found, as_json=as_json)
        failed = asyncio.run(carry_out(folder, found.work, now))
        for warning in renew(folder, {item.job_id for item in found.work}):
            click.echo(f"warning: {warning}", err=True)
        bring_bucket_up_to_date(folder)
    _tell(root, found, as_json=as_json, dry_run=False, failed=failed)
    if failed:
        names = "; ".join(f"{item.file} ({error.strerror or error})" for item, error in failed)
        raise BatchError(f"the disk does not let go of {names}; --strays finds what is left")
    return ExitCode.OK


def _find(
    layout: Layout, database: Store, manifest: Manifest, wanted: Wanted, now: float
) -> Pruning:
    for pattern in _unmatched(wanted.selection, database, manifest.jobs):
        raise UsageError(f"the pattern {pattern!r} matches no job of the manifest or the folder")
    return find(layout, database, manifest.jobs, wanted, now)


def _unmatched(selection: Selection, database: Store, jobs: Sequence[Job]) -> Iterator[str]:
    """Yield the patterns that select neither a job of the manifest nor one that has left it."""
    known = database.known()
    for pattern in selection.select:
        one = Selection((pattern,))
        listed = any(one.takes(job.id, job.tags, "") for job in jobs)
        if not (listed or pattern.startswith("state:") or any(one.takes(i, (), "") for i in known)):
            yield pattern


def _check_number(found: Pruning, expect: int | None) -> None:
    """Refuse to take most of a library for orphaned, unless its very number was given."""
    told = (
        f"{counted(found.orphaned, 'video')} of {found.standing} belong to no job of the manifest"
    )
    if expect is None and 2 * found.orphaned > found.standing:
        raise UsageError(
            f"{told}: is it the right manifest? If so, say --expect {found.orphaned}. Nothing was"
            " changed"
        )
    if expect is not None and expect != found.orphaned:
        raise UsageError(f"{told}, not {expect} as --expect says. Nothing was changed")


def _confirm(found: Pruning, *, as_json: bool) -> None:
    for line in () if as_json else _lines(found):
        click.echo(line, err=True)
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(
            f"{_summary(found.work)}: say --yes where there is no terminal to ask on. Nothing was"
            " changed"
        )
    click.confirm(f"{_summary(found.work)}?", abort=True, err=True)


def _tell(
    root: Path,
    found: Pruning,
    *,
    as_json: bool,
    dry_run: bool,
    failed: list[tuple[Item, OSError]] | None = None,
) -> None:
    lost = {item.file for item, _error in failed or ()}
    done = [item for item in found.work if not dry_run and item.file not in lost]
    if as_json:
        told = {
            "schema": SCHEMA,
            "output_dir": str(root),
            "dry_run": dry_run,
            "files": [_to_json(item) for item in found.items],
            "left": [{"file": file, "reason": reason} for file, reason in found.left],
            "orphaned": found.orphaned,
            "moved": sum(item.action is Action.MOVE for item in done),
            "deleted": sum(item.action is Action.DELETE for item in done),
            "deleted_bytes": sum(item.bytes for item in done if item.action is Action.DELETE),
        }
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    for line in _lines(found):
        click.echo(line)
    if not found.items and not found.left:
        click.echo("nothing to prune")
        return
    if any(item.action is Action.LIST for item in found.items):
        click.echo("nothing is deleted without --delete")
    click.echo(f"would {_summary(found.work)}" if dry_run else _summary(done, ("moved", "deleted")))


def _lines(found: Pruning) -> Iterator[str]:
    for item in found.items:
        yield (
            f"{DONE[item.action]:<7} {item.bytes:>13,} bytes  {item.age_s / DAY_S:>6.0f} d  "
            f"{item.file}  {item.reason}"
        )
    for file, reason in found.left:
        yield f"{'left':<7} {'':>13}        {'':>6}    {file}  {reason}"


def _summary(items: list[Item], verbs: tuple[str, str] = ("move", "delete")) -> str:
    moved = [item for item in items if item.action is Action.MOVE]
    deleted = [item for item in items if item.action is Action.DELETE]
    parts = []
    if moved:
        parts.append(f"{verbs[0]} {counted(len(moved), 'file')} to versions/")
    if deleted:
        size = sum(item.bytes for item in deleted)
        parts.append(f"{verbs[1]} {counted(len(deleted), 'file')} ({size:,} bytes)")
    return " and ".join(parts) or f"{verbs[0]} nothing"


def _to_json(item: Item) -> dict[str, Any]:
    return {
        "file": item.file,
        "job_id": item.job_id,
        "bytes": item.bytes,
        "age_days": round(item.age_s / DAY_S, 1),
        "reason": item.reason,
        "action": item.action.value,
    }
