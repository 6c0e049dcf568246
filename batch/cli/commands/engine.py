"""`kling-batch engine`: the Postgres of a fleet, and which folders have their state there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from batch.cli.commands.flags import read_path
from batch.errors import ExitCode, UsageError
from batch.key import ENGINE_VARIABLE, Secret, find_engine

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
