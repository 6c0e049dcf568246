"""Complete and damaged videos, written box by box."""

from __future__ import annotations

import struct
import time
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.job import Video
from batch.media.check import MediaError, compare, inspect

FTYP = b"isom\x00\x00\x02\x00isomavc1mp41"
UPRIGHT = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
TURNED = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
SAMPLE = b"\x00\x00\x00\x1c\x65" + b"picture" * 4  # a length, a header, and something
SIZE = len(SAMPLE)


def box(kind: bytes, *parts: bytes, form: str = "32") -> bytes:
    inside = b"".join(parts)
    if form == "64":
        return struct.pack(">I4sQ", 1, kind, 16 + len(inside)) + inside
    if form == "to the end":
        return struct.pack(">I4s", 0, kind) + inside
    return struct.pack(">I4s", 8 + len(inside), kind) + inside


def mvhd(duration: int, scale: int = 1000, version: int = 0) -> bytes:
    if version == 1:
        head = struct.pack(">IQQIQ", 1 << 24, 0, 0, scale, duration)
    else:
        head = struct.pack(">IIIII", 0, 0, 0, scale, duration)
    return box(b"mvhd", head, bytes(80))


def tkhd(width: int, height: int, matrix: tuple[int, ...] = UPRIGHT, version: int = 0) -> bytes:
    times = (
        struct.pack(">QQIIQ", 0, 0, 1, 0, 0) if version else struct.pack(">IIIII", 0, 0, 1, 0, 0)
    )
    size = struct.pack(">II", width << 16, height << 16)
    flags = struct.pack(">I", version << 24 | 7)
    return box(b"tkhd", flags, times, bytes(16), struct.pack(">9i", *matrix), size)


def stbl(
    chunks: list[int],
    per_chunk: int,
    size: int | list[int],
    *,
    wide: bool = False,
    entry: bytes = b"",
) -> bytes:
    stsc = (
        box(b"stsc", struct.pack(">5I", 0, 1, 1, per_chunk, 1))
        if chunks
        else box(b"stsc", struct.pack(">2I", 0, 0))
    )
    count = len(chunks) * per_chunk
    if isinstance(size, int):
        stsz = box(b"stsz", struct.pack(">3I", 0, size, count))
    else:
        stsz = box(b"stsz", struct.pack(f">3I{len(size)}I", 0, 0, len(size), *size))
    layout = "Q" if wide else "I"
    offsets = struct.pack(f">2I{len(chunks)}{layout}", 0, len(chunks), *chunks)
    stsd = box(b"stsd", struct.pack(">2I", 0, 1), entry)
    return box(b"stbl", stsd, stsc, stsz, box(b"co64" if wide else b"stco", offsets))


def trak(head: bytes, table: bytes, handler: bytes = b"vide", duration: int = 5000) -> bytes:
    mdhd = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, duration, 0))
    hdlr = box(b"hdlr", struct.pack(">II4s", 0, 0, handler), bytes(13))
    return box(b"trak", head, box(b"mdia", mdhd, hdlr, box(b"minf", table)))


def movie(
    *,
    width: int = 1280,
    height: int = 720,
    matrix: tuple[int, ...] = UPRIGHT,
    duration: int = 5100,
    version: int = 0,
    moov_first: bool = True,
    form: str = "32",
    wide: bool = False,
    data: bytes = SAMPLE * 12,
    sizes: int | list[int] = SIZE,
    tail: bytes = b"",
    shift: int = 0,
    entry: bytes = b"",
) -> bytes:
    """Write a video of four chunks with three samples each."""
    ftyp, mdat = box(b"ftyp", FTYP), box(b"mdat", data, form=form)
    inside = 16 if form == "64" else 8

    def moov(start: int) -> bytes:
        chunks = [start + shift + i * 3 * SIZE for i in range(4)]
        table = stbl(chunks, 3, sizes, wide=wide, entry=entry)
        return box(
            b"moov",
            mvhd(duration, version=version),
            trak(tkhd(width, height, matrix, version), table),
        )

    if moov_first:
        return ftyp + moov(len(ftyp) + len(moov(1_000)) + inside) + mdat + tail
    return ftyp + mdat + moov(len(ftyp) + inside) + tail


def fragmented(count: int = 5, *, told: bool = True) -> bytes:
    """Write a video of *count* fragments of one second each."""
    mvex = box(
        b"mvex",
        box(b"mehd", struct.pack(">II", 0, count * 1000)) if told else b"",
        box(b"trex", struct.pack(">6I", 0, 1, 1, 40, 0, 0)),
    )
    table = stbl([], 0, 0)
    moov = box(b"moov", mvhd(0), trak(tkhd(720, 1280), table, duration=0), mvex)
    body = box(b"ftyp", FTYP) + moov
    for number in range(count):
        if number % 2:  # durations one by one, or the default of the file
            run = struct.pack(">3I", 0x301, 25, 0) + struct.pack(">2I", 40, SIZE) * 25
        else:
            run = struct.pack(">3I", 0x201, 25, 0) + struct.pack(">I", SIZE) * 25
        traf = box(b"traf", box(b"tfhd", struct.pack(">2I", 0, 1)), box(b"trun", run))
        body += box(b"moof", box(b"mfhd", struct.pack(">2I", 0, number)), traf)
        body += box(b"mdat", SAMPLE * 25)
    return body


def look(path: Path, content: bytes) -> Video:
    path.write_bytes(content)
    return inspect(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "video.mp4"


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("moov_first", [True, False])
@pytest.mark.parametrize("form", ["32", "64"])
@pytest.mark.parametrize("wide", [True, False])
def test_whole_video_reports_size_and_duration(
    path: Path, version: int, moov_first: bool, form: str, wide: bool
) -> None:
    """In every form of boxes and offsets."""
    content = movie(version=version, moov_first=moov_first, form=form, wide=wide)
    assert look(path, content) == Video(5.1, 1280, 720)


def test_last_box_may_reach_to_the_end(path: Path) -> None:
    """Its size is 0; the index says how long it must be."""
    assert look(path, movie(form="to the end")) == Video(5.1, 1280, 720)


def test_rotated_video_has_its_displayed_size(path: Path) -> None:
    """Phones film lying down, and rotate by a matrix."""
    assert look(path, movie(matrix=TURNED)) == Video(5.1, 720, 1280)


def test_size_may_stand_in_sample_description_only(path: Path) -> None:
    """Where the track's header says zero."""
    entry = box(b"avc1", bytes(24), struct.pack(">2H", 640, 360), bytes(50))
    assert look(path, movie(width=0, height=0, entry=entry)) == Video(5.1, 640, 360)


def test_duration_may_stand_in_track_only(path: Path) -> None:
    """Where the movie's header says zero, or "unknown"."""
    assert look(path, movie(duration=0)).duration_s == 5.0
    assert look(path, movie(duration=2**32 - 1)).duration_s == 5.0


def test_silent_sound_track_does_not_matter(path: Path) -> None:
    """A video track is needed; a silent sound track may be all zeros."""
    ftyp = box(b"ftyp", FTYP)
    mdat = box(b"mdat", SAMPLE * 3, bytes(300))
    start = len(ftyp) + 8
    sound = trak(tkhd(0, 0), stbl([start + 3 * SIZE], 3, 100), b"soun")
    picture = trak(tkhd(640, 360), stbl([start], 3, SIZE))
    assert look(path, ftyp + mdat + box(b"moov", mvhd(5000), sound, picture)).width == 640
    with pytest.raises(MediaError, match="no video track"):
        look(path, ftyp + mdat + box(b"moov", mvhd(5000), sound))


@pytest.mark.parametrize("told", [True, False])
def test_fragmented_video_reports_size_and_duration(path: Path, told: bool) -> None:
    """Its duration stands in the fragments, and sometimes beside them."""
    assert look(path, fragmented(told=told)) == Video(5.0, 720, 1280)


@pytest.mark.parametrize(
    "content",
    [
        movie(),
        movie(moov_first=False, form="64"),
        movie(form="to the end"),
        movie(sizes=[SIZE] * 12),
        fragmented(),
    ],
    ids=["index first", "index last", "to the end", "sizes one by one", "fragmented"],
)
def test_every_truncation_is_refused(path: Path, content: bytes) -> None:
    """At every single byte."""
    step = 1 if len(content) < 2_000 else 7
    for length in range(0, len(content), step):
        with pytest.raises(MediaError):
            look(path, content[:length])


def test_cut_between_fragments_with_promised_duration_is_refused(
    path: Path,
) -> None:
    """Without one, the file is a shorter video, and `compare` warns of it."""
    whole, last = fragmented(), len(fragmented(5, told=False)) - len(fragmented(4, told=False))
    with pytest.raises(MediaError, match="cut off"):
        look(path, whole[:-last])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (bytes(5000), "never written"),
        (b"<!DOCTYPE html><html></html>" * 9, "web page"),
        (b'{"code":1303}', "web page or a message"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an MP4"),
        (movie() + bytes(100), "no box begins at byte"),
        (movie(tail=b"\0\0\0"), "cut off"),
        (movie(data=bytes(12 * SIZE)), "hole"),
        (movie(data=SAMPLE * 6 + bytes(6 * SIZE)), "hole"),
        (movie(data=SAMPLE * 11 + bytes(SIZE)), "hole"),
        (movie(data=SAMPLE * 11, tail=box(b"free", SAMPLE)), "cut off"),
        (movie(shift=-100), "outside"),
        (movie(shift=10**6), "outside"),
        (movie(sizes=[SIZE] * 11), "does not describe"),
        (movie(width=0, height=0), "no video track"),
        (box(b"ftyp", FTYP) + box(b"mdat", SAMPLE), "moov"),
        (box(b"ftyp", FTYP) + box(b"moov", mvhd(5000)), "mdat"),
        (box(b"ftyp", FTYP) + box(b"moov") + box(b"mdat", SAMPLE), "no video track"),
        (box(b"ftyp", FTYP) + struct.pack(">I4sQ", 1, b"mdat", 2**63), "cut off"),
        (box(b"ftyp", FTYP) + struct.pack(">I4sQ", 1, b"mdat", 3) + bytes(50), "impossible"),
        (box(b"ftyp", FTYP) + struct.pack(">I4s", 3, b"mdat") + bytes(50), "impossible"),
        (box(b"ftyp", FTYP) + box(b"free") * 60_000, "more boxes"),
    ],
)
def test_incomplete_video_is_refused_in_plain_words(path: Path, content: bytes, words: str) -> None:
    """A page, a hole, an index that points elsewhere, false sizes."""
    with pytest.raises(MediaError, match=words):
        look(path, content)


UNITS = struct.pack(">I", SIZE - 9) + b"\x65" + b"x" * (SIZE - 10) + b"\0\0\0\1\x06"
AVC = box(
    b"avc1", bytes(24), struct.pack(">2H", 640, 360), bytes(50), box(b"avcC", b"\1\0\0\0\xff")
)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("sizes", [SIZE, [SIZE] * 12])
def test_pictures_are_walked_in_every_form_of_index(
    path: Path, wide: bool, sizes: int | list[int]
) -> None:
    """Each sample holds two units; the last one of the tenth picture has the wrong length."""
    whole = UNITS * 12
    assert look(path, movie(data=whole, entry=AVC, wide=wide, sizes=sizes)).width == 1280
    at = 9 * SIZE + SIZE - 2
    damaged = whole[:at] + b"\2" + whole[at + 1 :]
    with pytest.raises(MediaError, match="is not whole"):
        look(path, movie(data=damaged, entry=AVC, wide=wide, sizes=sizes))


class CountingFile(FileIO):
    """A file that counts how often it is read."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        CountingFile.reads += 1
        return super().read(size)


class CountingPath(type(Path())):  # type: ignore[misc] - the platform's class of paths
    """A path that opens a `CountingFile`."""

    def open(self, *_mode: object, **_how: object) -> CountingFile:
        return CountingFile(self)


def test_small_pictures_are_read_many_at_once(path: Path) -> None:
    """Each read waits for its turn with the event loop: 12 pictures, four boxes, one index."""
    path.write_bytes(movie(data=UNITS * 12, entry=AVC, tail=box(b"free", bytes(200_000))))
    CountingFile.reads = 0
    assert inspect(CountingPath(path)).width == 1280
    assert CountingFile.reads == 4 + 1 + 1


def test_trailing_free_box_is_accepted(path: Path) -> None:
    """It pads a file to any size."""
    assert look(path, movie(tail=box(b"free", bytes(5000)))).width == 1280


def test_large_file_is_checked_like_a_small_one(path: Path) -> None:
    """Although only a few places of it are read."""
    padding = box(b"free", bytes(200_000))
    assert look(path, movie(tail=padding)) == Video(5.1, 1280, 720)
    with pytest.raises(MediaError, match="cut off"):
        look(path, movie(tail=padding)[:-1])
    with pytest.raises(MediaError, match="hole"):
        look(path, movie(data=SAMPLE * 6 + bytes(6 * SIZE), tail=padding))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([movie(), movie(data=UNITS * 12, entry=AVC), fragmented(2)]),
    st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_no_damage_crashes_or_hangs(
    path: Path, content: bytes, hits: list[tuple[int, bytes]]
) -> None:
    """A hostile index is refused or read, never more."""
    damaged = bytearray(content)
    for at, what in hits:
        damaged[at : at + len(what)] = what
    try:
        video = look(path, bytes(damaged))
    except MediaError:
        return
    assert video.duration_s > 0
    assert video.width > 0
    assert video.height > 0


def test_table_claiming_four_billion_entries_is_refused(path: Path) -> None:
    """At once: its box is too small for them."""
    content = movie().replace(
        b"stco" + struct.pack(">2I", 0, 4), b"stco" + struct.pack(">2I", 0, 2**32 - 1)
    )
    start = time.process_time()
    with pytest.raises(MediaError, match="shorter than it says"):
        look(path, content)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("video", "ratio", "duration", "count"),
    [
        (Video(5.1, 1280, 720), "16:9", "5", 0),
        (Video(5.04, 1284, 716), "16:9", 5, 0),
        (Video(5.6, 1280, 720), "16:9", 5.0, 0),
        (Video(5.7, 1280, 720), "16:9", "5", 1),
        (Video(10.9, 1280, 720), "16:9", "10", 0),
        (Video(5.1, 1280, 720), "16:9", "10", 1),
        (Video(5.1, 720, 1280), "16:9", "5", 1),
        (Video(5.1, 720, 1280), "9:16", "10", 1),
        (Video(5.1, 720, 720), "4:3", "10", 2),
        (Video(5.1, 720, 720), None, None, 0),
        (Video(5.1, 720, 720), "wide", "long", 0),
        (Video(5.1, 720, 720), "0:0", "nan", 0),
    ],
)
def test_compare_warns_of_each_difference(
    video: Video, ratio: str | None, duration: str | float | None, count: int
) -> None:
    """Codecs round; another format or half the length deserves a warning."""
    assert len(compare(video, ratio, duration)) == count


def test_warnings_are_plain_words() -> None:
    """For results.jsonl and the terminal."""
    assert compare(Video(5.1, 720, 1280), "16:9", "10") == (
        "asked for 16:9, got 720x1280",
        "asked for 10 s, got 5.1 s",
    )
