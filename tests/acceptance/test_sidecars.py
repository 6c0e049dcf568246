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
    assert [
        path for path in former.parent.iterdir() if path.stem.split(".")[0] != former.stem
    ] == []
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


def test_pruned_videos_take_their_sidecars_along(shell: Any, sandbox: Any) -> None:
    """An orphan's go to versions/ with it; deleted ones go, and the index follows."""
    url, root = sandbox(clip="prompt").base_url, shell.folder / "outputs/night"

    def run(*prompts: str) -> Path:
        jobs = [{"id": f"job-{prompt[-1]}", "prompt": prompt} for prompt in prompts]
        manifest: Path = shell.manifest(jobs, base_url=url, output={"sidecar": "both"})
        assert shell("run", manifest).code == 0
        return manifest

    run("fox 1", "fox 2")
    run("red fox 1", "fox 2")
    manifest = run("red fox 1")
    assert said(root / "index.json")["orphans"] == []  # no row, no index
    pruned = shell("prune", manifest, "--orphans", "--yes", "--expect", "1", key=None)
    assert pruned.code == 0, pruned.err
    assert sorted(path.name for path in (root / "videos").iterdir()) == [
        *("job-1.json", "job-1.mp4", "job-1.mp4.xmp"),
    ]
    assert len(list((root / "versions/job-2").iterdir())) == 3
    deleted = shell("prune", manifest, "--orphans", "--delete", "--yes", key=None)
    assert deleted.code == 0, deleted.err
    assert not [path for path in (root / "versions/job-2").rglob("*") if path.is_file()]
    run("red fox 1")
    index = said(root / "index.json")
    here = {path.relative_to(root).as_posix() for path in root.rglob("*.mp4")}
    listed = {v["file"] for item in index["videos"] for v in (item, *item["versions"])}
    assert (index["missing"], index["orphans"], listed) == ([], [], here)
