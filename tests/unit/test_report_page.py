"""The page itself, without a browser: what stands in the file, and the pictures."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from batch.attempt import Attempt, Failed, PaidTask
from batch.job import Failure, FailureKind, canonical_request
from batch.output.poster import FOLDER, picture_of
from batch.report.data import build
from batch.report.page import render
from batch.report.posters import Mode, posters
from batch.report.records import Records, Run
from batch.sandbox.video.clips import render as render_clip

NIGHT = Run("night", 1_000.0, 2_000.0, 2_000.0, 1)
HOSTILE = "</script><img src=x onerror=alert(1)>"


def page(prompt: str = "a fox", words: str = "no luck") -> str:
    failure = Failure(FailureKind.MODERATION, words)
    state = Failed(failure, 1_500.0, PaidTask("8", 1_400.0))
    request = canonical_request({"prompt": prompt, "model_name": "kling-v3"})
    attempt = Attempt("kb-1", prompt, "v2:0", 1, request, state, cost_usd=0.42)
    found = build(Records("loops", 2_000.0, {prompt: [attempt]}, (NIGHT,)))
    found.data.update(base="", inline={}, posters=[])
    return render(found)


def test_policy_names_the_hash_of_style_and_script() -> None:
    content = page()
    for tag in ("style", "script"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in content


def test_policy_stands_before_everything_else() -> None:
    head = page().partition("<head>")[2]
    assert head.lstrip().startswith('<meta http-equiv="Content-Security-Policy"')


def test_hostile_values_become_no_markup() -> None:
    content = page(prompt=HOSTILE, words=HOSTILE)
    assert "<img" not in content
    assert content.count("</script>") == 2


def test_lone_surrogate_is_written_as_its_escape() -> None:
    assert b"\\ud800" in page(prompt="a \ud800").encode("utf-8", "backslashreplace")


def test_poster_is_made_once_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(render_clip("a fox", "", "9:16", 3).content())
    first = posters(tmp_path, {"ab": "a.mp4"}, Mode.INLINE)
    assert (first.made, first.left) == (1, 0)
    assert base64.b64decode(first.inline["ab"])[8:12] == b"WEBP"
    assert (tmp_path / FOLDER / "ab.webp").is_file()
    again = posters(tmp_path, {"ab": "a.mp4"}, Mode.FILES)
    assert (again.made, again.files, again.inline) == (0, ["ab"], {})


def test_posters_that_take_too_long_are_left(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(render_clip("a fox", "", "1:1", 3).content())
    found = posters(tmp_path, {"ab": "a.mp4"}, Mode.AUTO, budget_s=0)
    assert (found.made, found.left, found.inline) == (0, 1, {})


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_video_that_cannot_be_decoded_has_no_picture(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(content)
    assert picture_of(tmp_path / "a.mp4") is None
