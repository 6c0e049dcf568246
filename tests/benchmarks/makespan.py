"""A thousand jobs at 100/s: wall time against the ideal, CPU against a bare script.

python tests/benchmarks/makespan.py [--quick] [--json] [--check]
"""

from __future__ import annotations

from pathlib import Path

import children
import figures
import manifests
from children import FailedError, Used

RATE = 100  # per second
GENERATION_S = 4.0
POLL_S = 0.5
SANDBOX = ("--median", f"{GENERATION_S:g}", "--sigma", "0", "--clip", "tiny")


def measure(*, quick: bool = False) -> figures.Report:
    """Measure wall time and CPU of a run, start-up included."""
    jobs, rounds = (100, 1) if quick else (1_000, 3)
    ideal_s = (jobs - 1) / RATE + GENERATION_S
    ours: list[Used] = []
    bare: list[Used] = []
    with children.folder() as folder:
        for number in range(rounds):
            home = folder / str(number)
            home.mkdir()
            clients = [(_ours, ours), (_bare, bare)]
            for client, used in clients if number % 2 == 0 else clients[::-1]:
                used.append(client(home, jobs))
    walls = [each.wall_s for each in ours]
    bare_walls = [each.wall_s for each in bare]
    found = [
        figures.compared("wall", "s", walls, "ideal", [ideal_s] * rounds, at_most=1.04),
        figures.compared("wall", "s", walls, "bare script", bare_walls),
        figures.compared(
            "client CPU",
            "s",
            [each.cpu_s for each in ours],
            "bare script",
            [each.cpu_s for each in bare],
            at_most=1.5,
        ),
        figures.compared(
            "peak memory",
            "MB",
            [each.peak_mb for each in ours],
            "bare script",
            [each.peak_mb for each in bare],
        ),
    ]
    about = (
        f"{jobs:,} jobs at {RATE}/s, {GENERATION_S:g} s of generation each, polled at {POLL_S} s"
    )
    return figures.report("makespan", about, found, notes=[f"{rounds} rounds, in turn"])


def _ours(home: Path, jobs: int) -> Used:
    manifest = manifests.write(
        home / "jobs.yaml", jobs, submit_rate=f"{RATE}/s", poll_interval=f"{POLL_S}s"
    )
    with children.sandbox(*SANDBOX) as server:
        command = children.batch("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
        used = children.run(command, home)
        _check(server.stats(), home / "outputs" / "bench" / "videos", jobs)
    return used


def _bare(home: Path, jobs: int) -> Used:
    with children.sandbox(*SANDBOX) as server:
        said = (server.base_url, str(jobs), str(RATE), str(POLL_S), home / "bare")
        used = children.run(children.python(children.HERE / "bare.py", *said), home)
        _check(server.stats(), home / "bare", jobs)
    return used


def _check(stats: dict[str, object], videos: Path, jobs: int) -> None:
    """Fail if work was left out: that would be fast."""
    made = sum(1 for _ in videos.iterdir())
    if stats["created"] != jobs or made != jobs:
        raise FailedError(f"{made} videos of {stats['created']} tasks for {jobs} jobs")


if __name__ == "__main__":
    figures.main(measure)
