"""The file that marks a folder whose state is in Postgres, and names its library there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from batch.errors import LockedError, StateError
from batch.output import disk

_NAME = re.compile(r"[0-9a-f]{32}")


def library_at(path: Path) -> str | None:
    """Return the library that the marker at *path* names; None if there is none.

    Raises:
        StateError: it cannot be read, or names none.
    """
    try:
        name = path.read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise StateError(f"{path} cannot be read ({what}); correct that and run again") from error
    if not _NAME.fullmatch(name):
        raise StateError(
            f"{path} does not name a library: it is to hold one id of 32 digits; restore it from a"
            " backup"
        )
    return name


def mark(path: Path, library: str) -> None:
    """Mark a folder.

    Raises:
        LockedError: another library was made there meanwhile.
        StateError: the file cannot be written.
    """
    if library_at(path) == library:
        return
    part = path.with_name(f"{path.name}.{library}.part")
    try:
        disk.make(path.parent)
        with part.open("w", encoding="utf-8") as file:
            file.write(f"{library}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
        part.unlink()
        disk.flush(path.parent)
    except FileExistsError as error:
        raise LockedError(f"another run has just begun in {path.parent.parent}") from error
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror or error}") from error


def unmark(path: Path) -> None:
    """Take the mark away.

    Raises:
        StateError: the file cannot be removed.
    """
    try:
        disk.remove(path)
    except OSError as error:
        raise StateError(f"{path} cannot be removed: {error.strerror or error}") from error
