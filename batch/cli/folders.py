"""Output folders as arguments: those named, or all under outputs/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from batch.cli.completing import complete_folder
from batch.clock import SystemClock
from batch.errors import UsageError
from batch.output.folder import ORIGIN, SANDBOX, OutputFolder, open_folder
from batch.output.layout import STATE_FOLDER, Layout
from batch.output.sqlite import Database

Command = TypeVar("Command", bound=Callable[..., Any])
HOME = Path("outputs")


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
        UsageError: one is not an output folder, or there is none.
    """
    for folder in output_dirs:
        check_folder(folder)
    found = list(output_dirs) or all_folders()
    if not found:
        raise UsageError(f"there is no output folder under {HOME}/; name one")
    return found


def all_folders() -> list[Path]:
    """Return the output folders under outputs/."""
    return sorted(path.parent.parent for path in HOME.glob(f"*/{STATE_FOLDER}/state.db"))


@contextmanager
def held_folder(folder: Path) -> Iterator[OutputFolder]:
    """Hold an output folder that exists, whoever has made its videos.

    Raises:
        LockedError: a run holds it.
        UsageError: it is not an output folder.
        StateError: its state cannot be used.
    """
    check_folder(folder)
    with Database.open_to_read(Layout(folder).database) as database:
        is_sandbox = database.fact(ORIGIN) == SANDBOX
    with open_folder(folder, sandbox=is_sandbox, now=SystemClock().now()) as held:
        yield held


def check_folder(folder: Path) -> None:
    """Raise UsageError if *folder* is not an output folder."""
    if not Layout(folder).database.exists():
        raise UsageError(f"{folder} is not an output folder: it has no {STATE_FOLDER}/state.db")
