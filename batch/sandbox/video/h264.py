"""The smallest H.264 encoder that shows a text and plays everywhere. Pure Python.

Constrained Baseline, CAVLC, after ITU-T H.264 (the section numbers below are its). Three kinds of
macroblock are enough:

* **flat**: Intra16x16, predicted from the mean of its neighbours, with a single DC coefficient. The
  quantiser is 28, where one level of luma DC is exactly one step of brightness, and one level of
  chroma DC two (8.5.10, 8.5.11).
* **raw**: I_PCM, 384 bytes as they are: wherever there is text.
* **skipped or moved** (P frames): nothing at all, or one motion vector and no residual.

The moving thing is a bar in the lowest row of macroblocks that grows to the right: each P frame
copies the bar's edge from a few pixels further left. So the P frames hold no colour, and clips of
one size and length share them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

MACROBLOCK = 16  # pixels
_NO_DEBLOCKING = "010"  # disable_deblocking_filter_idc = 1, as ue(v)
_RAW_TYPE = 25  # mb_type I_PCM
_FLAT_TYPE = 3  # mb_type Intra16x16, DC prediction, no residual but the luma DC
_FLAT_TYPE_WITH_CHROMA = 7  # the same, with chroma DC
_EMULATION = re.compile(rb"\x00\x00(?=[\x00-\x03])")


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a picture in pixels, even numbers; cropped from whole macroblocks."""

    width: int
    height: int

    @property
    def columns(self) -> int:
        """Macroblocks in a row."""
        return -(-self.width // MACROBLOCK)

    @property
    def rows(self) -> int:
        """Rows of macroblocks."""
        return -(-self.height // MACROBLOCK)


@dataclass(frozen=True, slots=True)
class Picture:
    """A still: one brightness per row of macroblocks, one hue, and the raw macroblocks.

    *raw* maps a macroblock's number to its 384 bytes. A raw macroblock above a flat one must have
    the picture's hue, because hue is predicted from above. *hue* is (Cb, Cr), both even.
    """

    size: Size
    brightness: Sequence[int]
    hue: tuple[int, int]
    raw: Mapping[int, bytes]


# -- bits (7.2, 9.1) ---------------------------------------------------------------------------


@cache
def _ue(value: int) -> str:
    """Write an unsigned Exp-Golomb code."""
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _se(value: int) -> str:
    """Write a signed Exp-Golomb code."""
    return _ue(2 * value - 1 if value > 0 else -2 * value)


def _pack(bits: str) -> bytes:
    """Turn bits into bytes, filled up with zeros."""
    filled = bits + "0" * (-len(bits) % 8)
    return int(filled, 2).to_bytes(len(filled) // 8, "big") if filled else b""


def _nal(header: int, payload: bytes) -> bytes:
    """Wrap a payload into a NAL unit, with emulation prevention (7.4.1)."""
    return bytes([header]) + _EMULATION.sub(b"\x00\x00\x03", payload)


# -- headers (7.3.2, 7.3.3) --------------------------------------------------------------------


def sequence_parameters(size: Size) -> bytes:
    """Return the SPS: Constrained Baseline, level 3, output in decoding order."""
    right = (size.columns * MACROBLOCK - size.width) // 2
    bottom = (size.rows * MACROBLOCK - size.height) // 2
    crop = "1" + _ue(0) + _ue(right) + _ue(0) + _ue(bottom) if right or bottom else "0"
    bits = (
        f"{66:08b}{0xC0:08b}{30:08b}"
        + _ue(0)  # id
        + _ue(0)  # frame numbers of four bits
        + _ue(2)  # picture order is decoding order
        + _ue(1)  # one reference frame
        + "0"
        + _ue(size.columns - 1)
        + _ue(size.rows - 1)
        + "11"  # frames only, direct_8x8
        + crop
        + "0"  # no VUI
        + "1"
    )
    return _nal(0x67, _pack(bits))


def picture_parameters() -> bytes:
    """Return the PPS: CAVLC, quantiser 28, deblocking under control."""
    bits = _ue(0) * 2 + "00" + _ue(0) * 3 + "000" + _se(2) + _se(0) + _se(0) + "100" + "1"
    return _nal(0x68, _pack(bits))


# -- the still (7.3.5, 9.2) --------------------------------------------------------------------


@cache
def _one_coefficient(level: int, *, chroma: bool, crowded: bool) -> str:
    """Write a residual block that holds a DC level and nothing else.

    *crowded*: a neighbour is raw, which counts as 16 coefficients and changes the code table.
    """
    tokens = ("01", "000111", "1") if chroma else ("1", "000101", "01")
    if crowded and not chroma:
        tokens = ("000011", "000000", "000001")
    if level == 0:
        return tokens[0]
    sign = "1" if level < 0 else "0"
    if abs(level) == 1:
        return tokens[2] + sign + "1"
    code = 2 * abs(level) - 4 + (level < 0)
    if code < 14:
        written = "0" * code + "1"
    elif code < 30:
        written = "0" * 14 + "1" + f"{code - 14:04b}"
    else:
        written = "0" * 15 + "1" + f"{code - 30:012b}"
    return tokens[1] + written + "1"  # the last bit: no zeros in front of the coefficient


class _StillWriter:
    """Writes the macroblocks of one Picture, and remembers the edges that predict the next ones."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._columns = picture.size.columns
        self._above: list[int] = [0] * self._columns  # sums of the lowest lines of the row above
        self._above_is_raw = [False] * self._columns
        self._out = bytearray()
        self._bits: list[str] = []

    def write(self) -> bytes:
        """Return the slice data, with its stop bit."""
        for row in range(self._picture.size.rows):
            self._write_row(row)
        self._bits.append("1")
        return bytes(self._out) + _pack("".join(self._bits))

    def header(self, bits: str) -> None:
        """Put the slice header in front."""
        self._bits.append(bits)

    def _write_row(self, row: int) -> None:
        left: int | None = None
        left_is_raw = False
        for column in range(self._columns):
            raw = self._picture.raw.get(row * self._columns + column)
            above = self._above[column] if row else None
            if raw is not None:
                self._write_raw(raw)
                left, self._above[column] = sum(raw[15:256:16]), sum(raw[240:256])
            else:
                crowded = left_is_raw or (row > 0 and self._above_is_raw[column])
                self._write_flat(row, left, above, crowded=crowded)
                left = self._above[column] = 16 * self._picture.brightness[row]
            left_is_raw = self._above_is_raw[column] = raw is not None

    def _write_raw(self, raw: bytes) -> None:
        self._bits.append(_ue(_RAW_TYPE))
        self._out += _pack("".join(self._bits)) + raw
        self._bits = []

    def _write_flat(self, row: int, left: int | None, above: int | None, *, crowded: bool) -> None:
        level = self._picture.brightness[row] - _mean(left, above)
        luma = _one_coefficient(level, chroma=False, crowded=crowded)
        if left is None and above is None:  # the first: it sets the hue that all others inherit
            chroma = "".join(
                _one_coefficient((value - 128) // 2, chroma=True, crowded=False)
                for value in self._picture.hue
            )
            self._bits.append(_ue(_FLAT_TYPE_WITH_CHROMA) + _ue(0) + "1" + luma + chroma)
            return
        hue_from = _ue(1) if above is None else _ue(2)  # from the left, from above
        self._bits.append(_ue(_FLAT_TYPE) + hue_from + "1" + luma)


def _mean(left: int | None, above: int | None) -> int:
    """Predict a flat macroblock from the sums of its neighbours' edges (8.3.3.3)."""
    if left is not None and above is not None:
        return (left + above + 16) >> 5
    known = left if left is not None else above
    return 128 if known is None else (known + 8) >> 4


def still(picture: Picture) -> bytes:
    """Return the IDR frame, one NAL unit."""
    writer = _StillWriter(picture)
    # first macroblock, I slices only, parameter set, frame number, IDR id, marking, quantiser
    writer.header(_ue(0) + _ue(7) + _ue(0) + "0000" + _ue(0) + "00" + _se(0) + _NO_DEBLOCKING)
    return _nal(0x65, writer.write())


# -- the movement (7.3.4, 8.4.1) ---------------------------------------------------------------


@cache
def growing_bar(size: Size, frames: int) -> tuple[bytes, ...]:
    """Return the P frames (*frames* in number, a NAL unit each) in which the bar crosses the picture.

    In the still before them the bar is the first macroblock of the lowest row.
    """
    nals: list[bytes] = []
    edge = MACROBLOCK
    for number in range(1, frames + 1):
        goal = MACROBLOCK + (size.width - MACROBLOCK) * number // frames
        goal -= goal % 2  # even, so that the hue's half resolution moves by whole pixels too
        nals.append(_bar_frame(size, number, edge, goal))
        edge = goal
    return tuple(nals)


def _bar_frame(size: Size, number: int, edge: int, goal: int) -> bytes:
    """Move the bar's edge. The predicted vector is zero everywhere: all neighbours above rest."""
    # first macroblock, P slices only, parameter set, frame number, no overrides, quantiser
    bits = [_ue(0) + _ue(5) + _ue(0) + f"{number % 16:04b}" + "000" + _se(0) + _NO_DEBLOCKING]
    start, end = (size.rows - 1) * size.columns, size.rows * size.columns
    done = 0
    if goal > edge:
        for column in range(edge // MACROBLOCK, (goal - 1) // MACROBLOCK + 1):
            bits.append(_ue(start + column - done))  # skipped before it
            bits.append(_ue(0) + _se(-4 * (goal - edge)) + _se(0) + _ue(0))
            done = start + column + 1
    if done < end:
        bits.append(_ue(end - done))
    bits.append("1")
    return _nal(0x41, _pack("".join(bits)))
