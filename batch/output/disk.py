"""Folders whose names outlive a power cut: what was written into one is lost if its name is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# Some network file systems cannot flush a folder, and some folders may be written to but not read;
# what was done in them has happened all the same.
_CANNOT = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES})


def make(folder: Path) -> None:
    """Create *folder* and make its name durable, parents first.

    Raises:
        OSError: it cannot be made, or the disk fails.
    """
    if folder.is_dir():
        return
    if folder != folder.parent:  # else it is a drive, and not there
        make(folder.parent)
    folder.mkdir(exist_ok=True)
    flush(folder.parent)


def flush(folder: Path) -> None:
    """Bring the names in *folder* through the operating system's cache.

    Raises:
        OSError: the disk fails.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
