"""`kling-batch sandbox`: the local imitation of the API, as a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import click

from batch.errors import ExitCode, UsageError
from batch.sandbox import KINDS, FaultPlan, FaultPlanError, SandboxConfig, serve

FAULTS_HELP = "  ".join(f"{where}: {', '.join(sorted(kinds))}." for where, kinds in KINDS.items())


@click.command(
    "sandbox",
    help=f"""Serve the local imitation of the API until interrupted.

    Point any client at the printed address, with any key. GET /sandbox/stats tells what was
    created, POST /sandbox/faults replaces the faults while it runs.

    \b
    Faults, as WHERE:KIND[:RATE][:key=value…], for example
      --fault submit:drop-after:0.2      one answer in five is lost after creation
      --fault query:500:first=3          the first three status requests fail
      --fault download:cut:per_task=1    the first download of each video is cut

    Kinds:  {FAULTS_HELP}
    """,
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8080, show_default=True, help="Of the API; 0 takes a free one.")
@click.option("--cdn-port", default=0, help="Of the videos; 0 takes a free one.")
@click.option("--speed", default=1.0, show_default=True, help="How much faster its time runs.")
@click.option(
    "--median", "median_s", default=60.0, show_default=True, help="Seconds of generation."
)
@click.option("--sigma", default=0.25, show_default=True, help="Spread of the generation times.")
@click.option("--max-parallel", type=int, help="Tasks in flight; more are refused with 1303.")
@click.option("--no-lookup", is_flag=True, help="Serve no GET by external_task_id.")
@click.option("--invisible", "invisible_s", default=0.0, help="Seconds a new task is not found.")
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT", help="What goes wrong; repeatable."
)
@click.option("--seed", type=int, help="Makes generation times and faults repeatable.")
@click.option(
    "--clip", type=click.Choice(["prompt", "tiny"]), default="prompt", help="Kind of video."
)
@click.option("--video-bytes", type=int, help="Pad every video to this size.")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep created tasks here, so that they survive a restart.",
)
def command(faults: tuple[str, ...], *, no_lookup: bool, **options: Any) -> int:
    """Serve."""
    try:
        config = SandboxConfig(
            faults=FaultPlan.from_strings(faults, seed=options["seed"]),
            lookup=not no_lookup,
            **options,
        )
    except (FaultPlanError, ValueError) as error:
        raise UsageError(str(error)) from None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(config))
    return ExitCode.OK


async def _serve(config: SandboxConfig) -> None:
    try:
        async with serve(config) as server:
            click.echo(f"API:    {server.base_url}")
            click.echo(f"videos: {server.cdn_url}")
            await asyncio.Event().wait()
    except OSError as error:
        raise UsageError(f"cannot listen: {error.strerror or error}") from None
