"""The videos: small, playable, of the ratio and length that were asked for, and showing the prompt."""

from __future__ import annotations

import hashlib
import math
import random
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from batch.sandbox.video.font import GLYPH_WIDTH, drawable, glyph_rows
from batch.sandbox.video.h264 import (
    MACROBLOCK,
    Picture,
    Size,
    growing_bar,
    picture_parameters,
    sequence_parameters,
    still,
)
from batch.sandbox.video.mp4 import FRAMES_PER_S, Track, free_header, movie, sample

SIZES = {
    "16:9": Size(320, 180),
    "9:16": Size(180, 320),
    "1:1": Size(240, 240),
    "4:3": Size(256, 192),
    "3:4": Size(192, 256),
    "3:2": Size(288, 192),
    "2:3": Size(192, 288),
}
CHUNK = 1 << 18  # bytes handed out at a time
_INK = 235
_FILLER_LENGTH = CHUNK - 5  # odd, so that a piece written to the wrong place shows


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that is only partly in memory: *head*, and *padding* bytes made on the fly.

    *zero_from*: from this byte on there are only zeros; *cut*: the file ends at this byte. Both
    are faults that were asked for.
    """

    head: bytes
    etag: str
    padding: int = 0
    zero_from: int | None = None
    cut: int | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        whole = len(self.head) + self.padding
        return whole if self.cut is None else min(self.cut, whole)

    def chunks(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Yield the bytes from *start* up to *stop*."""
        while start < min(stop, self.size):
            end = min(stop, self.size, start + CHUNK)
            piece = self._piece(start, end)
            yield piece
            start += len(piece)

    def content(self) -> bytes:
        """Return the whole file. For tests."""
        return b"".join(self.chunks(0, self.size))

    def _piece(self, start: int, end: int) -> bytes | memoryview:
        if self.zero_from is not None and end > self.zero_from:
            if start >= self.zero_from:
                return bytes(end - start)
            end = self.zero_from
        if start < len(self.head):
            return self.head[start:end]
        offset = (start - len(self.head)) % _FILLER_LENGTH
        return _filler()[offset : offset + end - start]


@cache
def _filler() -> memoryview:
    block = random.Random(1).randbytes(_FILLER_LENGTH)  # noqa: S311 - filler, no secret
    return memoryview(block * 2)


def frame_count(duration_s: int) -> int:
    """Return how many frames a clip has. One more than asked, as the real ones (5.04 s for 5)."""
    return duration_s * FRAMES_PER_S + 1


def clip_duration_s(duration_s: int) -> float:
    """Return how long the clip for an asked duration really is."""
    return frame_count(duration_s) / FRAMES_PER_S


@lru_cache(maxsize=128)
def render(prompt: str, footer: str, aspect_ratio: str, duration_s: int) -> Clip:
    """Make the clip. About one millisecond, 5 to 80 KB; hue and text tell clips apart."""
    size = SIZES[aspect_ratio]
    first = sample(still(_picture(prompt, footer, size)))
    sizes, rest = _rest(size, frame_count(duration_s) - 1)
    track = Track(
        width=size.width,
        height=size.height,
        sequence=sequence_parameters(size),
        picture=picture_parameters(),
        sizes=(len(first), *sizes),
    )
    content = movie(track, first + rest, prompt)
    return Clip(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def padded(clip: Clip, size: int) -> Clip:
    """Return the clip as a file of *size* bytes, if it is shorter: a `free` box at the end."""
    missing = size - len(clip.head)
    header = free_header(max(missing - 8, 0))
    if missing < len(header):
        return clip
    padding = missing - len(header)
    if len(header) > 8:
        header = free_header(padding)
    return replace(clip, head=clip.head + header, padding=padding, etag=f'{clip.etag[:-1]}-{size}"')


@cache
def _rest(size: Size, frames: int) -> tuple[tuple[int, ...], bytes]:
    samples = [sample(nal) for nal in growing_bar(size, frames)]
    return tuple(map(len, samples)), b"".join(samples)


def _picture(prompt: str, footer: str, size: Size) -> Picture:
    digest = hashlib.sha256(f"{prompt}\n{footer}".encode("utf-8", "replace")).digest()
    angle = digest[0] / 256 * math.tau
    hue = (128 + 2 * round(24 * math.cos(angle)), 128 + 2 * round(24 * math.sin(angle)))
    darkest = 40 + digest[1] % 40
    brightness = [darkest + 40 * row // size.rows for row in range(size.rows)]
    ground = _Ground(size, brightness, bytes([hue[0]]) * 64 + bytes([hue[1]]) * 64)
    raw: dict[int, bytes] = {}
    for row, (lines, scale) in enumerate(_layout(prompt, footer, size), start=1):
        raw.update(ground.text_row(row, lines, scale))
    accent = bytes([256 - hue[0]]) * 64 + bytes([256 - hue[1]]) * 64
    raw[(size.rows - 1) * size.columns] = bytes([190]) * 256 + accent  # where the bar begins
    return Picture(size, brightness, hue, raw)


def _layout(prompt: str, footer: str, size: Size) -> list[tuple[tuple[str, ...], int]]:
    """Set the text: for each row of macroblocks from the second, its lines and their scale.

    Large letters fill a row each, small ones go in two lines; the first row and the last are free,
    the last but one holds the footer.
    """
    rows, width = size.rows - 3, size.width - 2 * MACROBLOCK
    shown = drawable(prompt)
    body: list[tuple[tuple[str, ...], int]]
    large = textwrap.wrap(shown, width // (2 * GLYPH_WIDTH))
    if len(large) <= rows:
        body = [((line,), 2) for line in large]
    else:
        lines = textwrap.wrap(shown, width // GLYPH_WIDTH, max_lines=2 * rows, placeholder="...")
        body = [(tuple(lines[at : at + 2]), 1) for at in range(0, len(lines), 2)]
    body += [((), 1)] * (rows - len(body))
    last = drawable(footer)[: width // GLYPH_WIDTH]
    return [*body, (("", last) if last else (), 1)]


@dataclass(frozen=True, slots=True)
class _Ground:
    """The canvas of the text."""

    size: Size
    brightness: list[int]
    chroma: bytes

    def text_row(self, row: int, lines: tuple[str, ...], scale: int) -> dict[int, bytes]:
        """Draw a row of macroblocks; return those that the text touches, by number."""
        longest = max(map(len, lines), default=0)
        if not longest:
            return {}
        columns = -(-longest * GLYPH_WIDTH * scale // MACROBLOCK)
        width = columns * MACROBLOCK
        colours = bytes([self.brightness[row], _INK]) + bytes(254)
        pixels: list[bytes] = []
        for line in lines:
            for glyphs in glyph_rows(scale):
                dots = b"".join(map(glyphs.__getitem__, line)).ljust(width, b"\0")
                pixels += [dots.translate(colours)] * scale
        pixels += [bytes([self.brightness[row]]) * width] * (MACROBLOCK - len(pixels))
        number = row * self.size.columns + 1
        return {
            number + column: b"".join(
                line[column * MACROBLOCK : (column + 1) * MACROBLOCK] for line in pixels
            )
            + self.chroma
            for column in range(columns)
        }
