"""A minimal MP4 writer (ISO/IEC 14496-12 and -15): one H.264 track, index first, and a title."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

FRAMES_PER_S = 24
_TICK = 512  # ticks of the track's clock per frame
_IDENTITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


@dataclass(frozen=True, slots=True)
class Track:
    """The contents of the index. *sizes*: bytes of each sample, in order."""

    width: int
    height: int
    sequence: bytes
    picture: bytes
    sizes: Sequence[int]


def movie(track: Track, frames: bytes, title: str) -> bytes:
    """Return the whole file. *frames* holds the samples one after the other."""
    head = _box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
    length = len(_index(track, title, 0))
    data = _box(b"mdat", frames)
    return head + _index(track, title, len(head) + length + 8) + data


def sample(nal: bytes) -> bytes:
    """Turn a NAL unit into a sample: its length in front."""
    return struct.pack(">I", len(nal)) + nal


def free_header(length: int) -> bytes:
    """Return the header of a `free` box with *length* bytes of content, which players pass over."""
    if length + 8 < 1 << 32:
        return struct.pack(">I4s", length + 8, b"free")
    return struct.pack(">I4sQ", 1, b"free", length + 16)


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _full(kind: bytes, flags: int, *content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", flags), *content)


def _index(track: Track, title: str, first_sample: int) -> bytes:
    ticks = len(track.sizes) * _TICK
    scale = FRAMES_PER_S * _TICK
    movie_header = _full(
        b"mvhd",
        0,
        struct.pack(">IIIIIHHII", 0, 0, scale, ticks, 0x10000, 0x100, 0, 0, 0),
        _IDENTITY,
        bytes(24),
        struct.pack(">I", 2),  # the next track's number
    )
    track_header = _full(
        b"tkhd",
        3,
        struct.pack(">IIIII", 0, 0, 1, 0, ticks),
        bytes(16),
        _IDENTITY,
        struct.pack(">II", track.width << 16, track.height << 16),
    )
    media_header = _full(b"mdhd", 0, struct.pack(">IIIIHH", 0, 0, scale, ticks, 0x55C4, 0))
    handler = _full(b"hdlr", 0, bytes(4), b"vide", bytes(12), b"VideoHandler\0")
    data_here = _box(b"dinf", _full(b"dref", 0, struct.pack(">I", 1), _full(b"url ", 1)))
    info = _box(b"minf", _full(b"vmhd", 1, bytes(8)), data_here, _table(track, first_sample))
    media = _box(b"mdia", media_header, handler, info)
    return _box(b"moov", movie_header, _box(b"trak", track_header, media), _title(title))


def _table(track: Track, first_sample: int) -> bytes:
    count = len(track.sizes)
    return _box(
        b"stbl",
        _full(b"stsd", 0, struct.pack(">I", 1), _sample_entry(track)),
        _full(b"stts", 0, struct.pack(">III", 1, count, _TICK)),
        _full(b"stss", 0, struct.pack(">II", 1, 1)),
        _full(b"stsc", 0, struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", 0, struct.pack(">II", 0, count), struct.pack(f">{count}I", *track.sizes)),
        _full(b"stco", 0, struct.pack(">II", 1, first_sample)),
    )


def _sample_entry(track: Track) -> bytes:
    sets = (
        b"\xe1" + struct.pack(">H", len(track.sequence)) + track.sequence,
        b"\x01" + struct.pack(">H", len(track.picture)) + track.picture,
    )
    # version, profile, compatibility and level as in the SPS, lengths of four bytes
    decoder = _box(b"avcC", b"\x01", track.sequence[1:4], b"\xff", *sets)
    return _box(
        b"avc1",
        bytes(6) + struct.pack(">H", 1),
        bytes(16),
        struct.pack(">HH", track.width, track.height),
        struct.pack(">IIIH", 0x480000, 0x480000, 0, 1),
        bytes(32),
        struct.pack(">Hh", 24, -1),
        decoder,
    )


def _title(title: str) -> bytes:
    text = _box(b"data", struct.pack(">II", 1, 0), title.encode("utf-8", "replace"))
    handler = _full(b"hdlr", 0, bytes(4), b"mdirappl", bytes(9))
    return _box(b"udta", _full(b"meta", 0, handler, _box(b"ilst", _box(b"\xa9nam", text))))
