"""The command `report`, and the page that a run leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from batch.errors import UsageError
from batch.report.write import write_report
from batch.run.presence import Presence

OLD = Path(__file__).parents[1] / "data" / "c951909"
JOBS = [
    {"id": "fox", "prompt": "a fox"},
    {"id": "bad", "prompt": "sandbox:moderation"},
]


@pytest.fixture
def night(shell: Any, sandbox: Any) -> Any:
    """Give what runs a night, in the folder `out`; `night.box` is the sandbox."""
    box = sandbox()
    manifest = shell.manifest(JOBS)

    def run(*args: Any, **env: Any) -> Any:
        return shell(
            "run", manifest, "--base-url", box.base_url, "--output-dir", "out", *args, **env
        )

    run.box, run.out = box, shell.folder / "out"  # type: ignore[attr-defined]
    return run


def data_of(page: Path) -> Any:
    found = re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_run_that_committed_a_row_leaves_a_page(night: Any) -> None:
    assert night().code == 1
    data = data_of(night.out / "report.html")
    assert [(job["id"], job["status"]) for job in data["jobs"]] == [
        ("fox", "succeeded"),
        ("bad", "failed"),
    ]
    assert [need["kind"] for need in data["needs"]] == ["moderation"]
    assert data["run"]["exit"] == 1


def test_large_library_has_its_page_only_on_request(night: Any) -> None:
    night()
    (night.out / "report.html").unlink()
    with pytest.raises(UsageError, match="more than 1 jobs .* kling-batch report"):
        write_report(night.out, Presence, up_to=1)
    assert not (night.out / "report.html").exists()
    assert write_report(night.out, Presence, up_to=2).path.exists()


def test_quiet_night_draws_nothing(night: Any) -> None:
    night()
    (night.out / "report.html").unlink()
    imported = night(PYTHONPROFILEIMPORTTIME="1").err
    assert not (night.out / "report.html").exists()
    assert "jinja2" not in imported


def test_page_that_cannot_be_written_is_a_warning(night: Any) -> None:
    (night.out / "report.html").mkdir(parents=True)
    said = night("--select", "fox")
    assert said.code == 0
    assert "warning: no report was written" in said.err
    assert night("--select", "fox", "--force", "--quiet").err == ""


def test_command_prints_where_the_page_is(night: Any, shell: Any) -> None:
    night()
    said = shell("report", "out", key=None)
    assert said.code == 0
    assert "out/report.html: 1 of 2 videos here, 1 needs you" in said.out


def test_only_folder_needs_no_name(shell: Any, sandbox: Any) -> None:
    """Of several, one has to be named; and the run says where its page is."""
    box = sandbox()
    said = shell("run", shell.manifest(1), "--base-url", box.base_url)
    assert said.out.endswith("  outputs/night\n  outputs/night/report.html\n")
    assert "outputs/night/report.html: 1 of 1 video here" in shell("report").out
    shell("run", shell.manifest(1, name="day.yaml"), "--base-url", box.base_url)
    said = shell("report")
    assert (said.code, "name one of outputs/day, outputs/night" in said.err) == (2, True)


def test_json_names_file_and_figures(night: Any, shell: Any) -> None:
    night()
    found = shell("report", "out", "--json", key=None).json
    assert found["file"] == "out/report.html"
    assert found["bytes"] == (night.out / "report.html").stat().st_size
    assert (found["here"], found["all"], found["needs"]) == (1, 2, 1)
    assert found["kinds"] == [{"kind": "moderation", "jobs": 1}]


def test_open_hands_the_page_to_the_browser(night: Any, shell: Any) -> None:
    """That of BROWSER, as a file: URL that also holds blanks; where there is none, it says so."""
    night()
    browser = shell.folder / "browser"
    browser.write_text('#!/bin/sh\nprintf "%s" "$1" > opened\n')
    browser.chmod(0o755)
    page = shell.folder / "my page.html"
    said = shell("report", "out", "--open", "-o", page, BROWSER=f"{browser} %s")
    assert (said.code, said.err) == (0, "")
    shell.until((shell.folder / "opened").exists)
    assert (shell.folder / "opened").read_text() == page.resolve().as_uri()
    said = shell("report", "out", "--open", PATH=str(shell.folder))
    assert (said.code, "no browser was found" in said.err) == (0, True)


def test_page_elsewhere_links_to_the_folder(night: Any, shell: Any) -> None:
    night()
    shell("report", "out", "-o", "morning.html")
    assert data_of(shell.folder / "morning.html")["base"] == "out/"


def test_folder_that_is_none_is_refused(shell: Any) -> None:
    said = shell("report", "nowhere")
    assert (said.code, "is not an output folder" in said.err) == (2, True)


def test_page_is_written_beside_a_run(night: Any, shell: Any, sandbox: Any) -> None:
    night()
    held = sandbox("outcome:stuck")
    manifest = shell.manifest([{"id": "slow", "prompt": "a snail"}], name="slow.yaml")
    args = ("run", manifest, "--base-url", held.base_url, "--output-dir", "out")
    with shell.running(*args, KLING_BATCH_SUBMIT_RATE="1000/s") as process:
        while not held.stats.created:
            assert process.poll() is None
        said = shell("report", "out")
        assert "a run is under way" in said.out
        assert data_of(night.out / "report.html")["running"] is True


def test_two_reports_at_once_leave_one_whole_page(night: Any, shell: Any) -> None:
    night()
    with shell.running("report", "out") as first, shell.running("report", "out") as second:
        assert (first.wait(), second.wait()) == (0, 0)
    assert data_of(night.out / "report.html")["schema"] == 1
    assert not list(night.out.glob(".report*"))


@pytest.mark.parametrize("name", ["state-1", "state-2"])
def test_folder_of_an_old_release_has_a_page(shell: Any, name: str) -> None:
    shutil.copytree(OLD / name / "outputs/night", shell.folder / "out")
    assert shell("report", "out", key=None).code == 0
    jobs = {job["id"]: job for job in data_of(shell.folder / "out/report.html")["jobs"]}
    assert jobs["landed"]["tries"][0]["file"] is True


def test_failed_write_keeps_the_former_page(night: Any, shell: Any) -> None:
    night()
    before = (night.out / "report.html").read_bytes()
    said = shell("report", "out", "-o", "missing/folder/report.html")
    assert (said.code, "cannot be written" in said.err) == (1, True)
    assert (night.out / "report.html").read_bytes() == before
    assert not list(night.out.glob(".report*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_has_its_page_elsewhere(night: Any, shell: Any) -> None:
    night()
    shutil.rmtree(night.out / ".kling-batch/posters", ignore_errors=True)
    for folder in (night.out, night.out / ".kling-batch"):
        folder.chmod(0o555)
    assert shell("report", "out").code == 1
    assert shell("report", "out", "-o", "page.html").code == 0


def test_nothing_written_names_machine_key_or_link(shell: Any, sandbox: Any) -> None:
    """Page, index, metrics and rows of a night with every kind of trouble, at absolute paths."""
    box = sandbox("download:404:match=cut*", "submit:drop-after:match=lost*", lookup=False)
    jobs = [*JOBS, *({"id": name, "prompt": f"{name} it"} for name in ("cut", "lost", "placed"))]
    manifest = shell.manifest(jobs, output={"index": "true", "sidecar": "both"})
    out = shell.folder / "out"
    (out / "videos/placed.mp4/in the way").mkdir(parents=True)
    args = ("--base-url", box.base_url, "--output-dir", out, "--deadline", "4s")
    shell("run", manifest, *args, "--metrics-file", out / "night.prom")
    names = [*out.rglob("*.json"), *out.rglob("*.xmp"), out / "report.html", out / "night.prom"]
    assert len(names) > 4
    for path in [*names, out / "results.jsonl"]:
        content = path.read_text("utf-8")
        assert not re.search(r"ksSecret|cacheKey|Signature=|\.mp4\?", content), path
        for secret in ("verysecret", str(shell.folder.parent), str(Path.home())):
            assert secret not in content, (secret, path)
        without_posters = re.sub(r'"inline":\{.*?\}', "", content)
        assert not re.search(rf"\b{re.escape(gethostname())}\b", without_posters), path


def test_page_holds_neither_key_nor_address(night: Any) -> None:
    night()
    page = (night.out / "report.html").read_text("utf-8")
    for secret in ("verysecret", night.box.base_url, str(night.out)):
        assert secret not in page
