"""The options that `run` and `plan` share, and how they become settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource
from click.types import StringParamType

from batch.cli.bug_report import hide
from batch.cli.completing import (
    complete_any_folder,
    complete_file,
    complete_manifest,
    complete_pattern,
)
from batch.cli.notice import notice
from batch.cli.words import similar
from batch.errors import UsageError
from batch.key import ENGINE_VARIABLE
from batch.manifest.model import Manifest
from batch.paths import expand_path
from batch.plan.select import read_pattern
from batch.settings import OPTIONS, Option, Options, Settings, resolve

Command = TypeVar("Command", bound=Callable[..., Any])
FLAGS = {name: option for name, option in OPTIONS.items() if option.flag}
PREFIX = "KLING_BATCH_"
# What says where a run is, and by which way it is reached, or only permits it.
_BESIDE_JOIN = frozenset({"output_dir", "base_url", "proxy", "sandbox", "env_file", "new"})
_QUOTES = frozenset("\"'")


def variable_of(flag: str) -> str:
    """Return the environment variable that stands for *flag*."""
    return PREFIX + flag.removeprefix("--").replace("-", "_").upper()


VARIABLES = {
    *(variable_of(option.flag) for option in FLAGS.values() if option.has_variable),
    variable_of("--log-format"),
    variable_of("--progress"),
    variable_of("--metrics-file"),
    ENGINE_VARIABLE,
}


SANDBOX_FOLDER = "The folder of runs with --sandbox: no key, no network."


class Lines(StringParamType):
    """Texts that stand one a line in their environment variable: a job's id may hold blanks."""

    def __init__(self, check: Callable[[str], str]) -> None:
        self._check = check

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the lines of *rv* that are not empty. Only a line end parts them."""
        return [line for line in rv.replace("\r\n", "\n").split("\n") if line]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return *value* if the option takes it."""
        return self._check(super().convert(value, param, ctx))


def _checked(option: Option) -> Callable[[str], str]:
    """Return a function that returns its text if *option* takes it, and says why if not.

    `batch.settings.resolve` reads it once more: a text, unlike what it stands for, means the same twice.
    """
    parse = option.parse

    def check(text: str) -> str:
        if text.startswith("--"):  # `--output-dir $DIR --quiet`, and DIR is not set
            raise click.BadParameter(f"{text!r} is an option; a value is missing before it")
        if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES and not option.repeats:
            raise click.BadParameter(f"{text} holds its quotes (docker keeps them); leave them out")
        try:
            parse(text) if parse is not None else None
        except (ValueError, UsageError) as error:
            raise click.BadParameter(str(error)) from None
        return text

    return check


def _type(option: Option) -> Any:
    if option.parse is None:
        return None
    return Lines(_checked(option)) if option.repeats else _checked(option)


def _completer(option: Option) -> Any:
    """Return what completes the option's value; None for nothing."""
    if option.parse is read_pattern:
        return complete_pattern
    return {"DIR": complete_any_folder, "FILE": complete_file}.get(option.metavar or "")


def with_options(command: Command, names: Iterable[str] = FLAGS, **about: str) -> Command:
    """Give *command* the options of the table, or those of *names*; *about* has other help texts."""
    for name in reversed(list(names)):
        option = FLAGS[name]
        command = click.option(
            option.flag,
            name,
            type=_type(option),
            is_flag=option.parse is None or None,  # False would let its value be left out
            multiple=option.repeats,
            metavar=option.metavar,
            help=about.get(name, option.help),
            envvar=variable_of(option.flag) if option.has_variable else None,
            show_envvar=option.has_variable,
            shell_complete=_completer(option),
        )(command)
    return command


def read_path(text: str) -> Path:
    """Return the path that the text of an option means.

    Raises:
        click.BadParameter: it means none.
    """
    try:
        return expand_path(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def manifest_argument(command: Command) -> Command:
    """Give *command* its MANIFEST argument."""
    manifest = click.Path(path_type=Path)
    return click.argument("manifest", type=manifest, shell_complete=complete_manifest)(command)


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
    from batch.cli.folders import meet_engine  # noqa: PLC0415 - `--help` needs no state
    from batch.manifest.reader import load  # noqa: PLC0415 - nor YAML

    told = notice()
    told.path = manifest
    options = _given(flags)
    loaded = load(manifest)
    told.notify = loaded.notify
    settings = resolve(loaded, options, os.environ, named=lambda name: FLAGS[name].flag)
    hide(settings.api_key.reveal())
    meet_engine(settings.engine)
    told.output_dir = settings.output_dir
    return loaded, settings


def _given(flags: Mapping[str, Any]) -> Options:
    """Return what was chosen, by the flag and not by the variable where the two contradict."""
    given = {name: flags[name] for name in FLAGS}
    source = click.get_current_context().get_parameter_source
    for name, option in FLAGS.items():
        if option.repeats and not given[name]:
            given[name] = None
            # As with the flag: a script's list that came out empty must not select everything.
            variable = variable_of(option.flag)
            if variable in os.environ and not os.environ[variable].strip():
                raise UsageError(f"{variable} is empty and matches no job; unset it, or fill it")
    if source("sandbox") is ParameterSource.COMMANDLINE and (
        source("base_url") is ParameterSource.ENVIRONMENT
    ):
        given["base_url"] = None
    return cast("Options", given)


def refuse_beside_join() -> None:
    """Refuse what would be ignored beside `--join`: the run that it follows was planned before.

    A variable stands for every run, and asks nothing of this one.

    Raises:
        UsageError: an option of the command line says what a run is to do.
    """
    context = click.get_current_context()
    given = [
        option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        and option.name in (FLAGS.keys() - _BESIDE_JOIN) | {"dry_run", "detach"}
    ]
    if given:
        raise UsageError(
            f"--join only follows the latest run, with what that was given; leave out {', '.join(given)},"
            " or --join. Nothing was sent"
        )


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Warn of each variable that looks like one of ours and is none."""
    from batch.notify.channels import VARIABLES as OF_NOTIFY  # noqa: PLC0415 - `--help` tells nobody

    known = VARIABLES | OF_NOTIFY
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            names = [variable.removeprefix(PREFIX) for variable in known]
            near = similar(name.removeprefix(PREFIX), names)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            yield f"the environment variable {name} is unknown and has no effect{hint}"
