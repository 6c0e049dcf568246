"""The coded pictures of a track: is each sample a row of whole units, as H.264 and H.265 have them?

In an MP4 a unit stands behind its length, and the units fill their sample exactly (ISO/IEC 14496-15,
section 4.3). What was overwritten, shifted or never written in the middle of a file almost always
breaks such a row, or leaves zeros that no unit may hold. A walk over the lengths finds that as a
decoder would, many times faster. It does not decode.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import BinaryIO

from batch.frozen import frozen
from batch.media.boxes import MediaError, child, numbers

_ENTRY = 78  # bytes of a visual sample entry before its boxes
_PIECE = 4 * 2**20  # of a larger sample only the lengths are read
_AT_ONCE = 2**20  # so much of small samples that follow each other is read in one piece
_MAX_UNITS = 5_000_000
_ZEROS = bytes(32)  # both standards escape even three of them in a row
# What the first byte of a unit can be: a bit that is always zero, and a kind.
_FIRSTS_OF_AVC = frozenset(first for first in range(0x80) if 1 <= first & 31 <= 23)
_FIRSTS_OF_HEVC = frozenset(first for first in range(0x80) if not 41 <= first >> 1 <= 47)


@frozen
class Coding:
    """How a track is coded: by which standard, and in how many bytes the length of a unit stands."""

    is_hevc: bool
    length_bytes: int


def read_coding(table: memoryview) -> Coding | None:
    """Return how a track with this sample table (`stbl`) is coded; None if that is unknown."""
    entries = child(table, b"stsd")
    if entries is None or len(entries) < 8 or struct.unpack_from(">I", entries, 4)[0] != 1:
        return None
    try:
        for kind, box, at in (
            *((kind, b"avcC", 4) for kind in (b"avc1", b"avc3")),
            *((kind, b"hvcC", 21) for kind in (b"hvc1", b"hev1")),
        ):
            entry = child(entries[8:], kind)
            config = None if entry is None else child(entry[_ENTRY:], box)
            if config is not None and len(config) > at:
                return Coding(box == b"hvcC", (config[at] & 3) + 1)
    except MediaError:  # an entry in a form of its own
        pass
    return None


def check_pictures(
    file: BinaryIO, table: memoryview, chunks: array[int], coding: Coding, *, most: int
) -> None:
    """Check every sample of a track.

    Args:
        file: the video.
        table: the sample table of the track.
        chunks: the offsets of its chunks, in their order.
        coding: what `read_coding` has returned.
        most: the size of the file; all samples together cannot be larger.

    Raises:
        MediaError: a sample is not a row of whole units.
    """
    walk = _Walk(file, coding)
    for offset, sizes in _rows(table, chunks, most):
        walk.check(offset, sizes)


def _rows(table: memoryview, chunks: array[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the offset and the sizes of samples that follow each other in the file.

    Each read lets the event loop and this thread take turns: one a sample would be hundreds.
    """
    start, end, row = 0, 0, list[int]()
    for offset, sizes in _samples(table, chunks, most):
        at = offset
        for size in sizes:
            if row and (at != end or end + size - start > _AT_ONCE):
                yield start, row
                row = []
            if not row:
                start = at
            row.append(size)
            at = end = at + size
    if row:
        yield start, row


def _samples(
    table: memoryview, chunks: array[int], most: int
) -> Iterator[tuple[int, Iterable[int]]]:
    """Yield the offset of each chunk, and the sizes of its samples."""
    described, sizes = child(table, b"stsc"), child(table, b"stsz")
    if described is None or sizes is None:  # the compact stz2 is rare, and its samples are tiny
        return
    each, total = struct.unpack_from(">2I", sizes, 4)
    listed = None if each else numbers(sizes, 12, total, "I")
    runs = numbers(described, 8, 3 * struct.unpack_from(">I", described, 4)[0], "I")
    number, run = 0, 0
    for chunk, offset in enumerate(chunks, 1):
        while run + 3 < len(runs) and runs[run + 3] <= chunk:
            run += 3
        count = runs[run + 1]
        if count > total - number:
            raise MediaError("the index of the video lists samples that it does not describe")
        row = None if listed is None else listed[number : number + count]
        most -= each * count if row is None else sum(row) + row.count(0)
        if most < 0:
            raise MediaError("the index of the video lists more pictures than the file can hold")
        yield offset, repeat(each, count) if row is None else row
        number += count


class _Walk:
    """A walk over the units of samples. It holds one row at a time, and of a large one nothing."""

    def __init__(self, file: BinaryIO, coding: Coding) -> None:
        self._file = file
        self._is_hevc = coding.is_hevc
        self._length_bytes = coding.length_bytes
        self._header_bytes = coding.length_bytes + 1 + coding.is_hevc
        self._firsts = _FIRSTS_OF_HEVC if coding.is_hevc else _FIRSTS_OF_AVC
        self._left = _MAX_UNITS

    def check(self, offset: int, sizes: list[int]) -> None:
        """Check samples that follow each other.

        Raises:
            MediaError: one is not a row of whole units.
        """
        total, start = sum(sizes), 0
        data = self._read(offset, total) if total <= _PIECE else b""
        may_have_hole = _ZEROS in data
        for size in sizes:
            if may_have_hole and (hole := data.find(_ZEROS, start, start + size)) >= 0:
                at = offset + hole
                raise MediaError(f"the video has a hole: zeros at byte {at}, inside a picture")
            self._check_units(data, offset, start, start + size)
            start += size

    def _check_units(self, data: bytes, offset: int, at: int, end: int) -> None:
        """Check the sample from *at* to *end*, both counted from *offset*; *data* may be empty."""
        start, length_bytes = offset + at, self._length_bytes
        while at < end:
            behind = at + self._header_bytes
            header = data[at:behind] if data else self._read(offset + at, self._header_bytes)
            unit = int.from_bytes(header[:length_bytes])
            at += length_bytes + unit
            self._left -= 1
            if self._left < 0:
                raise MediaError("the pictures of the video have more parts than any real ones")
            if (
                at > end
                or len(header) < self._header_bytes
                or unit <= self._is_hevc
                or header[length_bytes] not in self._firsts
                or (self._is_hevc and not header[-1] & 7)
            ):
                raise MediaError(f"the video is damaged: the picture at byte {start} is not whole")

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) < size:
            raise MediaError("the video is cut off: its last pictures are missing")
        return data
