"""One run per output folder, also across processes.

The lock is the operating system's (flock): it is free the moment its holder dies. The file only names
the holder. Where the system can lock a folder, the file's folder is locked too: users delete the file
to get rid of the lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from batch.errors import LockedError, StateError
from batch.output import disk
from batch.redact import clean

if sys.platform == "win32":  # pragma: no cover (Windows)
    import msvcrt
else:
    import fcntl

HOLDER_MAX_BYTES = 4096
PATIENCE_S = 0.05
PATIENCE_TRIES = 10
# The errors of a lock that another process holds; with any other, the system cannot lock here.
HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


class Holder(NamedTuple):
    """The process that holds a lock; None where it has not said so."""

    pid: int | None = None
    host: str | None = None
    since: str | None = None

    def __str__(self) -> str:
        if self.pid is None and self.since is not None:
            return f"a run on the workers of the fleet, since {self.since}"
        if self.pid is None:
            return "a process that has not said who it is"
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock at *path* while the block runs.

    Raises:
        LockedError: another process holds it; the message says which.
        StateError: the file cannot be created, or its file system cannot lock.
    """
    try:
        disk.make(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if (what := disk.obstacle(path.parent)) is not None:
            raise StateError(f"{what} Nothing was sent") from error
        raise StateError(
            f"{path.parent} cannot be written ({error.strerror or error}); nothing was sent"
        ) from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file, _open_folder(path.parent) as folder:
        try:
            is_ours = _try_long(_try_folder, folder) and _try_long(try_lock, file.fileno())
        except OSError as error:
            raise StateError(
                f"{path} cannot be locked ({error.strerror or error}): its file system has no locks,"
                " and a second run could start beside this one; choose another --output-dir"
            ) from error
        if not is_ours:
            raise LockedError(f"another run holds {path.parent.parent}: {_holder(path)}")
        try:
            file.truncate(0)
            file.write(_me())
        except OSError as error:
            raise StateError(
                f"{path} cannot be written ({error.strerror or error}); make room and run again."
                " Nothing was sent"
            ) from error
        yield
        with contextlib.suppress(OSError):  # it only names the holder
            file.seek(0)
            file.truncate(0)


def holder(path: Path) -> Holder | None:
    """Return the holder of the lock at *path*, or None if it is free."""
    try:
        with _open_folder(path.parent) as folder:
            if not _try_folder(folder):
                return _holder(path)
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            return None if try_lock(file.fileno()) else _holder(path)
        except OSError:
            return None  # it cannot be locked, so it is not held


def _try_long(try_lock: Callable[[int], bool], descriptor: int) -> bool:
    """Try for a moment: `status` takes the lock for an instant to see whether it is free."""
    for _ in range(PATIENCE_TRIES):
        if try_lock(descriptor):
            return True
        time.sleep(PATIENCE_S)
    return try_lock(descriptor)


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    """Open a folder to lock it; -1 where that fails, which `_try_folder` accepts."""
    try:
        descriptor = -1 if sys.platform == "win32" else os.open(folder, os.O_RDONLY)
    except OSError:
        descriptor = -1
    try:
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _try_folder(descriptor: int) -> bool:
    """Lock a folder; where that fails (network drives), the file's lock is enough."""
    if sys.platform != "win32" and descriptor >= 0:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def try_lock(descriptor: int) -> bool:
    """Lock an open file at once; False if another holder has it.

    Raises:
        OSError: its file system cannot lock.
    """
    try:
        if sys.platform == "win32":  # pragma: no cover (Windows)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            raise
        return False
    return True


def unlock(descriptor: int) -> None:
    """Give back what `try_lock` has taken; closing the file does the same."""
    if sys.platform == "win32":  # pragma: no cover (Windows)
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _me() -> bytes:
    who = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(who).encode()


def _holder(path: Path) -> Holder:
    try:
        with path.open("rb") as file:
            who = json.loads(file.read(HOLDER_MAX_BYTES))
        host, since = clean(str(who["host"]), limit=80), clean(str(who["since"]), limit=40)
        return Holder(int(who["pid"]), host, since)
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()
