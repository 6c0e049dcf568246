"""Callbacks on, half of them lost, and off: polls per task, and how late its end is seen.

python tests/benchmarks/push.py [--quick] [--json] [--check]
"""

from __future__ import annotations

import datetime as dt
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import children
import figures
import manifests
from children import FailedError

sys.path.insert(0, str(Path(__file__).parents[1] / "postgres"))

from ports import free_port

JOBS = 200
GENERATION_S = 4.0
SPREAD = 0.25
POLL_S = 0.15  # to the generation time as 5 s is to 135 s
WAYS: dict[str, tuple[str, ...] | None] = {
    "on": (),
    "half lost": ("--fault", "callback:never:0.5"),
    "off": None,
}


def measure(*, quick: bool = False) -> figures.Report:
    """Measure three runs that differ only in their callbacks."""
    jobs = 30 if quick else JOBS
    rows = [_night(name, faults, jobs) for name, faults in WAYS.items()]
    by_name = {row["callbacks"]: row for row in rows}
    on, off = by_name["on"], by_name["off"]
    found = [
        figures.Figure(
            name=what,
            unit=unit,
            ours=on[key],
            peer="without callbacks",
            theirs=off[key],
            ratio=figures.rounded(on[key] / off[key]),
            at_most=at_most,
        )
        for what, unit, key, at_most in (
            ("status requests per task", "", "requests per task", 0.4),
            ("lateness, in the mean", "ms", "lateness, mean ms", 1.0),
        )
    ]
    return figures.report(
        "push",
        f"{jobs} tasks with callbacks, with half of them lost, and without; no history",
        found,
        rows=rows,
        notes=[
            f"{GENERATION_S:g} s of generation, spread {SPREAD:g}, poll_interval {POLL_S:g} s",
            "lateness: from the end of a task to the answer that reports it",
        ],
    )


def _night(name: str, faults: tuple[str, ...] | None, jobs: int) -> dict[str, Any]:
    """Run once and return a row of the table."""
    options = ("--median", f"{GENERATION_S:g}", "--sigma", f"{SPREAD:g}", "--seed", "1")
    with (
        children.folder() as folder,
        children.sandbox(*options, "--clip", "tiny", *(faults or ())) as server,
    ):
        manifest = manifests.write(
            folder / "jobs.yaml", jobs, submit_rate="50/s", poll_interval=f"{POLL_S:g}s"
        )
        command = children.batch("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
        if faults is not None:
            place = f"127.0.0.1:{free_port()}"
            command += ["--callback-url", f"http://{place}/kling", "--callback-listen", place]
        children.run(command, folder)
        stats = server.stats()
        late_ms = sorted(_lateness_ms(folder, stats["tasks"]))
    if stats["created"] != jobs or len(late_ms) != jobs:
        raise FailedError(f"{stats['created']} tasks and {len(late_ms)} rows for {jobs} jobs")
    return {
        "callbacks": name,
        "requests per task": figures.rounded((stats["queries"] + stats["lookups"]) / jobs),
        "lateness, mean ms": figures.rounded(statistics.mean(late_ms)),
        "median ms": figures.rounded(statistics.median(late_ms)),
        "p95 ms": figures.rounded(late_ms[int(0.95 * jobs)]),
        "delivered": stats["callbacks"],
    }


def _lateness_ms(folder: Path, tasks: list[dict[str, Any]]) -> list[float]:
    """Return how long after its end each task was seen to have ended."""
    [results] = folder.rglob("results.jsonl")
    ended = {task["task_id"]: task["finished_at"] for task in tasks}
    rows = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return [
        1000 * (dt.datetime.fromisoformat(row["generated_at"]).timestamp() - ended[row["task_id"]])
        for row in rows
    ]


if __name__ == "__main__":
    figures.main(measure)
