"""Damage in the middle of a video, made by real encoders and by the sandbox."""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from batch.media.check import MediaError, inspect
from batch.sandbox.video.clips import render

av = pytest.importorskip("av", reason="real clips are made with PyAV")

HOLE = 64 * 1024
TRIES = 24
AT_LEAST = 23  # of so many damages; now and then one lies inside a single picture


@cache
def clip(codec: str, *, sound: bool = False, movflags: str = "", **options: str) -> bytes:
    """Encode four seconds of noise that moves, at a rate like that of a generated video."""
    noise = random.Random(1).randbytes(320 * 1024)
    folder = tempfile.TemporaryDirectory()  # "+faststart" reads what it has written
    target, how = Path(folder.name, "clip.mp4"), {"movflags": movflags} if movflags else {}
    with folder, av.open(str(target), "w", options=how) as container:
        video: Any = container.add_stream(codec, rate=24, options=options)
        video.width, video.height, video.pix_fmt, video.bit_rate = 640, 480, "yuv420p", 4_000_000
        audio: Any = container.add_stream("aac", rate=48_000) if sound else None
        for number in range(96):
            frame = av.VideoFrame(640, 480, "yuv420p")
            for plane in frame.planes:
                most = plane.buffer_size // 16
                moving = noise[number * 640 : number * 640 + most]
                plane.update(moving + b"\x80" * (plane.buffer_size - most))
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _encode_sound(container, audio)
        container.close()
        return target.read_bytes()


def _encode_sound(container: Any, audio: Any) -> None:
    for number in range(90):
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts = 48_000, number * 1024
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


CLIPS: dict[str, Callable[[], bytes]] = {
    "H.264": lambda: clip("libx264", preset="ultrafast"),
    "H.264, B-frames, sound": lambda: clip("libx264", sound=True, bf="3", preset="veryfast"),
    "H.264, index first": lambda: clip("libx264", preset="ultrafast", movflags="+faststart"),
    "H.265": lambda: clip("libx265", preset="ultrafast", **{"x265-params": "log-level=none"}),
    "MPEG-4": lambda: clip("mpeg4"),
    "fragmented": lambda: clip("libx264", preset="ultrafast", movflags="frag_keyframe+empty_moov"),
    "sandbox": lambda: render("A fox in the snow", "", "16:9", 10).content(),
    "sandbox, small": lambda: render("A fox", "", "1:1", 3).content(),
}
WALKED = [name for name in CLIPS if name not in {"MPEG-4", "fragmented"}]


def zeroed(data: bytearray, at: int, size: int) -> None:
    data[at : at + size] = bytes(size)


def randomised(data: bytearray, at: int, size: int) -> None:
    data[at : at + size] = random.Random(at).randbytes(size)


def shifted(data: bytearray, at: int, size: int) -> None:
    """Some bytes are lost, the rest moves up, and the end comes twice."""
    _, end = pictures(bytes(data))
    data[at:end] = data[at + 7 : end] + data[end - 7 : end]


def copied(data: bytearray, at: int, size: int) -> None:
    """Another piece of the file stands in this place."""
    data[at : at + size] = data[at - 1000 : at + size - 1000]


DAMAGES = [zeroed, randomised, shifted, copied]


def pictures(data: bytes) -> tuple[int, int]:
    """Return where the data box begins and ends."""
    at = 0
    while True:
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"mdat":
            return at + 8, at + size
        at += size


@pytest.mark.parametrize("name", CLIPS)
def test_clip_of_encoder_is_accepted(tmp_path: Path, name: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIPS[name]())
    assert inspect(path).duration_s > 1.9


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", WALKED)
def test_damage_in_the_middle_is_refused(
    tmp_path: Path, name: str, damage: Callable[[bytearray, int, int], None]
) -> None:
    """As well as a decoder would find it: at least 23 of 24."""
    whole, path = CLIPS[name](), tmp_path / "clip.mp4"
    start, end = pictures(whole)
    size = min(HOLE, (end - start) * 3 // 4)
    dice = random.Random(name)
    caught = 0
    for _ in range(TRIES):
        data = bytearray(whole)
        damage(data, dice.randrange(start, end - size), size)
        path.write_bytes(data)
        try:
            inspect(path)
        except MediaError:
            caught += 1
    assert caught >= AT_LEAST


@pytest.mark.parametrize("name", WALKED)
def test_cut_clip_is_always_refused(tmp_path: Path, name: str) -> None:
    whole, path = CLIPS[name](), tmp_path / "clip.mp4"
    dice = random.Random(name)
    for _ in range(TRIES):
        path.write_bytes(whole[: dice.randrange(len(whole))])
        with pytest.raises(MediaError):
            inspect(path)
