"""`kling-batch engine`: the Postgres of a fleet, and which folders have their state there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from batch.cli.commands.flags import read_path
from batch.errors import ExitCode, UsageError
from batch.key import ENGINE_VARIABLE, Secret, find_engine

NONE, MOST_IN_FLIGHT = "none", 100_000
HELP = f"""Set up the Postgres of a fleet, and move folders into it and back.

Its address is in {ENGINE_VARIABLE}, or in a line of --env-file: it holds a password.
"""


@click.group("engine", help=HELP)
def command() -> None:
    """Carry the commands of the engine."""


def engine_option(command: Any) -> Any:
    """Give *command* the option that names a file with the engine's address."""
    about = f"A file with {ENGINE_VARIABLE}=…; the environment goes first."
    return click.option("--env-file", metavar="FILE", help=about)(command)


def required_engine(env_file: str | None) -> Secret:
    """Return the address of the engine; from then on folders are looked for there.

    Raises:
        UsageError: there is none.
    """
    from batch.cli.folders import meet_engine  # noqa: PLC0415 - `--help` needs no state

    engine = find_engine(os.environ, None if env_file is None else read_path(env_file))
    if not engine:
        raise UsageError(
            f"no engine: set {ENGINE_VARIABLE} to the address of a Postgres, for example"
            " postgresql://kling:PASSWORD@db.example/kling"
        )
    meet_engine(engine)
    return engine


@command.command("init")
@engine_option
def init(env_file: str | None) -> int:
    """Create the tables in Postgres, or bring them up to date."""
    engine = required_engine(env_file)
    from batch.output.postgres.connection import init, place_of  # noqa: PLC0415 - needs psycopg

    had = init(engine)
    from batch.engines.dbos import migrate  # noqa: PLC0415 - needs DBOS

    migrate(engine)
    click.echo(
        f"{place_of(engine)} {'is up to date' if had else 'has the tables of kling-batch now'}"
    )
    return ExitCode.OK


@command.command("import")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@engine_option
def bring_in(folder: Path, env_file: str | None) -> int:
    """Move the state of an output folder into Postgres.

    From then on every command needs the engine for this folder. Its state.db is kept under another
    name. Cut short, the same command completes it.
    """
    engine = required_engine(env_file)
    from batch.output import moving  # noqa: PLC0415 - needs psycopg

    aside = moving.bring_in(folder, engine, time.time())
    if aside is None:
        click.echo(f"the state of {folder} is in Postgres already")
    else:
        click.echo(f"the state of {folder} is in Postgres now; {aside} is what it was until then")
    return ExitCode.OK


@command.command("export")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@engine_option
def bring_back(folder: Path, env_file: str | None) -> int:
    """Move the state of an output folder back into its state.db.

    Cut short, the same command completes it.
    """
    engine = required_engine(env_file)
    from batch.output import moving  # noqa: PLC0415 - needs psycopg

    was_there = moving.bring_back(folder, engine)
    now = "now" if was_there else "already"
    click.echo(f"the state of {folder} is in {folder}/.kling-batch/state.db {now}")
    return ExitCode.OK


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@engine_option
def status(env_file: str | None, *, as_json: bool) -> int:
    """Report the workers, the runs under way, and the accounts."""
    engine = required_engine(env_file)
    from batch.cli.overview import lines  # noqa: PLC0415 - `--help` needs none
    from batch.output.postgres.overview import overview  # noqa: PLC0415 - needs psycopg

    found = overview(engine)
    if as_json:
        click.echo(json.dumps({"schema": 1, **found}, ensure_ascii=False))
        return ExitCode.OK
    for line in lines(found, time.time()):
        click.echo(line)
    return ExitCode.OK


@command.command("account")
@click.option("--base-url", metavar="URL", help="The address of the API. Default: as in `run`.")
@click.option(
    "--rate",
    metavar="RATE",
    help="How often its requests may go out: 60/min, 2/s; none: as runs say.",
)
@click.option(
    "--max-in-flight", metavar="N", help="The most tasks open at once; none: as its runs say."
)
@engine_option
def account(
    base_url: str | None, rate: str | None, max_in_flight: str | None, env_file: str | None
) -> int:
    """Show or set the limits of an account, for all its runs together.

    The account is that of the key, as for `run`. Where none is set, the largest limits of its runs
    under way hold; each run keeps to those of its manifest, too.
    """
    engine = required_engine(env_file)
    from batch.addresses import DEFAULT_BASE_URL, check_base_url  # noqa: PLC0415 - as above
    from batch.attempt import Account  # noqa: PLC0415
    from batch.cli.overview import account_lines  # noqa: PLC0415
    from batch.key import account_of, find_key, require_key  # noqa: PLC0415
    from batch.output.postgres.overview import OwnLimits, limit_account  # noqa: PLC0415

    file = None if env_file is None else read_path(env_file)
    key = require_key(find_key(os.environ, file, is_needed=True))
    try:
        limits = OwnLimits(_rate(rate), _most(max_in_flight))
        whose = Account(check_base_url(base_url or DEFAULT_BASE_URL), account_of(key))
    except ValueError as error:
        raise UsageError(str(error)) from None
    given = (rate is not None, max_in_flight is not None)
    found = limit_account(engine, whose, limits, given)
    if found is None:
        click.echo(f"the account {whose.key_hash} at {whose.base_url} has not been used")
        return ExitCode.OK
    for line in account_lines(found):
        click.echo(line)
    return ExitCode.OK


def _rate(text: str | None) -> float | None:
    from batch.manifest.limits import parse_rate  # noqa: PLC0415 - `--help` needs no manifest

    return None if text in {None, NONE} else parse_rate(str(text)).per_second


def _most(text: str | None) -> int | None:
    if text in {None, NONE}:
        return None
    if not (
        str(text).isascii() and str(text).isdecimal() and 1 <= int(str(text)) <= MOST_IN_FLIGHT
    ):
        raise ValueError(
            f"--max-in-flight: {text!r} is not a whole number from 1 to {MOST_IN_FLIGHT}, or none"
        )
    return int(str(text))
