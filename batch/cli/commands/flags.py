"""The options that `run` and `plan` share, and how they become settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from batch.cli.bug_report import hide
from batch.manifest.limits import parse_duration, parse_rate
from batch.manifest.model import Manifest
from batch.prices import parse_money
from batch.settings import DEFAULT_BASE_URL, Given, Settings, resolve

Command = TypeVar("Command", bound=Callable[..., Any])


def _parsed(name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Make an option's type of one of the manifest's parsers, so that both read alike."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return {"type": convert, "metavar": name}


RATE = _parsed("RATE", parse_rate)
DURATION = _parsed("DURATION", parse_duration)
MONEY = _parsed("USD", parse_money)


def _option(*names: str, **keywords: Any) -> Callable[[Command], Command]:
    flag = next(name for name in names if name.startswith("--"))
    envvar = "KLING_BATCH_" + flag[2:].replace("-", "_").upper()
    keywords["help"] = f"{keywords['help']}  [env: {envvar}]"
    return click.option(*names, envvar=envvar, **keywords)


OPTIONS = (
    _option(
        "--output-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where videos, results and state go. Default: outputs/<name of the manifest>.",
    ),
    _option("--base-url", help=f"The API's address. Default: {DEFAULT_BASE_URL}."),
    _option(
        "--sandbox",
        is_flag=True,
        help="Run against an embedded local server: no key, no network, same HTTP.",
    ),
    _option("--submit-rate", **RATE, help="Most submissions in a time, like 60/min or 2/s."),
    _option(
        "--max-in-flight",
        type=click.IntRange(min=1),
        help="Most tasks open at the provider at once.",
    ),
    _option("--deadline", **DURATION, help="When to end this run, like 5h; exit code 3."),
    _option("--budget", **MONEY, help="Most USD to spend in this run (estimated); exit code 3."),
    _option(
        "--select",
        multiple=True,
        metavar="PATTERN",
        help="Only these jobs: a glob over ids, or tag:NAME. May be given several times.",
    ),
    _option("--force", is_flag=True, help="Make also what is up to date anew. Costs money."),
    _option(
        "--retry-failed",
        is_flag=True,
        help="Try also failures anew that a retry alone cannot heal (moderation, invalid input).",
    ),
    _option(
        "--resubmit-unconfirmed",
        is_flag=True,
        help="Submit jobs again whose fate cannot be known. May pay a second time.",
    ),
    _option(
        "--callback-url",
        help="Where the provider can reach this machine, like https://studio.example/kling.",
    ),
    _option(
        "--callback-listen",
        metavar="HOST:PORT",
        help="Where to listen for its callbacks. They are hints; polling goes on beside them.",
    ),
    _option(
        "--env-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file with COMETAPI_KEY=…, read if the environment has no key.",
    ),
)


def with_options(command: Command) -> Command:
    """Give *command* the shared options."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def manifest_argument(command: Command) -> Command:
    """Give *command* its MANIFEST argument."""
    return click.argument("manifest", type=click.Path(path_type=Path))(command)


def given_by(flags: dict[str, Any]) -> Given:
    """Return what the command line and the environment say."""
    return Given(
        output_dir=flags["output_dir"],
        base_url=flags["base_url"],
        sandbox=flags["sandbox"],
        submit_rate=flags["submit_rate"],
        max_in_flight=flags["max_in_flight"],
        deadline_s=flags["deadline"],
        budget_usd=flags["budget"],
        select=tuple(flags["select"]),
        force=flags["force"],
        retry_failed=flags["retry_failed"],
        resubmit_unconfirmed=flags["resubmit_unconfirmed"],
        callback_url=flags["callback_url"],
        callback_listen=flags["callback_listen"],
        env_file=flags["env_file"],
    )


def settle(manifest: Path, given: Given) -> tuple[Manifest, Settings]:
    """Load the manifest and decide every setting.

    Raises:
        ManifestError: the manifest cannot be used.
        UsageError: a setting cannot.
    """
    from batch.manifest.reader import load  # noqa: PLC0415 - a quiet night may do without

    loaded = load(manifest)
    return loaded, decide(loaded, given)


def decide(manifest: Manifest, given: Given) -> Settings:
    """Decide every setting; from now on a bug report hides the key, wherever it came from.

    Raises:
        UsageError: a setting cannot be used.
    """
    settings = resolve(manifest, given, os.environ)
    hide(settings.api_key.reveal())
    return settings
