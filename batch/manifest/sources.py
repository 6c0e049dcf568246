"""The files that a manifest is made of: how their bytes are read, and what is remembered of them."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

MAX_BYTES = 256 * 1024 * 1024


class NotRegularError(ValueError):
    """A device, a pipe or a folder: reading it might never end."""


def read_bytes(path: Path) -> bytes:
    """Return what is in a regular file; one byte more than `MAX_BYTES` of it at the most.

    Raises:
        OSError: it cannot be read.
        ValueError: its name cannot be one, or it is no regular file (`NotRegularError`).
    """
    with open(path, "rb", opener=_open_at_once) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise NotRegularError(path)
        return stream.read(MAX_BYTES + 1)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting: a pipe that nobody writes to would block for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def digest(data: bytes) -> str:
    """Return what tells these bytes from all others."""
    return hashlib.sha256(data).hexdigest()


class Sources:
    """Reads files, and notes of each what was in it at that moment."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, str]] = []

    def read(self, path: Path) -> bytes:
        """Return what is in a file; raises as `read_bytes` does."""
        data = read_bytes(path)
        self._seen.append((os.fspath(path), digest(data)))
        return data

    def seen(self) -> tuple[tuple[str, str], ...]:
        """Return path and digest of each reading; of a file that changed meanwhile, both digests."""
        return tuple(dict.fromkeys(self._seen))
