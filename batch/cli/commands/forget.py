"""`kling-batch forget`: an unconfirmed job was seen to have no task."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from batch.cli.settling import Case, job_arguments, settling, with_provider
from batch.errors import ExitCode, UsageError
from batch.library.ledger import iso

HELP = """Settle an unconfirmed job: the provider was seen to have no task for it.

The next run submits it again, and pays for it. Where there is a key, the provider is asked once
more before that.
"""


@click.command("forget", help=HELP)
@job_arguments
@with_provider
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(output_dir: Path, job: str, *, yes: bool, **flags: Any) -> int:
    """Forget the attempt."""
    import asyncio  # noqa: PLC0415 - `--help` needs none

    with settling(output_dir, job, flags, needs_key=False) as case:
        if not yes:
            _confirm(case)
        forgotten = asyncio.run(case.forget())
    click.echo(
        f"{forgotten.job_id}: {forgotten.external_task_id} counts as never created; the next run"
        " submits the job again, and pays for it"
    )
    return ExitCode.OK


def _confirm(case: Case) -> None:
    attempt = case.attempt
    cost = "" if attempt.cost_usd is None else f" (about ${attempt.cost_usd:.2f})"
    about = (
        f"{attempt.job_id}: {attempt.external_task_id}, sent {iso(attempt.sent_at)}. If it exists"
        f" after all, its video is lost and the job is paid for twice{cost}."
    )
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"{about} Say --yes where there is no terminal to ask on")
    click.confirm(f"{about} Forget it?", abort=True, err=True)
