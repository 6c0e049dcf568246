"""`kling-batch run`: bring an output folder up to date with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batch.cli.commands.flags import (
    manifest_argument,
    read_path,
    refuse_beside_join,
    variable_of,
    with_options,
)
from batch.cli.completing import complete_file
from batch.cli.grouped import GroupedCommand, examples

HELP = f"""Bring the output folder up to date with the manifest.

{
    examples(
        "kling-batch run jobs/night.yaml --sandbox     no key, no network, no cost",
        "kling-batch run jobs/night.yaml --new         the first real run of a library",
        "kling-batch run jobs/night.yaml --quiet       from cron: mails only trouble",
        "kling-batch run jobs/night.yaml --select tag:nature --budget 5",
    )
}
"""


@click.command("run", help=HELP, cls=GroupedCommand)
@manifest_argument
@with_options
@click.option("--dry-run", is_flag=True, help="Only plan, as the command `plan` does.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on stdout, also if there is no result.",
)
@click.option("--quiet", is_flag=True, help="Print nothing when the exit code is 0.")
@click.option("--verbose", is_flag=True, help="Log every step.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar=variable_of("--log-format"),
    show_envvar=True,
    help="Format of the log on stderr.",
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    envvar=variable_of("--progress"),
    show_envvar=True,
    help="Show progress: where it helps, always or never; on a terminal as a screen, else as lines.",
)
@click.option(
    "--metrics-file",
    type=read_path,
    metavar="FILE",
    shell_complete=complete_file,
    envvar=variable_of("--metrics-file"),
    show_envvar=True,
    help="Keep numbers for Prometheus there, for node_exporter's textfile collector: a name ending"
    " in .prom.",
)
@click.option(
    "--detach", is_flag=True, help="In a fleet: hand the run over to the workers, and return."
)
@click.option("--join", is_flag=True, help="In a fleet: follow the latest run to its end.")
def command(manifest: Path, **flags: Any) -> int:
    """Run the manifest and print the summary."""
    if flags["join"]:
        refuse_beside_join()
    from batch.cli.running import run  # noqa: PLC0415 - `--help` runs nothing

    return run(manifest, **flags)
