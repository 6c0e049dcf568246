"""What is wrong before a result is there: as one JSON object, and with a hint at the right name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from batch.cli.completing import SUFFIXES
from batch.cli.words import similar
from batch.errors import BatchError, ExitCode, ManifestError, UsageError


def problems_of(
    error: click.ClickException | BatchError, code: ExitCode, beside: ManifestError | None = None
) -> dict[str, Any]:
    """Return what `--json` promises in place of a result: the exit code and every problem."""
    more = [] if beside is None else _problems(beside)
    return {"exit_code": int(code), "problems": [*_problems(error), *more]}


def faults_beside(error: click.ClickException, args: Sequence[str]) -> ManifestError | None:
    """Return what is wrong with the manifest of a line that has an invalid value, too.

    Told one after the other, the faults of a long file would come to light only at the second try.
    """
    if not isinstance(error, click.BadParameter) or args[0] not in {"run", "plan"}:
        return None
    from batch.manifest.reader import load  # noqa: PLC0415 - `--help` reads none

    for path in map(Path, args[1:]):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            try:
                load(path)
            except ManifestError as faults:
                return faults
    return None


def with_hint(error: click.ClickException) -> click.ClickException:
    """Return *error*; for an unknown option with the options that may be meant."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    names = [name for param in error.ctx.command.get_params(error.ctx) for name in param.opts]
    near = similar(error.option_name, [name for name in names if name.startswith("--")])
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return click.UsageError(f"No such option {error.option_name!r}.{hint}", ctx=error.ctx)


def _problems(error: click.ClickException | BatchError) -> list[dict[str, Any]]:
    if isinstance(error, ManifestError):
        return [
            _problem(item.told, item.file, item.line, item.column, item.job)
            for item in error.problems
        ]
    if isinstance(error, UsageError):
        return [_problem(error.message, error.file, error.line)]
    if isinstance(error, click.ClickException):
        return [_problem(error.format_message())]
    return [_problem(str(error))]


def _problem(
    message: str,
    file: str | None = None,
    line: int | None = None,
    column: int | None = None,
    job: str | None = None,
) -> dict[str, Any]:
    return {"file": file, "line": line, "column": column, "job": job, "message": message}
