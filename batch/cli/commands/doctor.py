"""`kling-batch doctor`: what is wrong with this machine, key and folder, without spending."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from batch.cli.commands.flags import SANDBOX_FOLDER, with_options
from batch.cli.completing import complete_manifest
from batch.cli.grouped import GroupedCommand, examples
from batch.errors import ExitCode

LOOKED_AT = ("output_dir", "base_url", "proxy", "sandbox", "env_file")
HELP = f"""Report what is wrong with this machine, key and folder. Spends nothing.

{
    examples(
        "kling-batch doctor",
        "kling-batch doctor jobs/night.yaml --env-file .env",
    )
}

With MANIFEST its folder, limits and base URL are checked, else every folder under outputs/. The
provider is asked once, by a GET, for a task that does not exist. Nothing is submitted, and what is
written to try out the folder is removed.

Exit codes: 0 no check failed (there may be warnings), 1 one did, 2 the manifest or the options are
wrong. --json prints one object: schema (1), exit_code, and checks, each with name, status (ok, warn,
fail), message and to_do.
"""


@click.command("doctor", help=HELP, cls=GroupedCommand)
@click.argument(
    "manifest",
    type=click.Path(path_type=Path),
    required=False,
    shell_complete=complete_manifest,
)
@partial(with_options, names=LOOKED_AT, sandbox=SANDBOX_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(manifest: Path | None, *, as_json: bool, **flags: Any) -> int:
    """Print the checks."""
    from batch.cli.checks import Status  # noqa: PLC0415 - `--help` needs none
    from batch.cli.doctor import MANIFEST, examine  # noqa: PLC0415

    checks = examine(manifest, flags)
    failed = [check.name for check in checks if check.status is Status.FAIL]
    code = ExitCode.JOBS_FAILED if failed else ExitCode.OK
    if MANIFEST in failed:
        code = ExitCode.USAGE
    if as_json:
        found = [check.to_json() for check in checks]
        click.echo(
            json.dumps({"schema": 1, "exit_code": code, "checks": found}, ensure_ascii=False)
        )
    else:
        click.echo("\n".join(map(str, checks)))
    return code
