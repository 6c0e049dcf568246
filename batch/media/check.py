"""What a video file says of itself, and whether all of it is there.

A walk over the boxes of an MP4 (`batch.media.boxes`) that reads headers and the index, never the
pictures: less than a tenth of a millisecond. It tells a whole file from a truncated one, a page of
HTML, and a file whose middle was never written. It does not decode.
"""

from __future__ import annotations

import io
import math
import os
import struct
from array import array
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from batch.job import Video
from batch.media.boxes import Box, MediaError, child, children, load, numbers, walk_file

__all__ = ["MediaError", "compare", "inspect", "inspect_data"]

_SMALL = 2**17  # bytes
_MAX_TRACKS = 64
_PROBES = 16  # samples that are looked at
_PROBE = (
    32  # bytes of each; a coded picture begins with its length or a start code, never with zeros
)
_MIN_DURATION_S, _MAX_DURATION_S = 0.001, 7 * 86_400.0
_RATIO_TOLERANCE = 0.03  # codecs round the size to multiples of 16
_DURATION_TOLERANCE = 0.10
_DURATION_TOLERANCE_S = 0.6  # "5" comes back as 5.04 to 5.1


@dataclass(frozen=True, slots=True)
class _Track:
    """What is needed of a track.

    *last_sample* and *last_end* bound the last sample of the chunk that lies last in the file.
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


def inspect(path: Path) -> Video:
    """Read what the video at *path* says of itself.

    Raises:
        MediaError: it is no MP4, not all of it is there, or it holds no picture.
        OSError: it cannot be read.
    """
    # No buffer: what is looked at lies far apart. A small file is read at once instead.
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _SMALL:
            return inspect_data(file.read(size))
        return _inspect(file, size)


def inspect_data(data: bytes) -> Video:
    """Read what a video in memory says of itself.

    Raises:
        MediaError: it is no MP4, not all of it is there, or it holds no picture.
    """
    return _inspect(io.BytesIO(data), len(data))


def _inspect(file: BinaryIO, size: int) -> Video:
    try:
        return _walk(file, size)
    except (struct.error, IndexError, OverflowError) as exc:
        raise MediaError("the index of the video is garbled") from exc


def _walk(file: BinaryIO, size: int) -> Video:
    boxes = list(walk_file(file, size))
    moov = next((box for box in boxes if box.kind == b"moov"), None)
    data = [box for box in boxes if box.kind == b"mdat" and box.end > box.start]
    if moov is None or not data:
        raise MediaError(f"the video has no {'index (moov)' if moov is None else 'data (mdat)'}")
    index = load(file, moov)
    tracks = [_read_track(body) for body in islice(children(index, b"trak"), _MAX_TRACKS)]
    video = next((track for track in tracks if track.is_video and track.width), None)
    if video is None:
        raise MediaError("the file holds no picture")
    fragments = [box for box in boxes if box.kind == b"moof"]
    if fragments:
        duration_s = _check_fragments(file, index, fragments, video, data)
    else:
        _check_samples(tracks, data)
        _probe(file, video)
        duration_s = _movie_duration(index) or video.duration_s
    if not _MIN_DURATION_S <= duration_s <= _MAX_DURATION_S:
        raise MediaError("the video has no duration")
    return Video(round(duration_s, 3), video.width, video.height)


# -- the index -------------------------------------------------------------------------------


def _time(body: memoryview | None) -> tuple[int, float]:
    """Read time scale and duration in seconds from an mvhd or mdhd; 0 where it is not told."""
    if body is None:
        return 0, 0.0
    layout, unknown, at = (">IQ", 2**64 - 1, 20) if body[0] == 1 else (">II", 2**32 - 1, 12)
    scale, duration = struct.unpack_from(layout, body, at)
    return scale, duration / scale if scale and duration != unknown else 0.0


def _movie_duration(index: memoryview) -> float:
    return _time(child(index, b"mvhd"))[1]


def _read_track(body: memoryview) -> _Track:
    head, media = child(body, b"tkhd"), child(body, b"mdia")
    handler = child(media, b"hdlr")
    if head is None or handler is None:
        raise MediaError("a track of the video has no header")
    table = child(media, b"minf", b"stbl")
    timescale, duration_s = _time(child(media, b"mdhd"))
    width, height = _picture_size(head, table)
    chunks = _chunk_offsets(table) if table is not None else array("Q")
    last_sample, last_end = _last_sample(table, chunks) if table is not None and chunks else (0, 0)
    return _Track(
        id=struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0],
        is_video=bytes(handler[8:12]) == b"vide",
        width=width,
        height=height,
        duration_s=duration_s,
        timescale=timescale,
        chunks=chunks,
        last_sample=last_sample,
        last_end=last_end,
    )


def _picture_size(head: memoryview, table: memoryview | None) -> tuple[int, int]:
    """Return width and height as they are shown: after the rotation that the track asks for."""
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
    """Return where the last sample begins and ends of the chunk that lies last in the file."""
    last = max(chunks)
    first, count = _samples_of(table, chunks.index(last) + 1)
    sizes = child(table, b"stsz")
    if sizes is None:  # the compact form, stz2: rare, and its samples are tiny
        return last, last + 1
    each, total = struct.unpack_from(">2I", sizes, 4)
    if not 0 < count <= total - first:
        raise MediaError("the index of the video names samples that it does not describe")
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


# -- the data --------------------------------------------------------------------------------


def _check_samples(tracks: list[_Track], data: list[Box]) -> None:
    """See that the first and the last chunk of every track lie in the data."""
    if not any(track.is_video and track.chunks for track in tracks):
        raise MediaError("the video has an index, but no pictures in it")
    for track in tracks:
        if not track.chunks:
            continue
        first, last = min(track.chunks), max(track.chunks)
        if not any(box.start <= first < box.end for box in data):
            raise MediaError("the index of the video points beside its data")
        if not any(box.start <= last and track.last_end <= box.end for box in data):
            raise MediaError("the index of the video points beyond its data: it is cut off")


def _probe(file: BinaryIO, video: _Track) -> None:
    """Look at the beginnings of some chunks; a hole that was never written reads as zeros."""
    step = max(len(video.chunks) // _PROBES, 1)
    for offset in (*video.chunks[::step], max(video.chunks), video.last_sample):
        _probe_at(file, offset)


def _probe_at(file: BinaryIO, offset: int) -> None:
    file.seek(offset)
    if not file.read(_PROBE).strip(b"\0"):
        raise MediaError("the video has a hole: there are zeros where a picture should be")


def _check_fragments(
    file: BinaryIO, index: memoryview, fragments: list[Box], video: _Track, data: list[Box]
) -> float:
    """Return the duration of a fragmented file, whose fragments must all have come.

    It can be cut between two fragments and look whole, unless its index tells the full duration.
    """
    per_sample = _default_duration(index, video.id)
    units = sum(_fragment_units(load(file, box), video.id, per_sample) for box in fragments)
    for box in data[:_PROBES]:
        _probe_at(file, box.start)
    found_s = units / video.timescale if video.timescale else 0.0
    told = child(index, b"mvex", b"mehd")
    scale = _time(child(index, b"mvhd"))[0]
    if told is None or not scale:
        return found_s or _movie_duration(index)
    told_s: float = struct.unpack_from(">Q" if told[0] == 1 else ">I", told, 4)[0] / scale
    if found_s < told_s * (1 - _DURATION_TOLERANCE):
        raise MediaError(f"the video is cut off: {found_s:.1f} s of {told_s:.1f} s are there")
    return told_s or found_s


def _default_duration(index: memoryview, track_id: int) -> int:
    extension = child(index, b"mvex")
    for body in children(extension, b"trex") if extension is not None else ():
        found, _, duration = struct.unpack_from(">3I", body, 4)
        if found == track_id:
            return int(duration)
    return 0


def _fragment_units(moof: memoryview, track_id: int, per_sample: int) -> int:
    """Add up the durations of a track's samples in one fragment, in the track's time scale."""
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


# -- against what was asked ------------------------------------------------------------------


def compare(
    video: Video, aspect_ratio: str | None, duration: str | float | None
) -> tuple[str, ...]:
    """Say in plain words where *video* is not what was asked for; None asks for nothing.

    *aspect_ratio* is written "16:9", *duration* is in seconds.
    """
    warnings = []
    asked = _ratio(aspect_ratio)
    got = video.width / video.height if video.height else 0.0
    if asked and abs(got - asked) > _RATIO_TOLERANCE * asked:
        warnings.append(f"asked for {aspect_ratio}, got {video.width}x{video.height}")
    seconds = _seconds(duration)
    slack = max(_DURATION_TOLERANCE_S, _DURATION_TOLERANCE * seconds)
    if seconds and abs(video.duration_s - seconds) > slack:
        warnings.append(f"asked for {seconds:g} s, got {video.duration_s:.1f} s")
    return tuple(warnings)


def _ratio(text: str | None) -> float:
    width, _, height = (text or "").partition(":")
    across, down = _seconds(width), _seconds(height)
    return across / down if across and down else 0.0


def _seconds(value: str | float | None) -> float:
    try:
        number = float(value) if value is not None else 0.0
    except ValueError:
        return 0.0
    return number if 0 < number < math.inf else 0.0
