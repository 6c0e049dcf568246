"""The file that marks a folder whose state is in Postgres, and names its library there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from batch.errors import LockedError, StateError, UsageError
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


def check_original(path: Path, recorded: Path) -> None:
    """Check that the folder marked at *path* is not a copy of the one that a library was *recorded* for.

    Where that one is not here, or has no such mark any more, the folder was moved. The same folder by
    another path has the same file.

    Raises:
        UsageError: it is a copy.
    """
    try:
        its, original = path.stat(), recorded.stat()
        if its.st_ino == original.st_ino or library_at(path) != library_at(recorded):
            return
    except (OSError, StateError):
        return
    raise copied(path.parent.parent, recorded)


def copied(root: Path, recorded: Path) -> UsageError:
    """Return the error of a folder that is a copy of the one with the mark *recorded*."""
    original = recorded.parent.parent
    return UsageError(
        f"{root} is a copy of {original}, whose state is in Postgres, and two folders cannot share one;"
        f" nothing was changed. Use {original}; if that one is the copy, delete {recorded}"
    )


def mark(path: Path, library: str) -> None:
    """Mark a folder.

    Raises:
        LockedError: another library was made there meanwhile.
        StateError: the file cannot be written.
    """
    try:
        if library_at(path) != library:
            _write(path, library)
        clear(path)
    except OSError as error:
        if path.exists() and library_at(path) != library:  # its part may be gone as well
            raise LockedError(f"another run has just begun in {path.parent.parent}") from error
        raise StateError(f"{path} cannot be written: {error.strerror or error}") from error


def clear(path: Path) -> None:
    """Take away what deaths have left of marks that were being made, once there is one.

    Raises:
        OSError: the disk or the permissions.
    """
    if path.exists():
        for part in path.parent.glob(f"{path.name}.*.part"):
            part.unlink(missing_ok=True)


def _write(path: Path, library: str) -> None:
    part = path.with_name(f"{path.name}.{library}.part")
    disk.make(path.parent)
    with part.open("w", encoding="utf-8") as file:
        file.write(f"{library}\n")
        file.flush()
        os.fsync(file.fileno())
    os.link(part, path)
    disk.flush(path.parent)


def unmark(path: Path) -> None:
    """Take the mark away.

    Raises:
        StateError: the file cannot be removed.
    """
    try:
        disk.remove(path)
    except OSError as error:
        raise StateError(f"{path} cannot be removed: {error.strerror or error}") from error
