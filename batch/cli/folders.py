"""Output folders as arguments: those named, or all under outputs/."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from batch.cli.bug_report import hide
from batch.cli.completing import complete_folder
from batch.clock import SystemClock
from batch.errors import UsageError
from batch.key import Secret
from batch.output.folder import ORIGIN, SANDBOX, OutputFolder, open_folder
from batch.output.layout import STATE_FOLDER, Layout
from batch.output.stores import check_history, has_state, open_to_read, use_engine

Command = TypeVar("Command", bound=Callable[..., Any])
HOME = Path("outputs")
_PASSWORD = r"(?:://[^:@/\s]*:|\bpassword\s*=\s*'?)([^@\s'&]+)"  # noqa: S105 - no password


def folders_argument(command: Command) -> Command:
    """Give *command* its OUTPUT_DIR arguments."""
    return click.argument(
        "output_dirs",
        metavar="[OUTPUT_DIR]...",
        nargs=-1,
        type=click.Path(path_type=Path),
        shell_complete=complete_folder,
    )(command)


def folders(output_dirs: Sequence[Path]) -> list[Path]:
    """Return the folders named, or else all under outputs/.

    Raises:
        StateLostError: one has results and no state, or there is none but such.
        UsageError: one is not an output folder, or there is none.
    """
    for folder in output_dirs:
        check_folder(folder)
    found = list(output_dirs) or all_folders()
    if not found:
        for results in sorted(HOME.glob("*/results.jsonl")):
            check_history(None, Layout(results.parent))
        raise UsageError(
            f"there is no output folder under {HOME}/; name one (the working directory is {Path.cwd()})"
        )
    return found


def all_folders() -> list[Path]:
    """Return the output folders under outputs/."""
    states = itertools.chain.from_iterable(
        HOME.glob(f"*/{STATE_FOLDER}/{name}") for name in ("state.db", "library")
    )
    return sorted({path.parent.parent for path in states})


@contextmanager
def held_folder(folder: Path) -> Iterator[OutputFolder]:
    """Hold an output folder that exists, whoever has made its videos.

    Raises:
        LockedError: a run holds it.
        UsageError: it is not an output folder.
        StateError: its state cannot be used.
    """
    check_folder(folder)
    with open_to_read(folder) as database:
        is_sandbox = database.fact(ORIGIN) == SANDBOX
    with open_folder(folder, sandbox=is_sandbox, now=SystemClock().now()) as held:
        yield held


def meet_engine(engine: Secret) -> None:
    """From now on find the folders of a fleet in that Postgres; reports hide its password."""
    use_engine(engine)
    hide(engine.reveal())
    for password in re.findall(_PASSWORD, engine.reveal()):
        hide(password)


def check_folder(folder: Path) -> None:
    """Check that *folder* is an output folder.

    Raises:
        StateLostError: it has results and no state.
        UsageError: it is none.
    """
    if not has_state(folder):
        check_history(None, Layout(folder))
        raise UsageError(f"{folder} is not an output folder: {_what_it_is(folder)}")


def _what_it_is(folder: Path) -> str:
    """Return what stands at the path, and what to name in place of it."""
    if folder.is_file():
        return "it is a file (name the folder that holds videos/, by default outputs/<name>)"
    if not folder.exists():
        return f"there is no such folder (the working directory is {Path.cwd()})"
    inside = sorted(path for path in folder.iterdir() if has_state(path)) if folder.is_dir() else []
    advice = f" (did you mean {inside[0]}?)" if inside else ""
    return f"it has no {STATE_FOLDER}/state.db{advice}"
