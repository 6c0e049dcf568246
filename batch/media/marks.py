"""Marks that say where a video comes from. They are looked for, never written or verified.

- `c2pa`: a manifest of Content Credentials, in a `uuid` box that holds JUMBF (C2PA 2.2, section A.5).
- `xmp`: a packet of XMP, in a `uuid` box or in `udta` (XMP specification, part 3).
- `aigc`: the label that GB 45438 (China) asks of generated media: metadata under the key `AIGC`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO
from uuid import UUID

from batch.media.boxes import Box, MediaError, child, children

C2PA_UUID = UUID("d8fec3d6-1b0e-483c-9297-5828877ec481").bytes
XMP_UUID = UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
_LABEL = b"AIGC"
_HEAD = 128  # bytes of a C2PA box in which its JUMBF begins
_MOST = 2**20  # bytes of a packet or of metadata that are read
_MAX_BOXES = 64


def find_marks(file: BinaryIO, boxes: Iterable[Box], index: memoryview) -> tuple[str, ...]:
    """Return the marks of a video, in a fixed order.

    Args:
        file: the video.
        boxes: its outermost boxes.
        index: the contents of its `moov`.
    """
    found = set(_in_boxes(file, boxes))
    for metadata in _metadata(index):
        found |= set(_in_metadata(metadata))
    return tuple(mark for mark in ("c2pa", "xmp", "aigc") if mark in found)


def _in_boxes(file: BinaryIO, boxes: Iterable[Box]) -> Iterator[str]:
    marked = [box for box in boxes if box.kind in {b"uuid", b"c2pa", b"meta"}]
    for box in marked[:_MAX_BOXES]:
        file.seek(box.start)
        body = file.read(min(box.end - box.start, _MOST))
        if box.kind == b"meta":
            yield from _in_metadata(memoryview(body))
        elif body.startswith(XMP_UUID):
            yield "xmp"
            if _LABEL in body:
                yield "aigc"
        elif (box.kind == b"c2pa" or body.startswith(C2PA_UUID)) and b"jumb" in body[:_HEAD]:
            yield "c2pa"


def _metadata(index: memoryview) -> Iterator[memoryview]:
    """Yield what describes the movie and its tracks."""
    try:
        yield from children(index, b"udta")
        yield from children(index, b"meta")
        for track in children(index, b"trak"):
            yield from children(track, b"udta")
    except MediaError:  # in a form of its own: nothing that a check of the pictures needs
        return


def _in_metadata(body: memoryview) -> Iterator[str]:
    try:
        packet = child(body, b"XMP_")
    except MediaError:
        packet = None
    if packet is not None:
        yield "xmp"
    if _LABEL in bytes(body[:_MOST]):
        yield "aigc"
