"""First frames of videos as small pictures, where PyAV is installed (`pip install 'kling-batch[report]'`).

They are made when a page is written, at the end of a run or on request: while videos come, the
processor is theirs. They are kept by content in `.kling-batch/posters/`. Without PyAV, and for a video that cannot be
decoded, there is none: the page then draws the first frame itself, or says "no picture".
"""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

from batch.job import video_path
from batch.output.layout import STATE_FOLDER
from batch.report.entries import Entry

FOLDER = f"{STATE_FOLDER}/posters"
WIDTH = 320
QUALITY = 60
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
    root: Path, videos: Mapping[str, str], mode: Mode, *, budget_s: float = BUDGET_S
) -> Posters:
    """Return the pictures of *videos*, and make those that are not kept yet.

    Args:
        root: the output folder.
        videos: their files, relative to it, by the first digits of their SHA-256.
        mode: how the page will hold them.
        budget_s: how long making them may take.
    """
    found = Posters()
    if mode is Mode.NONE:
        return found
    found.made, found.left = _make(root, videos, time.monotonic() + budget_s)
    pictures = {sha: root / FOLDER / f"{sha}.webp" for sha in videos}
    sizes = {sha: size for sha, path in pictures.items() if (size := _size(path))}
    is_small = sum(sizes.values()) * 4 / 3 <= INLINE_UP_TO
    if mode is Mode.INLINE or (mode is Mode.AUTO and is_small):
        for sha in sizes:
            with contextlib.suppress(OSError):
                found.inline[sha] = base64.b64encode(pictures[sha].read_bytes()).decode()
    else:
        found.files = list(sizes)
    return found


def _make(root: Path, videos: Mapping[str, str], until: float) -> tuple[int, int]:
    missing = [sha for sha in videos if not _size(root / FOLDER / f"{sha}.webp")]
    if not missing or not _has_pyav():
        return 0, 0
    made = 0
    for number, sha in enumerate(missing):
        if time.monotonic() >= until:
            return made, len(missing) - number
        picture = picture_of(root / videos[sha])
        try:
            if picture is not None:
                _keep(root / FOLDER, sha, picture)
                made += 1
        except OSError:  # a folder that cannot be written to has no pictures
            return made, len(missing) - number
    return made, 0


def _has_pyav() -> bool:
    try:
        import av  # noqa: F401, PLC0415 - optional, and slow to import
    except ImportError:
        return False
    return True


def picture_of(video: Path) -> bytes | None:
    """Return the first frame as WebP; None where it cannot be decoded."""
    import av  # noqa: PLC0415 - optional, and slow to import

    try:
        with av.open(str(video)) as container:
            frame = next(container.decode(video=0))
        height = max(2, round(frame.height * WIDTH / frame.width / 2) * 2)
        encoder = av.CodecContext.create("libwebp", "w")
        encoder.width, encoder.height, encoder.pix_fmt = WIDTH, height, "yuv420p"
        encoder.time_base, encoder.options = Fraction(1), {"quality": str(QUALITY)}
        frame = frame.reformat(width=WIDTH, height=height, format="yuv420p")
        frame.pts = 0
        packets = [*encoder.encode(frame), *encoder.encode(None)]
    except (OSError, ValueError, StopIteration, IndexError):  # PyAV's errors are among these
        return None
    return b"".join(map(bytes, packets))


def _keep(folder: Path, sha: str, picture: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{sha}.{os.getpid()}.part"
    try:
        part.write_bytes(picture)
        part.replace(folder / f"{sha}.webp")
    finally:
        part.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def videos_of(entry: Entry) -> Iterable[tuple[str, str]]:
    """Yield content and file of a job's attempts whose video is on disk."""
    for attempt in entry["tries"]:
        file = attempt.get("file")
        if file is not None:
            yield attempt["sha"], video_path(entry["id"]) if file is True else file
