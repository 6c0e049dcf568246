"""Numbers for Prometheus: what stands in the file of node_exporter's textfile collector."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from patience import PATIENCE_S

from batch.cli.metrics import METRICS

LINE = re.compile(r'kling_batch_(\w+)\{manifest="([\w.-]+)"(?:,state="(\w+)")?\} ([\d.e+]+)')


def numbers(path: Path) -> dict[str, float]:
    """Read the file as Prometheus does: a help and a type before each name, then its values."""
    found: dict[str, float] = {}
    known = ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# HELP "):
            known = line.split()[2]
        elif line.startswith("#"):
            assert line == f"# TYPE {known} gauge"
        else:
            match = LINE.fullmatch(line)
            assert match is not None, line
            assert known == f"kling_batch_{match[1]}"
            found[f"{match[1]}.{match[3]}" if match[3] else match[1]] = float(match[4])
    return found


def test_metrics_tell_what_a_run_came_to(shell: Any, sandbox: Any) -> None:
    """As the summary does; no job, key or host is named, and nothing else lies beside the file."""
    jobs = [{"id": "a", "prompt": "fox"}, {"id": "b", "prompt": "sandbox:moderation"}]
    args = ("run", shell.manifest(jobs), "--base-url", sandbox().base_url)
    (shell.folder / "metrics").mkdir()
    path = shell.folder / "metrics" / "night.prom"
    summary = shell(*args, "--metrics-file", path, "--budget", "25", "--json").json
    found = numbers(path)
    assert found["running"] == 0
    assert found["exit_code"] == 1
    assert found["start_timestamp_seconds"] <= found["end_timestamp_seconds"]
    assert found["jobs.succeeded"] == found["jobs.failed"] == 1
    assert found["jobs.left"] == found["tasks_to_collect"] == found["tasks_in_doubt"] == 0
    assert (found["tasks_created"], found["cost_dollars"]) == (2, summary["cost_usd"])
    assert found["budget_dollars"] == 25
    videos = shell.folder / "outputs/night/videos"
    assert found["downloaded_bytes"] == (videos / "a.mp4").stat().st_size
    assert "last_success_timestamp_seconds" not in found
    assert not re.search(r'"a"|sk-|127\.0\.0\.1', path.read_text())
    assert [item.name for item in path.parent.iterdir()] == ["night.prom"]


def test_last_success_outlives_failed_runs(shell: Any, sandbox: Any) -> None:
    """A quiet night is a success; a manifest that cannot be read is none, and is told."""
    path = shell.folder / "night.prom"
    args = ("--base-url", sandbox().base_url, "--metrics-file", path)
    assert shell("run", shell.manifest(1), *args).code == 0
    first = numbers(path)["last_success_timestamp_seconds"]
    assert shell("run", shell.manifest(1), *args, "--quiet").code == 0
    quiet = numbers(path)
    assert (quiet["jobs.unchanged"], quiet["exit_code"]) == (1, 0)
    assert first < quiet["last_success_timestamp_seconds"]
    assert shell("run", shell.manifest([{"id": "a"}]), *args).code == 2
    failed = numbers(path)
    assert (failed["exit_code"], failed["running"]) == (2, 0)
    assert failed["last_success_timestamp_seconds"] == quiet["last_success_timestamp_seconds"]


def test_metrics_are_kept_during_a_run(shell: Any, sandbox: Any) -> None:
    """And a second run, which does not get the folder, leaves the file to the first."""
    path = shell.folder / "night.prom"
    box = sandbox(median_s=600)
    args = ("run", shell.manifest(), "--base-url", box.base_url, "--metrics-file", path)
    with shell.running(*args):
        shell.until(path.exists)
        assert shell(*args).code == 75
        found = numbers(path)
    assert found["running"] == 1
    assert "exit_code" not in found


def test_every_metric_is_documented(shell: Any) -> None:
    """On the page of operations, with its meaning."""
    page = shell("help", "operations", key=None).out
    missing = [name for name in METRICS if f"kling_batch_{name}" not in page]
    assert missing == []


def test_metrics_follow_the_umask(shell: Any, sandbox: Any) -> None:
    """node_exporter is another user."""
    path = shell.folder / "night.prom"
    shell.umask = 0o022
    args = ("run", shell.manifest(1), "--base-url", sandbox().base_url, "--metrics-file", path)
    with shell.running(*args) as process:
        assert process.wait(timeout=PATIENCE_S) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_metrics_that_cannot_be_written_are_a_warning(shell: Any, sandbox: Any) -> None:
    """The run has its exit code; `plan` writes none at all."""
    args = (shell.manifest(1), "--base-url", sandbox().base_url)
    said = shell("run", *args, "--metrics-file", "nowhere/night.prom")
    assert said.code == 0
    assert "warning: no metrics were written to nowhere/night.prom: No such file" in said.err
    assert shell("run", *args, "--dry-run", "--metrics-file", "night.prom").code == 0
    assert not (shell.folder / "night.prom").exists()


def test_pipe_in_the_place_of_the_metrics_is_replaced(shell: Any, sandbox: Any) -> None:
    """Nobody writes into it, so the last success in it would be waited for."""
    os.mkfifo(shell.folder / "night.prom")
    args = ("--base-url", sandbox().base_url, "--metrics-file", "night.prom")
    assert shell("run", shell.manifest(1), *args).code == 0
    assert "kling_batch_exit_code" in (shell.folder / "night.prom").read_text("utf-8")
