"""`kling-batch notify`: try out whom a run tells when it has ended."""

from __future__ import annotations

import os
from pathlib import Path

import click

from batch.cli.bug_report import hide
from batch.errors import ExitCode, UsageError
from batch.notify.channels import channels_of

TEXT = "kling-batch notify --test: this is a test, and nothing has happened"


@click.command(
    "notify",
    help="Try out whom a run tells when it has ended: those of MANIFEST (`notify:`), and those of"
    " KLING_BATCH_NOTIFY_COMMAND, KLING_BATCH_NOTIFY_WEBHOOK and KLING_BATCH_NOTIFY_PING.",
)
@click.argument("manifest", type=click.Path(path_type=Path), required=False)
@click.option("--test", is_flag=True, help="Send a test message on every channel now.")
def command(manifest: Path | None, *, test: bool) -> int:
    """Tell everybody, and print how that went; exit code 1 if it failed with anybody."""
    import asyncio  # noqa: PLC0415 - `--help` needs no network
    import uuid  # noqa: PLC0415

    from batch.manifest.model import Notify  # noqa: PLC0415
    from batch.manifest.reader import load  # noqa: PLC0415
    from batch.notify.deliver import deliver  # noqa: PLC0415
    from batch.notify.message import Message  # noqa: PLC0415

    if not test:
        raise UsageError(
            "add --test: kling-batch notify --test [MANIFEST] sends a test message now"
        )
    notify = Notify() if manifest is None else load(manifest).notify
    folder = Path() if manifest is None else manifest.absolute().parent
    channels = channels_of(notify, folder, os.environ)
    for address in channels.addresses:
        hide(address)
    for fault in channels.faults:
        click.echo(f"warning: {fault}", err=True)
    if not channels:
        raise UsageError(
            "no notification is configured: add notify: to a manifest and name it, or set"
            " KLING_BATCH_NOTIFY_COMMAND, KLING_BATCH_NOTIFY_WEBHOOK or KLING_BATCH_NOTIFY_PING"
        )
    rid = str(uuid.uuid4())
    # A monitor notes what comes to /log, and takes it for no run.
    code = ExitCode.LOCKED if channels.notify.pings.url else ExitCode.OK
    message = Message(rid, rid, code, {"exit_code": 0, "test": True}, TEXT)
    deliveries = asyncio.run(deliver(channels, message, is_wanted=True))
    for delivery in deliveries:
        click.echo(str(delivery))
    return ExitCode.JOBS_FAILED if any(d.failure for d in deliveries) else ExitCode.OK
