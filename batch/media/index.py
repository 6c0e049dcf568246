"""What the index of an MP4 (`moov`) says about its tracks, and fragments about their durations."""

from __future__ import annotations

import struct
from array import array

from batch.frozen import frozen
from batch.media.boxes import MediaError, child, children, numbers


@frozen
class Track:
    """What the checks need to know about a track.

    `last_sample` and `last_end` bound the last sample of the chunk that lies last in the file;
    `table` is its sample table (`stbl`).
    """

    id: int
    is_video: bool
    width: int
    height: int
    duration_s: float
    timescale: int
    chunks: array[int]
    last_sample: int
    last_end: int
    table: memoryview | None


def _time(body: memoryview | None) -> tuple[int, float]:
    """Return time scale and duration in seconds of an mvhd or mdhd; 0 for what is unknown."""
    if body is None:
        return 0, 0.0
    layout, unknown, at = (">IQ", 2**64 - 1, 20) if body[0] == 1 else (">II", 2**32 - 1, 12)
    scale, duration = struct.unpack_from(layout, body, at)
    return scale, duration / scale if scale and duration != unknown else 0.0


def movie_duration(index: memoryview) -> float:
    """Return the duration in the header of the movie, in seconds; 0 if it is unknown."""
    return _time(child(index, b"mvhd"))[1]


def read_track(body: memoryview) -> Track:
    """Read a track (`trak`).

    Raises:
        MediaError: it has no header, or its tables contradict each other.
    """
    head, media = child(body, b"tkhd"), child(body, b"mdia")
    handler = child(media, b"hdlr")
    if head is None or handler is None:
        raise MediaError("a track of the video has no header")
    table = child(media, b"minf", b"stbl")
    timescale, duration_s = _time(child(media, b"mdhd"))
    width, height = _picture_size(head, table)
    chunks = _chunk_offsets(table) if table is not None else array("Q")
    last_sample, last_end = _last_sample(table, chunks) if table is not None and chunks else (0, 0)
    return Track(
        id=struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0],
        is_video=bytes(handler[8:12]) == b"vide",
        width=width,
        height=height,
        duration_s=duration_s,
        timescale=timescale,
        chunks=chunks,
        last_sample=last_sample,
        last_end=last_end,
        table=table,
    )


def _picture_size(head: memoryview, table: memoryview | None) -> tuple[int, int]:
    """Return width and height as displayed: after the rotation that the track asks for."""
    matrix_at = 52 if head[0] == 1 else 40
    a, b, _, c, d = struct.unpack_from(">5i", head, matrix_at)
    width, height = (value >> 16 for value in struct.unpack_from(">2I", head, matrix_at + 36))
    entry = None if width and height else child(table, b"stsd")
    if entry is not None and len(entry) >= 44:
        width, height = struct.unpack_from(">2H", entry, 40)
    is_turned = abs(b) > abs(a) and abs(c) > abs(d)
    if not (width and height):
        return 0, 0
    return (height, width) if is_turned else (width, height)


def _chunk_offsets(table: memoryview) -> array[int]:
    for kind, typecode in ((b"stco", "I"), (b"co64", "Q")):
        body = child(table, kind)
        if body is not None:
            return numbers(body, 8, struct.unpack_from(">I", body, 4)[0], typecode)
    return array("Q")


def _last_sample(table: memoryview, chunks: array[int]) -> tuple[int, int]:
    """Return start and end of the last sample in the chunk that lies last in the file."""
    last = max(chunks)
    first, count = _samples_of(table, chunks.index(last) + 1)
    sizes = child(table, b"stsz")
    if sizes is None:  # the compact form, stz2: rare, and its samples are tiny
        return last, last + 1
    each, total = struct.unpack_from(">2I", sizes, 4)
    if not 0 < count <= total - first:
        raise MediaError("the index of the video lists samples that it does not describe")
    if each:
        return last + each * (count - 1), last + each * count
    inside = numbers(sizes[12 + 4 * first :], 0, count, "I")
    end = last + sum(inside)
    return end - inside[-1], end


def _samples_of(table: memoryview, chunk: int) -> tuple[int, int]:
    """Return the number of samples before *chunk* (counted from 1), and in it."""
    body = child(table, b"stsc")
    if body is None:
        raise MediaError("the index of the video has no table of chunks")
    runs = numbers(body, 8, 3 * struct.unpack_from(">I", body, 4)[0], "I")
    before = 0
    for at in range(0, len(runs), 3):
        start, count = runs[at], runs[at + 1]
        end = runs[at + 3] if at + 3 < len(runs) else chunk + 1
        if end > chunk:
            return before + (chunk - start) * count, count
        before += (end - start) * count
    raise MediaError("the index of the video has no chunks")


def promised_duration(index: memoryview) -> float:
    """Return the duration that a fragmented file promises, in seconds; 0 if it does not."""
    header = child(index, b"mvex", b"mehd")
    scale, _ = _time(child(index, b"mvhd"))
    if header is None or not scale:
        return 0.0
    units: int = struct.unpack_from(">Q" if header[0] == 1 else ">I", header, 4)[0]
    return units / scale


def default_sample_duration(index: memoryview, track_id: int) -> int:
    """Return how long a sample of the track lasts unless its fragment says otherwise."""
    extension = child(index, b"mvex")
    for body in children(extension, b"trex") if extension is not None else ():
        found, _, duration = struct.unpack_from(">3I", body, 4)
        if found == track_id:
            return int(duration)
    return 0


def fragment_duration(moof: memoryview, track_id: int, per_sample: int) -> int:
    """Return the duration of a track in one fragment, in units of the track's time scale."""
    units = 0
    for traf in children(moof, b"traf"):
        head = child(traf, b"tfhd")
        if head is None or struct.unpack_from(">I", head, 4)[0] != track_id:
            continue
        flags = struct.unpack_from(">I", head)[0] & 0xFFFFFF
        at = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
        default = struct.unpack_from(">I", head, at)[0] if flags & 0x8 else per_sample
        units += sum(_run_units(run, default) for run in children(traf, b"trun"))
    return units


def _run_units(run: memoryview, default: int) -> int:
    flags, count = struct.unpack_from(">2I", run)
    if not flags & 0x100:
        return int(default * count)
    at = 8 + (4 if flags & 0x1 else 0) + (4 if flags & 0x4 else 0)
    fields = 1 + sum(bool(flags & bit) for bit in (0x200, 0x400, 0x800))
    return int(sum(numbers(run, at, count * fields, "I")[::fields]))
