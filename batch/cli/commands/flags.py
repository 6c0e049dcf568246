"""The options that `run` and `plan` share, and how they become settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.types import StringParamType

from batch.cli.bug_report import hide
from batch.manifest.model import Manifest
from batch.settings import OPTIONS, Option, Options, Settings, resolve

Command = TypeVar("Command", bound=Callable[..., Any])
FLAGS = {name: option for name, option in OPTIONS.items() if option.flag}
PREFIX = "KLING_BATCH_"


def variable_of(flag: str) -> str:
    """Return the environment variable that stands for *flag*."""
    return PREFIX + flag.removeprefix("--").replace("-", "_").upper()


VARIABLES = {variable_of(option.flag) for option in FLAGS.values() if option.has_variable} | {
    variable_of("--log-format"),
    variable_of("--progress"),
}


class Lines(StringParamType):
    """Texts that stand one a line in their environment variable: a job's id may hold blanks."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the lines of *rv* that are not blank."""
        return [line for line in rv.splitlines() if line.strip()]


def _type(option: Option) -> Any:
    """Return the click type that reads *option*, and says what its parser says."""
    parse = option.parse
    if parse is None or parse is str:
        return Lines() if option.repeats else None
    if parse is Path:
        return click.Path(path_type=Path)

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return convert


def with_options(command: Command) -> Command:
    """Give *command* the options of the table."""
    for name, option in reversed(FLAGS.items()):
        command = click.option(
            option.flag,
            name,
            type=_type(option),
            is_flag=option.parse is None,
            multiple=option.repeats,
            metavar=option.metavar,
            help=option.help,
            envvar=variable_of(option.flag) if option.has_variable else None,
            show_envvar=option.has_variable,
        )(command)
    return command


def manifest_argument(command: Command) -> Command:
    """Give *command* its MANIFEST argument."""
    return click.argument("manifest", type=click.Path(path_type=Path))(command)


def settle(manifest: Path, flags: Mapping[str, Any]) -> tuple[Manifest, Settings]:
    """Load the manifest and decide every setting.

    From then on a bug report hides the key.

    Args:
        manifest: the file.
        flags: what click read of the command line and the environment; other flags may be among it.

    Raises:
        ManifestError: the manifest cannot be used.
        UsageError: a setting cannot be used.
    """
    from batch.manifest.reader import load  # noqa: PLC0415 - `--help` needs no YAML

    loaded = load(manifest)
    options = {name: flags[name] for name in FLAGS}
    settings = resolve(loaded, cast("Options", options), os.environ)
    hide(settings.api_key.reveal())
    return loaded, settings


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Warn of each variable that looks like one of ours and is none."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in VARIABLES:
            import difflib  # noqa: PLC0415 - only a mistyped variable needs it

            names = [variable.removeprefix(PREFIX) for variable in VARIABLES]
            near = difflib.get_close_matches(name.removeprefix(PREFIX), names, n=1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            yield f"the environment variable {name} is unknown and has no effect{hint}"
