"""Writes a clip whose pictures fill it, as in a real one: what checks a video reads all of it.

    python tests/benchmarks/clip.py BYTES FILE

The sandbox pads a small clip at its end instead. The pictures are noise, which no player shows.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from batch.sandbox.video.mp4 import FRAMES_PER_S, Track, movie, sample

SECONDS = 5
SEQUENCE = bytes.fromhex("6742c01eda02802de5")  # a header of H.264 that nothing here reads
KEY_PICTURE, PICTURE = b"\x65", b"\x41"
KEY_TIMES = 5  # so many times larger is a picture that refers to no other


def clip(size: int) -> bytes:
    """Return a clip of *size* bytes."""
    count = SECONDS * FRAMES_PER_S

    def made(data: int) -> bytes:
        each = data // (count - 1 + KEY_TIMES)
        sizes = [data - each * (count - 1)] + [each] * (count - 1)
        noise = random.Random(data)
        frames = [
            sample((PICTURE if number else KEY_PICTURE) + noise.randbytes(length - 5))
            for number, length in enumerate(sizes)
        ]
        track = Track(1280, 720, SEQUENCE, b"\x68\xce\x3c\x80", sizes)
        return movie(track, b"".join(frames), "noise")

    overhead = len(made(1_000 * count)) - 1_000 * count
    return made(size - overhead)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(clip(int(sys.argv[1])))
