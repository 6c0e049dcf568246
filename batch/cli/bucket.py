"""What commands say of a library's bucket, and what those that change versions do there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from batch.cli.checks import Check, fail, ok
from batch.cli.words import counted
from batch.clock import SystemClock
from batch.errors import BatchError, UsageError
from batch.output.folder import OutputFolder, peek
from batch.output.uploaded import standing, target_of
from batch.settings import Settings


def uploads_now(settings: Settings) -> dict[str, Any] | None:
    """Return how the bucket of a run stands before it; None without one."""
    target = settings.target
    if target is None:
        return None
    with peek(settings.output_dir, sandbox=settings.sandbox) as database:
        if database is not None:
            return standing(database, settings.output_dir, target)
    local = "remove" if target.removes else "keep"
    return {"target": target.url, "local": local, "uploaded": 0, "bytes": 0, "pending": 0}


def bucket_line(uploads: dict[str, Any]) -> str:
    """Return how a bucket stands, as a line."""
    there = f"{counted(uploads['uploaded'], 'video')} uploaded to {uploads['target']}"
    return f"{there}, {uploads['pending']} to upload" if uploads["pending"] else there


def bring_bucket_up_to_date(folder: OutputFolder) -> None:
    """Have the bucket of the latest run follow what a command has changed; warn of what did not go."""
    target = target_of(folder.database)
    if target is None:
        return
    import asyncio  # noqa: PLC0415 - for libraries with a bucket

    from batch.library.uploading import settle  # noqa: PLC0415

    try:
        found = asyncio.run(settle(folder, target, SystemClock()))
    except UsageError as error:
        click.echo(f"warning: {target.url} is as it was: {error}", err=True)
    else:
        for warning in found.warnings():
            click.echo(f"warning: {warning}", err=True)


def check_bucket(settings: Settings) -> Iterator[Check]:
    """Ask the bucket for an object that is not there: nothing is written."""
    target = settings.target
    if target is None:
        return
    import asyncio  # noqa: PLC0415 - for libraries with a bucket

    from batch.output.bucket import Bucket  # noqa: PLC0415

    async def ask() -> None:
        with Bucket.open(target.url, library="") as bucket:
            await bucket.head("kling-batch-doctor")

    try:
        asyncio.run(ask())
    except BatchError as error:
        todo = "its credentials come from the environment: kling-batch help operations"
        yield fail("bucket", f"{target.url}: {error}", todo)
    else:
        yield ok("bucket", f"{target.url} answers; whether it can be written to was not tried")
