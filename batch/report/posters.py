"""The pictures of a page: first frames, in it or in files beside it.

They are made when a page is written, at the end of a run or on request: while videos come, the
processor is theirs. Where there is none, the page draws the first frame itself, or says "no picture".
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from batch.job import video_path
from batch.output import poster
from batch.report.entries import Entry

INLINE_UP_TO = 6_000_000  # characters of base64, all posters together
BUDGET_S = 60.0  # for new ones; the rest is made by the next report


class Mode(StrEnum):
    """Where the pictures are: in the page, in files beside it, or nowhere."""

    AUTO = "auto"
    INLINE = "inline"
    FILES = "files"
    NONE = "none"


@dataclass(slots=True)
class Posters:
    """The pictures of a report: *inline* as base64 by content, *files* those kept beside it.

    *made* are new; *left* had to wait for the next report.
    """

    inline: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    made: int = 0
    left: int = 0


def posters(
    root: Path, videos: Mapping[str, str | None], mode: Mode, *, budget_s: float = BUDGET_S
) -> Posters:
    """Return the pictures of *videos*, and make those that are not kept yet.

    Args:
        root: the output folder.
        videos: their files, relative to it, by the first digits of their SHA-256; None for one that
            is only in the bucket.
        mode: how the page will hold them.
        budget_s: how long making them may take.
    """
    found = Posters()
    if mode is Mode.NONE:
        return found
    found.made, found.left = _make(root, videos, time.monotonic() + budget_s)
    sizes = {sha: size for sha in videos if (size := poster.size_of(root, sha))}
    is_small = sum(sizes.values()) * 4 / 3 <= INLINE_UP_TO
    if mode is Mode.INLINE or (mode is Mode.AUTO and is_small):
        for sha in sizes:
            with contextlib.suppress(OSError):
                content = poster.path_of(root, sha).read_bytes()
                found.inline[sha] = base64.b64encode(content).decode()
    else:
        found.files = list(sizes)
    return found


def _make(root: Path, videos: Mapping[str, str | None], until: float) -> tuple[int, int]:
    missing = [
        (sha, root / file)
        for sha, file in videos.items()
        if file is not None and not poster.size_of(root, sha)
    ]
    if not missing or not poster.has_pyav():
        return 0, 0
    made = 0
    for number, (sha, video) in enumerate(missing):
        if time.monotonic() >= until:
            return made, len(missing) - number
        try:
            made += poster.keep(root, sha, video)
        except OSError:  # a folder that cannot be written to has no pictures
            return made, len(missing) - number
    return made, 0


def videos_of(entry: Entry) -> Iterable[tuple[str, str | None]]:
    """Yield content and file of a job's attempts whose video there is; None if not on this disk."""
    for attempt in entry["tries"]:
        file = attempt.get("file")
        if file is not None:
            yield attempt["sha"], video_path(entry["id"]) if file is True else file
        elif attempt.get("status") == "stored":
            yield attempt["sha"], None
