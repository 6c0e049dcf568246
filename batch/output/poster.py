"""First frames of videos as small pictures, kept by content in `.kling-batch/posters/`.

They need PyAV (`pip install 'kling-batch[report]'`). Without it, and for a video that cannot be decoded,
there is none.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from batch.output.layout import STATE_FOLDER

FOLDER = f"{STATE_FOLDER}/posters"
DIGITS = 16  # of a SHA-256, in hexadecimal, that name a picture
WIDTH = 320
QUALITY = 60


def has_pyav() -> bool:
    """Return whether pictures can be made."""
    try:
        import av  # noqa: F401, PLC0415 - optional, and slow to import
    except ImportError:
        return False
    return True


def path_of(root: Path, sha256: str) -> Path:
    """Return where the picture of a content is kept; *sha256* may be its first digits alone."""
    return root / FOLDER / f"{sha256[:DIGITS]}.webp"


def size_of(root: Path, sha256: str) -> int:
    """Return the bytes of a kept picture; 0 where there is none."""
    try:
        return path_of(root, sha256).stat().st_size
    except OSError:
        return 0


def keep(root: Path, sha256: str, video: Path) -> bool:
    """Make and keep the picture of a video; return whether there is one now.

    Raises:
        OSError: the folder cannot be written to.
    """
    if size_of(root, sha256):
        return True
    picture = picture_of(video)
    if picture is None:
        return False
    path = path_of(root, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        part.write_bytes(picture)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
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
