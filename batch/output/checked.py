"""A landed file as it is now: as it landed, edited by a person, or no whole video any more."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from batch.attempt import Attempt, Checked, Landed
from batch.output import disk

# From the last byte of a video to its record. What was written earlier than that is no proof of being
# left alone: the clock may have been ahead when it landed.
LANDS_WITHIN_S = 3600.0
# What was written earlier than that is older than the video. An editor may keep a file's time, which
# is from just before it landed.
KEEPS_TIME_S = 60.0


def was_left_alone(status: os.stat_result, size: int, landed_at: float) -> bool:
    """Return whether a file has its size, and was last written to just before it landed."""
    return status.st_size == size and 0 <= landed_at - status.st_mtime <= LANDS_WITHIN_S


def look(path: Path, attempt: Attempt) -> Checked | None:
    """Return what is known of a landed file as it is now; it is read only if that is not recorded.

    None: it is as it landed, or not a whole video any more.

    Raises:
        OSError: it cannot be read.
    """
    assert isinstance(attempt.state, Landed)
    status, state = path.stat(), attempt.state
    if was_left_alone(status, state.bytes, state.landed_at):
        return None
    if state.checked is not None and state.checked.fits(status):
        return state.checked
    return check(path, attempt)


def is_as_landed(path: Path, landed: Landed) -> bool:
    """Return whether a file is known to hold what has landed; it is read only if it was written to since."""
    try:
        status = path.stat()
        if was_left_alone(status, landed.bytes, landed.landed_at):
            return True
        if landed.checked is not None and landed.checked.fits(status):
            return not landed.is_edited
        return status.st_size == landed.bytes and disk.sha256_of(path) == landed.sha256
    except OSError:
        return False


def check(path: Path, attempt: Attempt) -> Checked | None:
    """Return what a changed file holds; None unless it is a whole video of the right length.

    Raises:
        OSError: it cannot be read.
    """
    from batch.media.check import MediaError, compare, inspect  # noqa: PLC0415 - on most nights for no file

    assert isinstance(attempt.state, Landed)
    if not path.is_file():  # a pipe would be waited for
        return None
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != attempt.state.sha256:
        if status.st_mtime < attempt.state.landed_at - KEEPS_TIME_S:
            return None  # nobody has edited it since: an older disk or backup has brought it
        try:
            video = inspect(path)
        except MediaError:
            return None
        lengths = (attempt.body().get("duration"), attempt.state.video.duration_s)
        if all(compare(video, None, length) for length in lengths):
            return None
    return Checked(status.st_size, status.st_mtime, sha256)
