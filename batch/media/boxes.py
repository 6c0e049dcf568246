"""The boxes that an MP4 consists of (ISO/IEC 14496-12, section 4.2), whatever they mean.

Whatever a file claims, no read is larger than `_MAX_LOAD` and no loop longer than `_MAX_BOXES`.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import BinaryIO

from batch.frozen import frozen

_MAX_LOAD = 64 * 2**20  # bytes; an hour of video has an index of about 5 MiB
_MAX_BOXES = 50_000  # in a file, or in a box
_SHORT = struct.Struct(">I4s")
_LONG = struct.Struct(">Q")
_KIND_BYTES = bytes([*range(0x20, 0x7F), 0xA9])  # that the kind of a box may consist of


class MediaError(ValueError):
    """The file is not a complete video; the message says why, in words for the user."""


@frozen
class Box:
    """A box of the file; `start` and `end` of its contents are offsets in the file."""

    kind: bytes
    start: int
    end: int


def walk_file(file: BinaryIO, size: int) -> Iterator[Box]:
    """Yield the outermost boxes.

    Raises:
        MediaError: a box is incomplete, or the file does not begin like an MP4.
    """
    position = 0
    for count in range(_MAX_BOXES):
        if position == size and count:
            return
        file.seek(position)
        header = file.read(16)
        if count == 0 and header[4:8] != b"ftyp":
            raise MediaError(_describe_start(header))
        kind, inside, length = _read_header(header, 0, position, size - position)
        end = position + length
        if end > size:
            raise MediaError(f"the video is cut off: {end - size} bytes are missing at the end")
        yield Box(kind, position + inside, end)
        position = end
    raise MediaError("the video has more boxes than any real one")


def _describe_start(header: bytes) -> str:
    if not header:
        return "the file is empty"
    if not header.strip(b"\0"):
        return "the file begins with zeros: its contents were never written"
    is_text = header.lstrip()[:1] in {b"<", b"{"}
    return "the file is a web page or a message" if is_text else "the file is not an MP4"


def _read_header(
    buffer: bytes | memoryview, at: int, position: int, left: int
) -> tuple[bytes, int, int]:
    """Return the kind of a box, the length of its header, and the length of the whole box.

    Args:
        buffer: holds the header.
        at: where in `buffer` it begins.
        position: where in the file the box begins, for messages.
        left: the length of a box that reaches to the end (a length of 0 says so).
    """
    if len(buffer) - at < 8:
        raise MediaError("the video is cut off in the header of a box")
    length, kind = _SHORT.unpack_from(buffer, at)
    inside = 8
    if kind.translate(None, _KIND_BYTES):
        raise MediaError(f"the video is damaged: no box begins at byte {position}")
    if length == 1:
        if len(buffer) - at < 16:
            raise MediaError("the video is cut off in the header of a box")
        length, inside = _LONG.unpack_from(buffer, at + 8)[0], 16
    elif length == 0:
        length = left
    if length < inside:
        raise MediaError(f"the box at byte {position} of the video has an impossible size")
    return kind, inside, length


def load(file: BinaryIO, box: Box) -> memoryview:
    """Return the contents of a box.

    Raises:
        MediaError: they are larger than any real index, or the file has become shorter.
    """
    if box.end - box.start > _MAX_LOAD:
        raise MediaError("the index of the video is larger than any real one")
    file.seek(box.start)
    body = file.read(box.end - box.start)
    if len(body) < box.end - box.start:
        raise MediaError("the video became shorter while it was read")
    return memoryview(body)


def children(body: memoryview, kind: bytes) -> Iterator[memoryview]:
    """Yield the contents of each box of one `kind` that lies directly in `body`.

    Raises:
        MediaError: `body` does not consist of boxes.
    """
    position, end = 0, len(body)
    for _ in range(_MAX_BOXES):
        if end - position < 8:
            return
        found, inside, length = _read_header(body, position, position, end - position)
        if position + length > end:
            raise MediaError("a box of the index is larger than the one around it")
        if found == kind:
            yield body[position + inside : position + length]
        position += length
    raise MediaError("the index of the video has more boxes than any real one")


def child(body: memoryview | None, *path: bytes) -> memoryview | None:
    """Return the contents of the first box at the end of `path`, if there is one."""
    for kind in path:
        if body is None:
            break
        body = next(children(body, kind), None)
    return body


def numbers(body: memoryview, at: int, count: int, typecode: str) -> array[int]:
    """Return `count` big-endian numbers.

    Raises:
        MediaError: `body` is too short for them.
    """
    found = array(typecode)
    inside = body[at : at + count * found.itemsize]
    if len(inside) < count * found.itemsize:
        raise MediaError("a table of the index is shorter than it says")
    found.frombytes(inside)
    if sys.byteorder == "little":
        found.byteswap()
    return found
