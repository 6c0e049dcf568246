"""Files and folders that outlive a power cut: a file whose name was not flushed is lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from pathlib import Path

LEFT_S = 3600.0  # what nobody has finished after this was left by a death

# Some network file systems cannot flush a folder, and some folders can be written to but not read;
# the change in them is made all the same.
_CANNOT = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES})


def make(folder: Path) -> None:
    """Create *folder* and flush its name, parents first.

    Raises:
        OSError: it cannot be created, or the disk fails.
    """
    if folder.is_dir():
        return
    if folder != folder.parent:  # a missing drive has no parent
        make(folder.parent)
    folder.mkdir(exist_ok=True)
    flush(folder.parent)


def obstacle(folder: Path) -> str | None:
    """Return what stands where *folder*, or one above it, belongs: a file, a link to nowhere."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if folder.is_dir():
        return None
    if folder.is_symlink():
        target = os.readlink(folder)  # noqa: PTH115 - as it is written
        return f"{folder} is a link to {target}, which is not there; is its disk mounted?"
    return f"{folder} is not a folder, and one belongs there; move it away and run again."


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


def write_whole(target: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, and remove what a death has left of one.

    Raises:
        OSError: it cannot be written; a former one stays.
    """
    part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
    for left in target.parent.glob(f".*.{'?' * 8}.part"):
        with contextlib.suppress(OSError):  # a young one may be somebody's who writes just now
            if left.name[1:-14] == target.name and time.time() - left.stat().st_mtime > LEFT_S:
                left.unlink()
    try:
        with part.open("xb") as file:  # through no link
            file.write(content)
        part.replace(target)
    finally:  # also where a Ctrl-C comes in between
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def sha256_of(file: Path) -> str:
    """Return the hash of a file's content; raise OSError if it cannot be read."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def remove(file: Path) -> None:
    """Remove a file, if it is there, and flush its folder.

    Raises:
        OSError: it cannot be removed, or the disk fails.
    """
    file.unlink(missing_ok=True)
    if file.parent.is_dir():
        flush(file.parent)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system has no links.

    Raises:
        OSError: the name is taken, or the disk fails.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, or another one
        _copy(source, target, beside=target.with_name(f".{target.name}"))


def move(part: Path, final: Path) -> None:
    """Move a file to its final name in one step, across file systems too.

    Raises:
        OSError: the disk or the permissions.
    """
    try:
        part.replace(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # videos/ lies on another file system than the state.
        _copy(part, final, beside=final.with_name(f".{part.name}"))
        part.unlink(missing_ok=True)


def _copy(source: Path, target: Path, *, beside: Path) -> None:
    """Copy to a hidden name *beside* the target, so that the last step is a rename."""
    try:
        import shutil  # noqa: PLC0415 - few file systems need it

        shutil.copyfile(source, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
