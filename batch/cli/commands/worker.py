"""`kling-batch worker`: carry out runs that were handed over to a fleet."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from batch.cli.commands.flags import read_path, variable_of, with_options
from batch.cli.completing import complete_file
from batch.key import ENGINE_VARIABLE, KEY_VARIABLE

HELP = f"""Carry out the runs of a fleet, until SIGTERM or Ctrl-C.

It needs the Postgres ({ENGINE_VARIABLE}), the key of each account that it works for ({KEY_VARIABLE}, or
one in each --env-file), and the output folders at the paths where the runs were planned. Then it lets
downloads finish, for a minute at most; all else is taken over by other workers.

See `kling-batch help fleet`.
"""


@click.command("worker", help=HELP)
@click.option("--name", default="", metavar="NAME", help="What it is called. Default: the host.")
@click.option(
    "--downloads",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Downloads at once, in all runs. Default: as each run says.",
)
@click.option(
    "--base-url",
    "base_urls",
    multiple=True,
    metavar="URL",
    help="An address that its keys may be sent to; repeatable. Default: that of the API.",
)
@click.option(
    "--env-file",
    "env_files",
    multiple=True,
    type=read_path,
    shell_complete=complete_file,
    metavar="FILE",
    help=f"A file with {KEY_VARIABLE}=…, one for each account, or with {ENGINE_VARIABLE}=….",
)
@click.option("--proxy", default="", metavar="URL", help="Reach the API through this proxy.")
@partial(with_options, names=("callback_url", "callback_listen"))
@click.option("--verbose", is_flag=True, help="Log every step.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar=variable_of("--log-format"),
    help="Format of the log on stderr.",
)
def command(**flags: Any) -> int:
    """Work."""
    from batch.cli.working import work  # noqa: PLC0415 - `--help` needs no Postgres

    return work(**flags)
