"""`kling-batch adopt`: an unconfirmed job's task is named by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batch.cli.settling import job_arguments, settling, with_provider
from batch.errors import ExitCode

HELP = """Settle an unconfirmed job: TASK_ID, seen at the provider, is its task.

The provider is asked for the task, with the key that the job was submitted with. A task that belongs
to another job is refused. Nothing is submitted; the next run downloads the video.
"""


@click.command("adopt", help=HELP)
@job_arguments
@click.argument("task_id")
@with_provider
def command(output_dir: Path, job: str, task_id: str, **flags: Any) -> int:
    """Adopt the task."""
    import asyncio  # noqa: PLC0415 - `--help` needs none

    with settling(output_dir, job, flags) as case:
        opened = asyncio.run(case.adopt(task_id.strip()))
    click.echo(
        f"{opened.job_id}: task {opened.task_id} is its own now, and paid for; the next run asks for it"
        " and downloads its video"
    )
    return ExitCode.OK
