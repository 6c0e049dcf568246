"""`kling-batch sandbox`: the local imitation of the API, as a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from batch.errors import ExitCode, UsageError
from batch.sandbox import (
    KINDS,
    PAGES,
    FaultPlan,
    FaultPlanError,
    Logged,
    SandboxConfig,
    serve,
    suffixes,
)

PORT = click.IntRange(0, 65_535)
_EXAMPLES = {
    "submit:drop-after:0.2": "one answer in five is lost after creation",
    "query:500:first=3": "the first three queries fail",
    "download:cut:per_task=1": "the first download of each video is cut",
    "any:html-2xx": "a front page at every path, as at a wrong address",
}


def _table(title: str, rows: Mapping[str, str]) -> str:
    """Return a block of help that click does not wrap."""
    width = max(map(len, rows), default=0)
    lines = [
        line
        for name, text in rows.items()
        for line in textwrap.wrap(
            f"  {name:{width}}  {text}", 78, subsequent_indent=" " * (width + 4)
        )
    ]
    return "\n".join(["\b", title, *lines])


def _pages_help() -> str:
    return _table("Pages, for example curl -X POST http://127.0.0.1:8080/sandbox/finish", PAGES)


def _faults_help() -> str:
    shared = KINDS["any"]
    stages: dict[str, dict[str, str]] = {}  # by its table, so that equal tables stand once
    for stage, kinds in KINDS.items():
        rows = {kind: text for kind, text in kinds.items() if not _is_told_once(stage, kind)}
        if stage == "submit":
            rows["…-before, …-after"] = "any of those, before or after the task is created"
        same = next((title for title, known in stages.items() if known == rows), None)
        if same is not None:
            del stages[same]
        if rows:
            stages[stage if same is None else f"{same} and {stage}"] = rows
    return "\n\n".join(
        [
            _table("Faults, as STAGE:FAULT[:SUFFIX…], for example", _EXAMPLES),
            _table("Suffixes, as NAME=VALUE", suffixes()),
            _table("any (every path of the API), and also submit, query, lookup and list", shared),
            *(_table(title, rows) for title, rows in stages.items()),
        ]
    )


def _is_told_once(stage: str, kind: str) -> bool:
    is_derived = stage == "submit" and kind.endswith(("-before", "-after"))
    return is_derived or (stage != "download" and kind in KINDS["any"])


@click.command(
    "sandbox",
    help="""Serve the local imitation of the API until interrupted.

Point any client at the printed address, with any key. The pages under /sandbox/, for this machine
only, report what happened and steer what comes; so a test of another client takes no time and is
the same each time.
""",
    epilog=f"{_pages_help()}\n\n{_faults_help()}",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=PORT,
    default=8080,
    show_default=True,
    help="Port of the API; 0 takes a free one.",
)
@click.option("--cdn-port", type=PORT, default=0, help="Port of the videos; 0 takes a free one.")
@click.option("--speed", default=1.0, show_default=True, help="Generate so many times faster.")
@click.option(
    "--median", "median_s", default=60.0, show_default=True, help="Seconds of generation."
)
@click.option("--sigma", default=0.25, show_default=True, help="Spread of the generation times.")
@click.option("--max-parallel", type=int, help="Most tasks in flight; more are refused with 1303.")
@click.option("--no-lookup", is_flag=True, help="Do not serve GET by external_task_id.")
@click.option(
    "--invisible", "invisible_s", default=0.0, help="Seconds for which a new task is not found."
)
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT", help="A fault, as below; repeatable."
)
@click.option("--seed", type=int, help="Repeat generation times and faults.")
@click.option(
    "--clip",
    type=click.Choice(["prompt", "tiny"]),
    default="prompt",
    help="A video for each prompt, or one small one for all.",
)
@click.option("--video-bytes", type=int, help="Pad every video to this size.")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep created tasks here, across restarts.",
)
@click.option(
    "--log",
    "is_logged",
    is_flag=True,
    help="Log every request on stderr: time, method, path, status and external id; --- as status"
    " where the connection was closed. Never the key.",
)
def command(faults: tuple[str, ...], *, no_lookup: bool, is_logged: bool, **options: Any) -> int:
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
        asyncio.run(_serve(config, _tell if is_logged else None))
    return ExitCode.OK


def _tell(request: Logged) -> None:
    click.echo(request, err=True)


async def _serve(config: SandboxConfig, log: Callable[[Logged], None] | None) -> None:
    try:
        async with serve(config, log=log) as server:
            click.echo(f"API:    {server.base_url}")
            click.echo(f"videos: {server.cdn_url}")
            await asyncio.Event().wait()
    except OSError as error:
        raise UsageError(f"cannot listen: {error.strerror or error}") from None
