"""`kling-batch engine`: the Postgres of a fleet, and which folders have their state there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
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


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@engine_option
def status(env_file: str | None, *, as_json: bool) -> int:
    """Report the workers, the runs under way, and the accounts."""
    engine = required_engine(env_file)
    from batch.output.postgres.overview import overview  # noqa: PLC0415 - needs psycopg

    found = overview(engine)
    if as_json:
        click.echo(json.dumps({"schema": 1, **found}, ensure_ascii=False))
        return ExitCode.OK
    for line in _told(found):
        click.echo(line)
    return ExitCode.OK


@command.command("account")
@click.option("--base-url", metavar="URL", help="The address of the API. Default: as in `run`.")
@click.option("--rate", metavar="RATE", help="How often its requests may go out: 60/min, 2/s.")
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="The most tasks open at once.",
)
@engine_option
def account(
    base_url: str | None, rate: str | None, max_in_flight: int | None, env_file: str | None
) -> int:
    """Limit an account, in all its runs together; without a limit, lift what was set.

    The account is that of the key, as for `run`. Each run keeps to the limits of its manifest, too.
    """
    engine = required_engine(env_file)
    from batch.addresses import DEFAULT_BASE_URL, check_base_url  # noqa: PLC0415 - as above
    from batch.attempt import Account  # noqa: PLC0415
    from batch.key import account_of, find_key, require_key  # noqa: PLC0415
    from batch.manifest.limits import parse_rate  # noqa: PLC0415
    from batch.output.postgres.overview import limit_account  # noqa: PLC0415

    file = None if env_file is None else read_path(env_file)
    key = require_key(find_key(os.environ, file, is_needed=True))
    try:
        per_second = None if rate is None else parse_rate(rate).per_second
        address = check_base_url(base_url or DEFAULT_BASE_URL)
    except ValueError as error:
        raise UsageError(str(error)) from None
    whose = Account(address, account_of(key))
    limit_account(engine, whose, per_second=per_second, max_in_flight=max_in_flight)
    limits = [f"{rate}"] * (rate is not None)
    limits += [f"{max_in_flight} in flight"] * (max_in_flight is not None)
    click.echo(f"the account {whose.key_hash} at {address}: {', '.join(limits) or 'no limit'}")
    return ExitCode.OK


def _told(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Yield what a fleet is at, for people."""
    yield "workers:" if found["workers"] else "no worker is alive; start one: kling-batch worker"
    for worker in found["workers"]:
        said = f"last heard of {worker['silent_s']:.0f} s ago"
        yield f"  {worker['worker']}: process {worker['pid']} on {worker['host']}, {said}"
    yield "runs under way:" if found["runs"] else "no run is under way"
    for run in found["runs"]:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(run["jobs"].items()))
        yield f"  {run['run_id']} of {run['root']}: {counts}"
        if run["stopped"]:
            yield f"    stopped: {run['stopped']}"
    yield "accounts:" if found["accounts"] else "no account has run yet"
    for one in found["accounts"]:
        limits = [f"{one['in_flight']} in flight"]
        if one["slot_limit"] is not None:
            limits.append(f"the provider takes {one['slot_limit']}")
        if one["max_in_flight"] is not None:
            limits.append(f"at most {one['max_in_flight']}")
        if one["per_second"] is not None:
            limits.append(f"{one['per_second']:g} a second")
        yield f"  {one['account']} at {one['base_url']}: {', '.join(limits)}"
        if one["refused"]:
            yield f"    refused: {one['refused']}"
