"""What SQLite and the disk report, as sentences that a person can act on."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from batch.errors import NO_MEMORY, RefusedError, StateError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class map_errors:  # noqa: N801 - reads as a word where it is used
    """Raise errors of SQLite and the disk as `StateError`, naming the database at *path*.

    A class, since it is entered for each read and a generator would take three times as long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.IntegrityError):
            raise RefusedError(
                f"{self._path} refuses what would make two attempts the owner of one task, or give a"
                f" job two unfinished ones ({error}); nothing of it was recorded. This is a bug of"
                " kling-batch; please report it"
            ) from error
        if isinstance(error, sqlite3.DatabaseError | OSError | MemoryError):
            raise StateError(_sentence(self._path, error)) from error


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"{path} cannot be used: {NO_MEMORY}"
    text = str(error).lower()
    if "not a database" in text or "malformed" in text or "corrupt" in text:
        return (
            f"the state file {path} is damaged ({error}); nothing was sent. Restore it from a backup."
            " Starting without it would pay again for everything it knows, so that is yours to"
            f" decide: move {path.parent} away to start from nothing"
        )
    if "locked" in text or "busy" in text:
        return (
            f"the state file {path} is locked by another program ({error}); close it and run again"
        )
    if "full" in text or getattr(error, "errno", None) in NO_ROOM:
        return f"no space left on the disk of {path}; make room and run again ({error})"
    if "unable to open" in text:  # SQLite does not say why
        return (
            f"{path} cannot be written ({error}); correct its permissions, make room on its disk (for"
            " files, too) or raise ulimit -n, and run again"
        )
    if "readonly" in text or isinstance(error, PermissionError):
        return f"{path} cannot be written ({error}); correct its permissions and run again"
    if "i/o error" in text:  # what SQLite makes of a quota that is used up, too
        return f"{path} cannot be used: {error}; is a quota used up, or its disk away or failing?"
    return f"{path} cannot be used: {error}"
