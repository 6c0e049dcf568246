"""Twenty prompts through six kinds of trouble: videos made and tasks paid for.

python tests/benchmarks/peers.py [--quick] [--json] [--check]

Only the client is measured here. The counts of the other tools are quoted: they were measured on an
imitation of the same API in November 2026, one run each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import children
import figures
import manifests

JOBS = 20
GENERATION_S = 3.0
KILL_AFTER_S = 2.2
ROWS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Trouble:
    """One row. *others*: videos / tasks paid for / submissions of the other tools, as quoted."""

    name: str
    options: tuple[str, ...]
    others: tuple[str, str, str, str, str]
    is_killed: bool = False


OTHERS = ("fal", "replicate", "runway", "Kling official", "ArcReel backend")
TROUBLES = (
    Trouble("clean", (), ("20/20/20",) * 5),
    Trouble(
        "answer dropped after creation",
        ("--fault", "submit:drop-after:per_task=1"),
        ("20/40/40", "0/20/20", "20/40/40", "0/20/20", "0/20/20"),
    ),
    Trouble(
        "account takes 5 at once (1303)",
        ("--max-parallel", "5"),
        ("20/20/113", "5/5/20", "5/5/50", "5/5/20", "16/16/45"),
    ),
    Trouble(
        "20 % of polls answer 500",
        ("--fault", "query:500:0.2", "--fault", "lookup:500:0.2"),
        ("0/20", "2/20", "20/20", "7/20", "20/20"),
    ),
    Trouble(
        "first five submissions 429, Retry-After 1",
        ("--fault", "submit:429:first=5,retry-after=1"),
        ("20/20/25", "15/15/20", "20/20/25", "15/15/20", "20/20/25"),
    ),
    Trouble(
        f"kill -9 at {KILL_AFTER_S:g} s (tasks of 6 s), run again",
        ("--median", f"{2 * GENERATION_S:g}"),
        ("20/40",) * 5,
        is_killed=True,
    ),
)


def measure(*, quick: bool = False) -> figures.Report:
    """Run the six rows and count videos and tasks."""
    troubles = TROUBLES[:2] if quick else TROUBLES
    with children.folder() as folder, ThreadPoolExecutor(ROWS_AT_ONCE) as pool:
        homes = [folder / str(number) for number in range(len(troubles))]
        rows = list(pool.map(_row, homes, troubles))
    found = []
    for name, column in (("videos", "ok"), ("tasks paid for", "paid")):
        counts = [int(str(row[column])) for row in rows]
        worst = max(counts, key=lambda count: abs(count - JOBS))
        found.append(
            figures.Figure(
                name=f"{name}, the worst row",
                unit=f"of {JOBS}",
                ours=float(worst),
                at_most=float(JOBS) if column == "paid" else None,
                at_least=float(JOBS) if column == "ok" else None,
            )
        )
    return figures.report(
        "peers",
        f"{JOBS} prompts, tasks of {GENERATION_S:g} s, all submitted at once",
        found,
        rows=rows,
        notes=[
            "others: videos / tasks paid for / submissions, quoted, measured in November 2026",
            f"{ROWS_AT_ONCE} rows run at a time, so the wall times are upper bounds",
        ],
    )


def _row(home: Path, trouble: Trouble) -> dict[str, object]:
    home.mkdir()
    manifest = manifests.write(
        home / "jobs.yaml", JOBS, max_in_flight=str(JOBS), poll_interval="1s"
    )
    options = ("--median", f"{GENERATION_S:g}", "--sigma", "0", "--clip", "tiny")
    with children.sandbox(*options, *trouble.options) as server:
        command = children.batch("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
        begun = time.perf_counter()
        if trouble.is_killed:
            children.run(command, home, kill_after_s=KILL_AFTER_S)
        children.run(command, home)
        wall_s = time.perf_counter() - begun
        stats = server.stats()
    polls = stats["queries"] + stats["lookups"]
    return {
        "trouble": trouble.name,
        "ok": _videos(home / "outputs" / "bench"),
        "paid": stats["created"],
        "submissions": stats["posts"],
        "polls/task": figures.rounded(polls / max(stats["created"], 1)),
        "wall s": figures.rounded(wall_s),
        **dict(zip(OTHERS, trouble.others, strict=True)),
    }


def _videos(output: Path) -> int:
    """Count the jobs whose last row names a video, and whose video is there."""
    lines: Sequence[str] = (output / "results.jsonl").read_text("utf-8").splitlines()
    last = {row["job_id"]: row for row in map(json.loads, lines)}
    return sum(
        row["status"] == "succeeded" and (output / row["file"]).stat().st_size == row["bytes"]
        for row in last.values()
    )


if __name__ == "__main__":
    figures.main(measure)
