"""The files beside a video as bytes: well-formed whatever a prompt holds, and known as ours."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.output import sidecar
from batch.output.layout import Layout

PROMPT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AIPromptInformation"
# A state of an older release may hold what a manifest no longer can.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def row(prompt: str) -> dict[str, Any]:
    return {"schema": 1, "job_id": "a", "prompt": prompt, "options": {"model_name": "kling-v3"}}


def prompt_in(data: bytes) -> str:
    return ET.fromstring(data).findtext(f".//{PROMPT}") or ""


@given(texts)
def test_every_text_makes_a_well_formed_packet(prompt: str) -> None:
    found = prompt_in(sidecar.to_xmp(row(prompt)))
    assert len(found) == len(prompt)
    assert all(a in {b, "\ufffd"} for a, b in zip(found, prompt, strict=True))
    assert json.loads(sidecar.to_json(row(prompt), []))["ai_prompt"] == prompt


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [("a\rb\r\nc", "a\rb\r\nc"), ("\x00\x0b\x1f\ufffe", "\ufffd" * 4), ("]]>&lt;", "]]>&lt;")],
)
def test_what_xml_cannot_hold_is_replaced(prompt: str, shown: str) -> None:
    assert prompt_in(sidecar.to_xmp(row(prompt))) == shown


def test_files_lie_beside_their_video() -> None:
    assert list(sidecar.beside("videos/a.mp4")) == ["videos/a.json", "videos/a.mp4.xmp"]
    assert list(sidecar.beside("videos/a.mp4.mp4")) == ["videos/a.mp4.json", "videos/a.mp4.mp4.xmp"]


@pytest.mark.parametrize(
    ("data", "is_ours"),
    [
        (sidecar.to_json(row("x"), []), True),
        (sidecar.to_xmp(row("x")), True),
        (b'{"schema": 1, "videos": []}', True),
        (b"", True),
        (bytes(400), True),
        (b'{"schema": 1}', False),
        (b'["schema", "job_id"]', False),
        (b"notes", False),
        (b"\xff\xfe", False),
        (b'<x:xmpmeta x:xmptk="Adobe XMP Core">', False),
    ],
)
def test_own_files_are_told_from_others(data: bytes, is_ours: bool) -> None:
    assert sidecar.is_ours(data) is is_ours


def test_files_follow_and_go_with_their_video(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.state.mkdir()
    own = sidecar.to_json(row("x"), [])
    assert sidecar.write(layout, "videos/a.json", own) == tmp_path / "videos"
    assert sidecar.write(layout, "videos/a.json", own) is None
    (tmp_path / "videos/a.mp4.xmp").write_text("another program's")
    (tmp_path / "versions/a").mkdir(parents=True)
    (tmp_path / "versions/a/1.mp4.xmp").write_text("a person's")
    sidecar.follow(tmp_path, "videos/a.mp4", "versions/a/1.mp4")
    assert (tmp_path / "versions/a/1.json").read_bytes() == own
    sidecar.drop(tmp_path, "versions/a/1.mp4")
    sidecar.drop(tmp_path, "videos/a.mp4")
    left = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert left == [tmp_path / "versions/a/1.mp4.xmp", tmp_path / "videos/a.mp4.xmp"]


def test_moved_file_does_not_replace_a_persons(tmp_path: Path) -> None:
    for name, data in (("a.mp4.xmp", sidecar.to_xmp(row("x"))), ("b.mp4.xmp", b"a person's")):
        (tmp_path / name).write_bytes(data)
    sidecar.follow(tmp_path, "a.mp4", "b.mp4")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a person's"]


def test_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """It is of another origin, and stays."""
    (tmp_path / "videos").mkdir()
    os.mkfifo(tmp_path / "videos/a.json")
    with pytest.raises(sidecar.NotOursError):
        sidecar.write(Layout(tmp_path), "videos/a.json", b"{}")
