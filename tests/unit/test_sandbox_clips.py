from __future__ import annotations

import io
import struct
import time

import av
import pytest

from batch.sandbox.video.clips import SIZES, Clip, clip_duration_s, padded, render
from batch.sandbox.video.font import BOX, drawable

RATIOS = sorted(SIZES)


def boxes(data: bytes) -> dict[str, bytes]:
    """Walk the boxes of a file or of a box's content; an independent reader, for checking."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert size >= 8, "a box has no room for its own header"
        assert at + size <= len(data), "a box runs over the end"
        found[kind.decode("latin-1")] = data[at + 8 : at + size]
        at += size
    return found


def decoded(clip: Clip) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(clip.content()), "r") as container:
        return list(container.decode(video=0))


def luma(frame: av.VideoFrame) -> list[bytes]:
    """Return the brightness of a frame, line by line."""
    plane = frame.planes[0]
    lines = memoryview(plane)
    starts = range(0, frame.height * plane.line_size, plane.line_size)
    return [bytes(lines[start : start + frame.width]) for start in starts]


@pytest.mark.parametrize("ratio", RATIOS)
def test_clip_has_requested_ratio(ratio: str) -> None:
    """Exactly, in the decoded picture and in the track header."""
    width, height = map(int, ratio.split(":"))
    clip = render("A fox", "", ratio, 3)

    frame = decoded(clip)[0]
    track = boxes(boxes(boxes(clip.content())["moov"])["trak"])["tkhd"]

    assert frame.width * height == frame.height * width
    assert struct.unpack(">II", track[-8:]) == (frame.width << 16, frame.height << 16)


@pytest.mark.parametrize("seconds", [3, 5, 10, 15])
def test_clip_is_as_long_as_real_one(seconds: int) -> None:
    """One frame more than asked, which makes 5.04 s of 5; every frame can be decoded."""
    clip = render("A fox", "", "16:9", seconds)

    header = boxes(boxes(clip.content())["moov"])["mvhd"]
    scale, duration = struct.unpack_from(">II", header, 12)

    assert len(decoded(clip)) == seconds * 24 + 1
    assert duration / scale == pytest.approx(clip_duration_s(seconds))
    assert 0 < duration / scale - seconds < 0.05


def test_index_precedes_data_and_points_at_it() -> None:
    """A player can start before the file is complete."""
    content = render("A fox", "", "1:1", 5).content()
    moov = boxes(content)["moov"]
    table = boxes(boxes(boxes(boxes(moov)["trak"])["mdia"])["minf"])["stbl"]
    chunks = boxes(table)["stco"]
    sizes = boxes(table)["stsz"]
    (first_sample,) = struct.unpack_from(">I", chunks, 8)
    lengths = struct.unpack_from(f">{(len(sizes) - 12) // 4}I", sizes, 12)

    assert list(boxes(content)) == ["ftyp", "moov", "mdat"]
    assert content[first_sample - 4 : first_sample] == b"mdat"
    assert sum(lengths) == len(boxes(content)["mdat"])


def test_prompt_is_legible_in_picture() -> None:
    """The letter T at double size stands where the text begins: a beam of ten dots on a stem."""
    lines = luma(decoded(render("T", "", "16:9", 3))[0])
    bright = [[dot > 180 for dot in line[16:28]] for line in lines[16:32]]

    beam = [True] * 10 + [False] * 2
    stem = [False] * 4 + [True] * 2 + [False] * 6
    assert bright == [beam] * 2 + [stem] * 12 + [[False] * 12] * 2


def test_bar_grows_over_length_of_clip() -> None:
    """So that a person sees it play; the rest of the picture stands still."""
    frames = [luma(frame) for frame in decoded(render("A fox", "", "1:1", 3))]
    widths = [sum(dot > 160 for dot in lines[-8]) for lines in frames]

    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (16, 240)
    assert frames[0][:-16] == frames[-1][:-16]


def test_two_prompts_make_two_pictures() -> None:
    """And two takes of one prompt too, by their footer."""
    clips = {
        render(prompt, footer, "16:9", 5).etag
        for prompt in ("A fox", "A deer")
        for footer in ("#1", "#2")
    }

    assert len(clips) == 4


@pytest.mark.parametrize(
    "prompt",
    ["", "x", "word " * 500, "y" * 2500, "一只猫" * 300, "\x00\n\t", "\ud800", "🎬"],
    ids=["empty", "one", "words", "no spaces", "Chinese", "controls", "half a pair", "emoji"],
)
def test_any_prompt_makes_small_file(prompt: str) -> None:
    """Long text is cut, and a letter without a glyph is a box."""
    clip = render(prompt, "footer", "9:16", 5)

    assert 4_000 < clip.size < 80_000
    assert decoded(clip)


def test_letter_without_glyph_is_drawn_as_lookalike() -> None:
    """The title holds the prompt as it was."""
    title = "Жук — naïve “猫”"
    with av.open(io.BytesIO(render(title, "", "16:9", 3).content()), "r") as container:
        told = container.metadata["title"]

    assert drawable(title) == f'ЖУK - naive "{BOX}"'
    assert told == title


@pytest.mark.parametrize("size", [300_000, 1_000_001, 5_000_000_000])
def test_padding_makes_any_size_without_holding_it(size: int) -> None:
    """It is a `free` box, so the file stays valid."""
    clip = render("A fox", "", "16:9", 5)
    big = padded(clip, size)
    kind = big.head[clip.size + 4 : clip.size + 8]
    length, long_length = struct.unpack_from(">I4xQ", big.head.ljust(clip.size + 16), clip.size)

    assert big.size == size
    assert kind == b"free"
    assert (long_length if length == 1 else length) == size - clip.size
    assert len(big.head) < 100_000
    assert len(next(big.chunks(size - 10, size))) == 10


def test_part_of_padded_file_equals_whole() -> None:
    """Ranges are cut from a file that never exists."""
    big = padded(render("A fox", "", "16:9", 5), 900_000)
    whole = big.content()

    for start, stop in ((0, 10), (7_000, 300_000), (262_143, 262_145), (800_000, 900_000)):
        assert b"".join(big.chunks(start, stop)) == whole[start:stop]


def test_clip_costs_little() -> None:
    """Benchmarks ask for a thousand; 30 ms each would be 30 s."""
    render("warm up", "", "16:9", 5)
    began = time.process_time()
    for number in range(20):
        render(f"A fox walks through tall grass {number}", "", "16:9", 5)

    assert (time.process_time() - began) / 20 < 0.03
