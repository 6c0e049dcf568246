"""`kling-batch plan`: report what `run` would do and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from batch.cli.commands.flags import manifest_argument, settle, with_options
from batch.cli.grouped import GroupedCommand, examples
from batch.errors import ExitCode

HELP = f"""Report what `run` would do and cost. Sends nothing, writes nothing.

With --out, what is to be paid for is saved as JSON, and `run --plan FILE` pays for nothing else: once
for each of these jobs, at most at this price. A job that has changed since is left, exit code 3.

{
    examples(
        "kling-batch plan jobs/night.yaml",
        "kling-batch plan jobs/night.yaml --select state:failed --retry-failed",
    )
}
"""


@click.command("plan", help=HELP, cls=GroupedCommand)
@manifest_argument
@with_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print the plan (or what is wrong) as one JSON object."
)
@click.option("--quiet", is_flag=True, help="Print nothing when there is nothing to do.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Save the plan for `run --plan`."
)
def command(manifest: Path, *, as_json: bool, quiet: bool, out: Path | None, **flags: Any) -> int:
    """Print the warnings and the plan."""
    from batch.cli.planned import show_plan, warnings  # noqa: PLC0415 - `--help` shows none
    from batch.cli.reporting import warn  # noqa: PLC0415

    loaded, settings = settle(manifest, flags)
    warn(() if quiet else warnings(loaded, settings), in_log=False)
    show_plan(loaded, settings, as_json=as_json, quiet=quiet, out=out)
    return ExitCode.OK
