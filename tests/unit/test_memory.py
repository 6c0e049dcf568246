"""What is remembered of a manifest: all that a quiet night needs, and only while it is still true."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import batch.manifest.reader
from batch.job import STATE_FOLDER
from batch.manifest import cache as memory
from batch.manifest.reader import Manifest, load
from batch.manifest.sources import Sources

YAML = """\
version: 1
name: night loops
limits: {submit_rate: 7/3s, max_in_flight: 9, budget: 2.5, deadline: 1h}
callback: {url: https://studio.example/kling, listen: 127.0.0.1:8090}
base_url: https://api.example
jobs:
  - {id: beach, prompt: A beach, tags: [sea, day]}
  - {id: old, prompt: A fox, model: kling-v1}
  - {id: "{animal}-x", prompt: "A {animal}", matrix: {animal: [fox, deer]}, count: 2}
  - from: more.csv
  - from: more.jsonl
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with a manifest of three files, and go there."""
    monkeypatch.chdir(tmp_path)
    Path("night.yaml").write_text(YAML, "utf-8")
    Path("more.csv").write_text("id,prompt\nrow,A row\n", "utf-8")
    Path("more.jsonl").write_text('{"id": "line", "prompt": "A line"}\n', "utf-8")
    return tmp_path


def remembered(output_dir: Path = Path("outputs/night loops")) -> Manifest:
    """Load the manifest, and remember it as a run does."""
    manifest = load(Path("night.yaml"))
    (output_dir / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    memory.remember(output_dir / STATE_FOLDER, manifest)
    return manifest


def recalled(output_dir: Path | None = None, path: str = "night.yaml") -> Any:
    return memory.recall(Path(path), output_dir)


@pytest.mark.usefixtures("folder")
def test_what_is_recalled_is_what_was_read() -> None:
    """Everything but the requests and the prices."""
    manifest = remembered()
    where, outline = recalled()
    assert where == Path("outputs/night loops")
    assert len(manifest.jobs) == 8
    for ours, theirs in zip(outline.jobs, manifest.jobs, strict=True):
        for name in ("id", "fingerprint", "tags", "video_path"):
            assert getattr(ours, name) == getattr(theirs, name)
    for name in ("path", "name", "limits", "callback", "output_dir", "base_url", "warnings"):
        assert getattr(outline, name) == getattr(manifest, name)
    assert manifest.warnings
    assert manifest.callback is not None
    assert manifest.limits.given == {"submit_rate", "max_in_flight", "budget_usd", "deadline_s"}


@pytest.mark.usefixtures("folder")
def test_no_request_is_kept() -> None:
    remembered()
    kept = Path("outputs/night loops", STATE_FOLDER, memory.FILE).read_text("utf-8")
    assert "beach" in kept
    assert "A beach" not in kept


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["night.yaml", "more.csv", "more.jsonl"])
def test_a_change_of_any_file_is_seen(name: str) -> None:
    """Also one that changes neither length nor time."""
    remembered()
    path = Path(name)
    before, times = path.read_bytes(), path.stat()
    path.write_bytes(before.replace(b"A ", b"O "))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert recalled() is None
    path.write_bytes(before)
    assert recalled() is not None
    path.unlink()
    assert recalled() is None


@pytest.mark.usefixtures("folder")
def test_a_damaged_memory_is_none() -> None:
    """Whatever bit of it is wrong, and wherever it was cut."""
    remembered()
    path = Path("outputs/night loops", STATE_FOLDER, memory.FILE)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert recalled() is None
        path.write_bytes(whole[:at])
        assert recalled() is None
    path.write_bytes(whole)
    assert recalled() is not None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"null", b"[]", b'{"reader": 1}'])
def test_a_foreign_memory_is_none(content: bytes) -> None:
    """Also one that bears a seal."""
    remembered()
    path = Path("outputs/night loops", STATE_FOLDER, memory.FILE)
    path.write_bytes(memory.digest(content).encode() + b"\n" + content)
    assert recalled() is None


@pytest.mark.usefixtures("folder")
def test_another_release_reads_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered()
    monkeypatch.setattr(memory, "__version__", "0.0.0")
    assert recalled() is None


@pytest.mark.usefixtures("folder")
def test_another_name_of_the_manifest_reads_for_itself(folder: Path) -> None:
    """Messages name the file as it was called, and `from:` is relative to it."""
    remembered()
    assert recalled(Path("outputs/night loops"), str(folder / "night.yaml")) is None
    assert recalled(Path("outputs/night loops"), "./night.yaml") is not None


@pytest.mark.usefixtures("folder")
def test_what_a_slow_parser_has_read_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its warning must go as soon as libyaml has come."""
    monkeypatch.setattr(batch.manifest.reader, "FAST_PARSER", None)
    remembered()
    assert recalled() is None


@pytest.mark.usefixtures("folder")
def test_a_file_that_changed_between_two_readings_is_not_recalled() -> None:
    """Defaults below the jobs make a second pass; neither state of the file is the one that was read."""
    sources, path = Sources(), Path("more.csv")
    states = [b"id,prompt\na,A\n", b"id,prompt\na,B\n"]
    for state in states:
        path.write_bytes(state)
        sources.read(path)
    assert len(sources.seen()) == 2
    for state in states:
        path.write_bytes(state)
        again = Sources()
        for name, _ in sources.seen():
            again.read(Path(name))
        assert again.seen() != sources.seen()


@pytest.mark.parametrize(
    ("head", "output_dir"),
    [
        ("version: 1\n", "outputs/night"),
        ("name: loops\n", "outputs/loops"),
        ("name: 'my loops'\n", "outputs/my loops"),
        ("name: loops   # names the output folder\n", "outputs/loops"),
        ("name: loops#1\n", "outputs/loops#1"),
        ('name: "my # loops"  # quoted\n', "outputs/my # loops"),
        ("output_dir: ../there\nname: loops\n", "../there"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_the_folder_is_found_by_a_glance(head: str, output_dir: str) -> None:
    Path("night.yaml").write_text(f"{head}jobs: [{{id: a, prompt: A}}]\n", "utf-8")
    remembered(Path(output_dir))
    found = recalled()
    assert found is not None
    assert found[0] == Path(output_dir)


@pytest.mark.usefixtures("folder")
def test_the_folder_is_found_in_json() -> None:
    text = '{"version": 1, "name": "loops", "jobs": [{"id": "a", "prompt": "A"}]}'
    Path("night.yaml").write_text(text, "utf-8")
    remembered(Path("outputs/loops"))
    assert recalled() is not None


@pytest.mark.usefixtures("folder")
def test_a_glance_that_errs_finds_nothing() -> None:
    """Comments and escapes are beyond it; then the manifest is read, that is all."""
    Path("night.yaml").write_text('name: "lo\\x6Fps"\njobs: [{id: a, prompt: A}]\n', "utf-8")
    remembered(Path("outputs/loops"))
    assert recalled() is None
    assert recalled(Path("outputs/loops")) is not None
