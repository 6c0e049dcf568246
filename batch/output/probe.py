"""Whether videos and their rows can be written: tried out before anything is paid for.

Permission bits tell nothing to root, and nothing about a disk that is away or about how long a name it
takes. So a file is written into every folder concerned, and one with the longest name, and removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from batch.errors import StateError
from batch.output import disk
from batch.output.layout import Layout

BLOCK = bytes(4096)  # an empty file finds room on a full disk
NAME = ".kling-batch-probe"


def try_places(root: Path, files: Iterable[str]) -> None:
    """Write and remove a file wherever one of *files* (relative to *root*) will lie; try results.jsonl.

    Raises:
        StateError: one of them cannot be written; the message names the folder. Nothing is left.
    """
    folders: set[str] = set()
    longest = most_parted = ""
    for file in files:
        folders.add(file.rpartition("/")[0])
        longest = max(longest, file, key=_length)
        most_parted = max(most_parted, file, key=_longest_part)
    if not folders:
        return
    layout = Layout(root)
    folders.add(str(layout.part("any").parent.relative_to(root)))
    if not _try_results(layout.results):
        folders.add("")
    for folder in sorted({_existing(root / name) for name in folders}):
        if (what := disk.obstacle(folder)) is not None:
            raise StateError(f"{what} Nothing was sent")
        _try(folder / NAME, folder)
    for file in {most_parted, longest}:
        path = root / file
        with _made(path.parent, path):
            _try(path.with_name(NAME.ljust(_length(path.name), "k")), path.parent, path)


def _try_results(path: Path) -> bool:
    """Open the file that rows are appended to; return whether it is there."""
    if not os.path.lexists(path):
        return False
    if path.exists() and not path.is_file():  # to open a pipe is to wait for its reader
        raise StateError(
            f"{path} is not a regular file; move it away and run again. Nothing was sent"
        )
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    except OSError as error:
        raise StateError(
            f"{path} cannot be written ({error.strerror or error}), and every outcome is told there;"
            " correct that and run again. Nothing was sent"
        ) from error
    return True


def _length(text: str) -> int:
    return len(os.fsencode(text))


def _longest_part(file: str) -> int:
    return max(map(_length, file.split("/")))


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest above it that there is."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _try(probe: Path, folder: Path, file: Path | None = None) -> None:
    """Write *probe* into *folder* in place of *file*."""
    is_made = False
    try:
        _remove_left(probe)
        try:
            with probe.open("xb", buffering=0) as opened:
                is_made = True
                opened.write(BLOCK)
        except FileExistsError:  # `doctor` beside this run, or a person's: not ours to remove
            return
        finally:
            if is_made:
                probe.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(error, folder, file) from error


def _remove_left(probe: Path) -> None:
    """Remove what a death has left of a probe: no more than zeros."""
    try:
        found = probe.lstat()
    except FileNotFoundError:
        return
    is_small = stat.S_ISREG(found.st_mode) and found.st_size <= len(BLOCK)
    if is_small and not probe.read_bytes().strip(b"\0"):
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _made(folder: Path, file: Path) -> Iterator[None]:
    """Create *folder* while the block lasts."""
    missing = []
    above = _existing(folder)
    while folder != above:
        missing.append(folder)
        folder = folder.parent
    made: list[Path] = []
    try:
        for path in reversed(missing):
            path.mkdir()
            made.append(path)
        yield
    except OSError as error:
        raise _refused(error, folder, file) from error
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()


def _refused(error: OSError, folder: Path, file: Path | None) -> StateError:
    why = error.strerror or type(error).__name__
    if error.errno == errno.ENAMETOOLONG:
        return StateError(
            f"{file or folder} is a longer name than its disk takes ({why}); shorten the id of the"
            " job. Nothing was sent"
        )
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StateError(
            f"no space left for videos in {folder} ({why}); make room and run again. Nothing was sent"
        )
    advice = "is its disk away or failing? Mend that and run again"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        advice = "correct its owner or permissions and run again"
    elif error.errno in {errno.EMFILE, errno.ENFILE}:
        advice = "raise ulimit -n and run again"
    return StateError(f"{folder} cannot be written ({why}); {advice}. Nothing was sent")
