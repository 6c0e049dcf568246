"""Checks that a video file is whole, and that it is what was asked for.

A walk over the boxes of an MP4 tells a whole file from a truncated one and from a page of HTML; a
walk over the parts of its pictures finds what is damaged in the middle (some milliseconds for 9 MB).
Where the coding is unknown, and in fragmented files, some places are probed for holes instead. It
does not decode.
"""

from __future__ import annotations

import io
import math
import os
import struct
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from batch.job import Video
from batch.media.boxes import Box, MediaError, children, load, walk_file
from batch.media.index import (
    Track,
    default_sample_duration,
    fragment_duration,
    movie_duration,
    promised_duration,
    read_track,
)
from batch.media.marks import find_marks
from batch.media.pictures import check_pictures, read_coding

__all__ = ["MediaError", "compare", "inspect"]

_SMALL = 2**17  # bytes
_MAX_TRACKS = 64
_PROBES = 16  # samples that are probed
# Bytes of each: a coded picture begins with its length or a start code, never with so many zeros.
_PROBE = 32
_MIN_DURATION_S, _MAX_DURATION_S = 0.001, 7 * 86_400.0
_RATIO_TOLERANCE = 0.03  # codecs round the size to multiples of 16
_DURATION_TOLERANCE = 0.10
_DURATION_TOLERANCE_S = 0.6  # "5" comes back as 5.04 to 5.1


def inspect(path: Path) -> Video:
    """Return what the video at `path` says of itself, after checking that it is whole.

    Raises:
        MediaError: it is not an MP4, it is incomplete, or it has no pictures.
        OSError: it cannot be read.
    """
    # Unbuffered, since the places to read lie far apart; a small file is read in one piece.
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _SMALL:
            return _inspect(io.BytesIO(file.read(size)), size)
        return _inspect(file, size)


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
    tracks = [read_track(body) for body in islice(children(index, b"trak"), _MAX_TRACKS)]
    video = next((track for track in tracks if track.is_video and track.width), None)
    if video is None:
        raise MediaError("the file has no video track")
    fragments = [box for box in boxes if box.kind == b"moof"]
    if fragments:
        duration_s = _check_fragments(file, index, fragments, video, data)
    else:
        _check_samples(tracks, data)
        _check_pictures(file, tracks, size)
        duration_s = movie_duration(index) or video.duration_s
    if not _MIN_DURATION_S <= duration_s <= _MAX_DURATION_S:
        raise MediaError("the video has no duration")
    marks = find_marks(file, boxes, index)
    return Video(round(duration_s, 3), video.width, video.height, marks)


# -- the data --------------------------------------------------------------------------------


def _check_samples(tracks: list[Track], data: list[Box]) -> None:
    """Check that the first and the last chunk of every track lie in the data."""
    if not any(track.is_video and track.chunks for track in tracks):
        raise MediaError("the video has an index without pictures")
    for track in tracks:
        if not track.chunks:
            continue
        first, last = min(track.chunks), max(track.chunks)
        if not any(box.start <= first < box.end for box in data):
            raise MediaError("the index of the video points outside its data")
        if not any(box.start <= last and track.last_end <= box.end for box in data):
            raise MediaError("the index of the video points beyond its data: it is cut off")


def _check_pictures(file: BinaryIO, tracks: list[Track], size: int) -> None:
    for track in tracks:
        coding = None if track.table is None else read_coding(track.table)
        if track.table is not None and coding is not None and track.is_video:
            check_pictures(file, track.table, track.chunks, coding, most=size)
        elif track.is_video and track.chunks:
            _probe(file, track)


def _probe(file: BinaryIO, video: Track) -> None:
    """Read the start of some chunks; a hole that was never written reads as zeros."""
    step = max(len(video.chunks) // _PROBES, 1)
    for offset in (*video.chunks[::step], max(video.chunks), video.last_sample):
        _probe_at(file, offset)


def _probe_at(file: BinaryIO, offset: int) -> None:
    file.seek(offset)
    if not file.read(_PROBE).strip(b"\0"):
        raise MediaError("the video has a hole: zeros where a picture should be")


def _check_fragments(
    file: BinaryIO, index: memoryview, fragments: list[Box], video: Track, data: list[Box]
) -> float:
    """Return the duration of a fragmented file, all of whose fragments must be there.

    A file cut between two fragments looks whole, unless its index promises a duration.
    """
    default = default_sample_duration(index, video.id)
    units = sum(fragment_duration(load(file, box), video.id, default) for box in fragments)
    for box in data[:_PROBES]:
        _probe_at(file, box.start)
    found_s = units / video.timescale if video.timescale else 0.0
    promised_s = promised_duration(index)
    if found_s < promised_s * (1 - _DURATION_TOLERANCE):
        raise MediaError(f"the video is cut off: it has {found_s:.1f} s of {promised_s:.1f} s")
    return promised_s or found_s or movie_duration(index)


# -- compared with what was asked for ------------------------------------------------------------------


def compare(
    video: Video, aspect_ratio: str | None, duration: str | float | None
) -> tuple[str, ...]:
    """Return a warning for each way in which `video` is not what was asked for.

    Args:
        video: what `inspect` returned.
        aspect_ratio: as in "16:9"; None accepts any.
        duration: in seconds; None accepts any.
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
