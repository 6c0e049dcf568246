"""Marks of origin: looked for in every place where writers put them, and never in the way."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.attempt import Attempt, Landed, PaidTask
from batch.job import Video
from batch.media.check import inspect
from batch.media.marks import C2PA_UUID, XMP_UUID
from batch.output.codec import from_record, to_record
from batch.output.recall import recall
from batch.output.row import make_row
from batch.sandbox.video.clips import render

PACKET = b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
LABEL = b'{"Label":"1","ContentProducer":"x"}'


def box(kind: bytes, *parts: bytes) -> bytes:
    inside = b"".join(parts)
    return struct.pack(">I4s", 8 + len(inside), kind) + inside


def full(kind: bytes, *parts: bytes) -> bytes:
    return box(kind, bytes(4), *parts)


JUMBF = box(b"jumb", box(b"jumd", b"c2pa"))
C2PA = box(b"uuid", C2PA_UUID, bytes(4), b"manifest\0", bytes(8), JUMBF)
C2PA_BOX = full(b"c2pa", b"manifest\0", bytes(8), JUMBF)
XMP = box(b"uuid", XMP_UUID, PACKET)
KEYS = full(b"keys", struct.pack(">I", 1), box(b"mdta", b"AIGC"))
META = full(b"meta", box(b"hdlr", bytes(24)), KEYS, box(b"ilst", box(b"\0\0\0\1", LABEL)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a video without a mark."""
    return render("a fox", "", "16:9", 5).head


def inside_moov(clip: bytes, more: bytes) -> bytes:
    """Add *more* to the index, which lies behind the data, so that no offset changes."""
    at = clip.index(b"moov") - 4
    (size,) = struct.unpack_from(">I", clip, at)
    index, rest = clip[at : at + size], clip[at + size :]
    hole = struct.pack(">I4s", size, b"free") + bytes(size - 8)
    return clip[:at] + hole + rest + box(b"moov", index[8:], more)


def marks(path: Path, data: bytes) -> list[str]:
    path.write_bytes(data)
    return list(inspect(path).credentials)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (b"", []),
        (C2PA, ["c2pa"]),
        (C2PA_BOX, ["c2pa"]),
        (XMP, ["xmp"]),
        (XMP + C2PA, ["c2pa", "xmp"]),
        (META, ["aigc"]),
        (box(b"uuid", XMP_UUID, PACKET, b"<TC260:AIGC>"), ["xmp", "aigc"]),
        (box(b"uuid", C2PA_UUID, bytes(4), b"merkle\0", bytes(40)), []),
        (box(b"uuid", bytes(16), PACKET, JUMBF), []),
        (box(b"uuid", C2PA_UUID[:7]), []),
        (box(b"free", PACKET, b"AIGC", JUMBF), []),
    ],
)
def test_marks_beside_the_index_are_found(
    clip: bytes, tmp_path: Path, more: bytes, found: list[str]
) -> None:
    assert marks(tmp_path / "v.mp4", clip + more) == found


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (box(b"udta", META), ["aigc"]),
        (META, ["aigc"]),
        (box(b"udta", box(b"XMP_", PACKET)), ["xmp"]),
        (box(b"udta", b"\0\0\0\1garbage"), []),
        (box(b"udta", box(b"\xa9nam", b"a fox")), []),
    ],
)
def test_marks_inside_the_index_are_found(
    clip: bytes, tmp_path: Path, more: bytes, found: list[str]
) -> None:
    assert marks(tmp_path / "v.mp4", inside_moov(clip, more)) == found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=60), st.sampled_from([b"udta", b"meta", b"uuid", b"c2pa"]))
def test_no_metadata_makes_a_whole_video_a_broken_one(
    clip: bytes, tmp_path: Path, inside: bytes, kind: bytes
) -> None:
    plain = inspect_of(tmp_path, clip)
    for data in (clip + box(kind, inside), inside_moov(clip, box(kind, inside))):
        found = inspect_of(tmp_path, data)
        assert (found.duration_s, found.width) == (plain.duration_s, plain.width)


def inspect_of(folder: Path, data: bytes) -> Video:
    path = folder / "v.mp4"
    path.write_bytes(data)
    return inspect(path)


@pytest.mark.parametrize("credentials", [(), ("c2pa", "aigc")])
def test_marks_outlive_state_and_results(credentials: tuple[str, ...]) -> None:
    video = Video(5.0, 1280, 720, credentials)
    task = PaidTask("t", 1.0)
    landed = Landed(task, 2.0, 3.0, "videos/a.mp4", 9, "f" * 64, video)
    attempt = Attempt("kb-1", "a", "v2:1", 1, '{"prompt":"x"}', landed)
    assert from_record(to_record(attempt)) == attempt
    row = make_row(attempt, run_id="r", tasks=1, now=3.0)
    assert row["video"].get("credentials", []) == list(credentials)
    recalled = recall(row)
    assert recalled is not None
    assert recalled.state == landed
