"""`kling-batch restore`: an earlier version of a video takes its place again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from batch.cli.bucket import bring_bucket_up_to_date
from batch.cli.folders import check_folder, held_folder
from batch.cli.grouped import examples
from batch.cli.settling import job_arguments
from batch.clock import SystemClock
from batch.errors import ExitCode
from batch.library.derived import renew
from batch.library.ledger import iso
from batch.library.restore import Version, choose, restore, unpin, versions_of
from batch.output.store import Store
from batch.output.stores import open_to_read

SCHEMA = 1
HELP = f"""Bring an earlier version of a video back; nothing is paid.

{
    examples(
        "kling-batch restore outputs/nature-loops beach --list",
        "kling-batch restore outputs/nature-loops beach --version 2026-11-20",
    )
}

The newest former version of JOB, or that of --version, takes its place in videos/, and what stands
there is kept in versions/. It is pinned: runs leave it as long as the job stays as it is in the
manifest. A changed job, --force or --unpin ends that.
"""


@click.command("restore", help=HELP)
@job_arguments
@click.option(
    "--version",
    "name",
    metavar="WHEN|SHA",
    help="The version of a time (2026-11-20, 20261120T023108Z), or the beginning of its sha256.",
)
@click.option("--list", "only_list", is_flag=True, help="List the versions, and change nothing.")
@click.option("--unpin", "ends_pin", is_flag=True, help="Let the next run restore the manifest's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    output_dir: Path,
    job: str,
    *,
    name: str | None,
    only_list: bool,
    ends_pin: bool,
    as_json: bool,
) -> int:
    """Restore, list or unpin."""
    if sum((name is not None, only_list, ends_pin)) > 1:
        raise click.UsageError("--version, --list and --unpin exclude each other")
    check_folder(output_dir)
    if only_list:
        said, told = _list(output_dir, job)
    elif ends_pin:
        said, told = _unpin(output_dir, job)
    else:
        said, told = _restore(output_dir, job, name)
    head = {"schema": SCHEMA, "output_dir": str(output_dir), "job_id": job}
    click.echo(json.dumps(head | told, ensure_ascii=False) if as_json else said)
    return ExitCode.OK


def _list(output_dir: Path, job: str) -> tuple[str, dict[str, Any]]:
    with open_to_read(output_dir) as database:
        found = versions_of(database, job)
        told = [_to_json(output_dir, database, version) for version in found]
    said = "\n".join(map(_line, told)) or f"{job} has no version that landed"
    return said, {"versions": told}


def _unpin(output_dir: Path, job: str) -> tuple[str, dict[str, Any]]:
    with held_folder(output_dir) as folder:
        unpin(folder, versions_of(folder.database, job), job)
    return f"{job} is not pinned any more; the next run restores the manifest's version", {
        "pinned": False
    }


def _restore(output_dir: Path, job: str, name: str | None) -> tuple[str, dict[str, Any]]:
    with held_folder(output_dir) as folder:
        version = choose(versions_of(folder.database, job), job, name)
        if version.is_current:
            said = f"{job} has the version of {iso(version.at)} already"
        else:
            attempt = asyncio.run(restore(folder, version, SystemClock()))
            for warning in renew(folder, [job]):
                click.echo(f"warning: {warning}", err=True)
            bring_bucket_up_to_date(folder)
            version = Version(attempt, version.at, is_current=True)
            said = f"{job} has the version of {iso(version.at)} again"
            if version.landed.pin is not None:
                said += ", pinned until the job is changed, --force or --unpin"
        restored = _to_json(output_dir, folder.database, version)
    return said, {"restored": restored}


def _to_json(root: Path, database: Store, version: Version) -> dict[str, Any]:
    state = version.landed
    contents = ((url, sha256) for url in database.targets() for sha256 in state.contents)
    return {
        "version": iso(version.at),
        "file": state.file,
        "bytes": state.bytes,
        "sha256": state.sha256,
        "task_id": version.attempt.task_id,
        "prompt": version.attempt.body().get("prompt"),
        "current": version.is_current,
        "pinned": state.pin is not None,
        "here": (root / state.file).exists(),
        "in_bucket": any(database.uploads(url, sha256=sha256) for url, sha256 in contents),
    }


def _line(told: dict[str, Any]) -> str:
    marks = ", ".join(word for word in ("current", "pinned") if told[word])
    gone = "" if told["here"] else "  in the bucket" if told["in_bucket"] else "  not here"
    return (
        f"{told['version']}  {marks or 'former':<15}  {told['bytes']:>12,} bytes"
        f"  {told['sha256'][:12]}  {told['file']}{gone}"
    )
