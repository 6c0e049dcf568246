"""The files beside the videos, through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def said(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_restored_version_has_its_own_sidecars_at_once(shell: Any, sandbox: Any) -> None:
    """index.json follows in the next run, although that makes nothing."""
    url, root = sandbox(clip="prompt").base_url, shell.folder / "outputs/night"
    for prompt in ("a fox", "a red fox"):
        jobs = [{"id": "fox", "prompt": prompt, "tags": ["night"]}]
        manifest = shell.manifest(jobs, base_url=url, output={"sidecar": "both"})
        assert shell("run", manifest).code == 0
    assert said(root / "index.json")["videos"][0]["prompt"] == "a red fox"
    assert shell("restore", root, "fox", key=None).code == 0
    restored = said(root / "videos/fox.json")
    assert (restored["prompt"], restored["tags"]) == ("a fox", ["night"])
    assert "a fox" in (root / "videos/fox.mp4.xmp").read_text("utf-8")
    (version,) = restored["versions"]
    former = root / version["file"]
    assert said(former.with_suffix(".json"))["prompt"] == "a red fox"
    assert "a red fox" in former.with_suffix(".mp4.xmp").read_text("utf-8")
    done = shell("run", manifest, "--json")
    assert (done.code, done.json["tasks_created"], done.json["warnings"]) == (0, 0, [])
    assert said(root / "index.json")["videos"][0]["prompt"] == "a fox"


def test_warning_of_a_sidecar_is_told_with_the_summary(shell: Any, sandbox: Any) -> None:
    notes = shell.folder / "outputs/night/videos/job-0.json"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    output = {"sidecar": True}
    manifest = shell.manifest(1, base_url=sandbox().base_url, output=output)
    done = shell("run", manifest, "--json")
    warning = "videos/job-0.json was not written by kling-batch, and stays as it is"
    assert (done.code, done.json["warnings"], notes.read_text()) == (0, [warning], "mine")
    assert f"warning: {warning}" in done.err
