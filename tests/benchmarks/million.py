"""A night of a million prompts, on paper: what each job costs, and what a million of them come to.

    python tests/benchmarks/million.py [--quick] [--json] [--check]

Takes about eight minutes, half of them for a folder of a million jobs; run_all.py has a smaller one.

Three kinds of numbers, and each is told as what it is. *Simulated*: whole nights of single accounts
in virtual time, with the real feeder, pacer, slots, schedule and state (`account_night.py`).
*Measured*: a folder of a million jobs, requests and downloads over sockets, flushes of this disk.
*Arithmetic*: the million over many accounts, made of those. The report in words is MILLION.md.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import children
import figures
import manifests
from children import FailedError, Used
from figures import Figure

MILLION = 1_000_000
NIGHT_S = 8 * 3_600
SIZES = (3_000, 30_000)  # jobs of one account
ACCOUNTS = ((5, 120.0), (5, 230.0), (20, 120.0), (20, 230.0), (100, 120.0), (100, 230.0))
LEAST, ROUNDS = 1_000, 15  # jobs of an account, and per slot: ends of the night are left out
CROWD = 4_000  # in flight in one process: the whole night's million over one account without limit
IN_FOLDER = 100_000  # jobs in one folder, where a million takes too long
ON_TOP = 1_000  # new jobs in a folder that knows those already
VIDEO_BYTES = 11_000_000
MOST_GROWTH = 1.25  # as in growth.py
TORN_BYTES = 40  # off the end of results.jsonl
FLUSHES = 100
ABOUT_ROWS = (
    "rows: up to 'flushes/job' simulated, one whole night of one account each; the rest is"
    f" arithmetic for {MILLION:,} jobs, every account a process, a key and a folder"
)
ABOUT_CORES = (
    f"cores: {MILLION:,} jobs within {NIGHT_S // 3600} h, their requests and"
    f" {VIDEO_BYTES / 1e6:g} MB per video at the CPU that was measured over sockets"
)

Found = dict[str, Any]


def whole(*, quick: bool = False) -> figures.Report:
    """Measure, simulate and calculate a million jobs, with a folder that holds them all."""
    return measure(quick=quick, in_folder=MILLION)


def measure(*, quick: bool = False, in_folder: int = IN_FOLDER) -> figures.Report:
    """Measure, simulate and calculate a million jobs."""
    shrink = 20 if quick else 1
    told = _growth([jobs // shrink for jobs in SIZES], CROWD // shrink)
    with children.folder() as folder:
        requests_s, per_gb_s, over_sockets = _over_sockets(folder, shrink)
        flush_s = _flush_s(folder)
        told += over_sockets
        told.append(
            Figure(name="measured: a flush of this disk", unit="ms", ours=_r(1e3 * flush_s))
        )
        told += _one_folder(folder, in_folder // shrink, ON_TOP // shrink)
    rows = [
        _on_paper(
            _night(max(LEAST, ROUNDS * slots) // shrink, slots, median_s), requests_s, per_gb_s
        )
        for slots, median_s in ACCOUNTS
    ]
    return figures.report(
        "million",
        f"{MILLION:,} jobs: what one costs, and the night of all of them",
        told,
        rows=rows,
        notes=[ABOUT_ROWS, ABOUT_CORES],
    )


_r = figures.rounded


# -- simulated: nights of one account ----------------------------------------------------------


def _night(
    jobs: int, slots: int, median_s: float, root: Path | None = None, seed: int = 1
) -> Found:
    """Simulate one account's night in a process of its own; in memory, or in *root*."""
    with _memory() as home:
        script = children.HERE / "account_night.py"
        used = children.run(
            children.python(
                script, root or home / "out", str(jobs), str(slots), f"{median_s:g}", str(seed)
            ),
            home,
        )
    found: Found = json.loads(used.output)
    requests = sum(found["requests"].values())
    return found | {
        "slots": slots,
        "median_s": median_s,
        "peak_mb": used.peak_mb,
        "cpu_ms": 1e3 * found["cpu_s"] / jobs,
        "requests_per_job": requests / jobs,
        "polls": found["requests"]["query"] / jobs,
    }


@contextmanager
def _memory() -> Iterator[Path]:
    """Make a folder where a flush costs nothing, if there is such a place."""
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="kling-batch-million-", dir=where) as home:
        yield Path(home)


def _growth(sizes: list[int], crowd: int) -> list[Figure]:
    """Simulate nights of growing size: what a job costs must not depend on how many there are."""
    # The smaller one before and after the larger: the machine is another one minutes later.
    few, many, again = (_night(jobs, 100, 120.0) for jobs in (*sizes, sizes[0]))
    crowded = _night(5 * crowd, crowd, 120.0)
    what = f"simulated, one account, {many['jobs']:,} jobs"

    def ratio(name: str, unit: str, value: Callable[[Found], float]) -> Figure:
        return figures.compared(
            f"{what}: {name}",
            unit,
            [value(many), value(many)],
            f"of {few['jobs']:,}",
            [value(few), value(again)],
            at_most=MOST_GROWTH,
        )

    return [
        ratio("CPU per job without the network", "ms", lambda night: night["cpu_ms"]),
        ratio("requests per job", "", lambda night: night["requests_per_job"]),
        ratio("flushes per job", "", lambda night: night["flushes"] / night["jobs"]),
        ratio("state.db per job", "kB", lambda night: night["state_bytes"] / night["jobs"] / 1e3),
        ratio(
            "results.jsonl per job",
            "kB",
            lambda night: night["results_bytes"] / night["jobs"] / 1e3,
        ),
        ratio(
            "written to state and results per job",
            "kB",
            lambda night: (night["written"] - night["clip_bytes"]) / night["jobs"] / 1e3,
        ),
        Figure(
            name=f"{what}: largest log beside state.db", unit="MB", ours=_r(many["most_wal"] / 1e6)
        ),
        Figure(
            name=f"{what}: memory of one more job",
            unit="kB",
            ours=_r(1e3 * (many["peak_mb"] - few["peak_mb"]) / (many["jobs"] - few["jobs"])),
        ),
        Figure(name=f"{what}: slots in use", unit="of 1", ours=_r(many["used_slots"])),
        figures.compared(
            f"simulated, {crowded['most_open']:,} in flight: CPU per request without the network",
            "ms",
            [crowded["cpu_s"] / crowded["requests_per_job"] / crowded["jobs"] * 1e3],
            "with 100",
            [many["cpu_s"] / many["requests_per_job"] / many["jobs"] * 1e3],
            at_most=MOST_GROWTH,
        ),
        Figure(
            name=f"simulated, {crowded['most_open']:,} in flight: flushes per job",
            unit="",
            ours=_r(crowded["flushes"] / crowded["jobs"]),
        ),
    ]


# -- measured: sockets, the disk ---------------------------------------------------------------


def _over_sockets(folder: Path, shrink: int) -> tuple[float, float, list[Figure]]:
    """Measure the CPU of one more request, and of one more gigabyte of videos."""
    few, many = 400 // shrink + 5, 2_000 // shrink + 5
    videos = 100 // shrink + 15
    jobs_of = {
        "few": (few, "--clip", "tiny"),
        "many": (many, "--clip", "tiny"),
        "small": (videos, "--clip", "tiny"),
        "large": (videos, "--clip", "tiny", "--video-bytes", str(VIDEO_BYTES)),
    }
    used = {name: _run(folder / name, *options) for name, options in jobs_of.items()}
    per_request_s = (used["many"][0].cpu_s - used["few"][0].cpu_s) / (
        used["many"][1] - used["few"][1]
    )
    gigabytes = videos * VIDEO_BYTES / 1e9
    per_gb_s = (used["large"][0].cpu_s - used["small"][0].cpu_s) / gigabytes
    return (
        per_request_s,
        per_gb_s,
        [
            Figure(
                name="measured: CPU of a request, whole client, over sockets",
                unit="ms",
                ours=_r(1e3 * per_request_s),
            ),
            Figure(
                name="so that one event loop takes at most",
                unit="requests/s",
                ours=_r(1 / per_request_s),
            ),
            Figure(name="measured: CPU of downloads", unit="s/GB", ours=_r(per_gb_s)),
            Figure(
                name=f"measured: peak memory of a client with {few} jobs",
                unit="MB",
                ours=_r(used["few"][0].peak_mb),
            ),
        ],
    )


def _run(home: Path, jobs: int, *options: str) -> tuple[Used, float]:
    """Run against a sandbox; return what it took, and how many requests that was."""
    home.mkdir()
    manifest = manifests.write(home / "jobs.yaml", jobs, submit_rate="200/s", poll_interval="1s")
    with children.sandbox("--median", "6", "--seed", "1", *options) as server:
        command = children.batch("run", manifest, "--base-url", server.base_url, "--quiet")
        used = children.run(command, home)
        stats = server.stats()
    if stats["created"] != jobs:
        raise FailedError(f"{stats['created']} tasks for {jobs} jobs")
    return used, stats["queries"] + stats["lookups"] + 2 * jobs


def _flush_s(folder: Path) -> float:
    """Measure what it takes to have a few pages on this disk, for certain; the median."""
    took = []
    with (folder / "flushed").open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            file.write(bytes(16_384))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - begun)
    return statistics.median(took)


# -- measured: one folder of a million ---------------------------------------------------------


def _one_folder(folder: Path, jobs: int, on_top: int) -> list[Figure]:
    """Measure a folder of so many jobs: planned, known, asked for, mended, and gone on with."""
    manifest = manifests.write(folder / "million.yaml", jobs)
    output = folder / "known"
    results, state = output / "results.jsonl", output / ".kling-batch" / "state.db"
    at_output = ("--output-dir", output, "--quiet")
    used_by = {"plan, all new": children.run(children.batch("plan", manifest, "--quiet"), folder)}
    children.run(children.python(children.HERE / "known_state.py", manifest, output), folder)
    used_by["plan, all up to date"] = children.run(
        children.batch("plan", manifest, *at_output), folder
    )
    used_by["status"] = children.run(children.batch("status", output), folder)
    used_by["run with nothing to do"] = children.run(
        children.batch("run", manifest, *at_output), folder
    )
    size = results.stat().st_size
    os.truncate(results, size - TORN_BYTES)
    used_by["the same, results.jsonl torn"] = children.run(
        children.batch("run", manifest, *at_output), folder
    )
    if results.stat().st_size != size:
        raise FailedError("results.jsonl was not mended")
    sizes = {"state.db": state.stat().st_size, "results.jsonl": size}
    empty = _night(on_top, 100, 120.0, root=folder / "empty")
    later = _night(on_top, 100, 120.0, root=output)
    what = f"measured, {jobs:,} jobs in one folder"
    told = []
    for name, used in used_by.items():
        told += [
            Figure(name=f"{what}: {name}", unit="CPU s", ours=_r(used.cpu_s)),
            Figure(name=f"{what}: {name}, peak memory", unit="MB", ours=_r(used.peak_mb)),
        ]
    told += [
        Figure(name=f"{what}: {name}", unit="MB", ours=_r(s / 1e6)) for name, s in sizes.items()
    ]
    return [
        *told,
        figures.compared(
            f"simulated, {on_top:,} jobs on top of {jobs:,}: CPU per job",
            "ms",
            [later["cpu_ms"]],
            "in an empty folder",
            [empty["cpu_ms"]],
            at_most=MOST_GROWTH,
        ),
        figures.compared(
            f"simulated, {on_top:,} jobs on top of {jobs:,}: written per job",
            "kB",
            [(later["written"] - later["clip_bytes"]) / on_top / 1e3],
            "in an empty folder",
            [(empty["written"] - empty["clip_bytes"]) / empty["jobs"] / 1e3],
        ),
    ]


# -- arithmetic --------------------------------------------------------------------------------


def _on_paper(night: Found, request_s: float, per_gb_s: float) -> Found:
    """Multiply one account's night: how many accounts, how long, how much per second."""
    per_s = MILLION / NIGHT_S
    cpu_s = night["requests_per_job"] * request_s + VIDEO_BYTES / 1e9 * per_gb_s
    flushes = night["flushes"] / night["jobs"]
    hours = MILLION / night["per_hour"]
    return {
        "in flight": night["slots"],
        "median s": night["median_s"],
        "jobs": night["jobs"],
        "videos/h": _r(night["per_hour"]),
        "polls/job": _r(night["polls"]),
        "late s": _r(night["lateness_s"]),
        "requests/s at most": night["most_requests_per_s"],
        "flushes/job": _r(flushes),
        "h, 100 accounts": _r(hours / 100),
        "h, 1,000": _r(hours / 1_000),
        "accounts for 8 h": math.ceil(hours * 3_600 / NIGHT_S),
        "submits/s": _r(per_s),
        "polls/s": _r(per_s * night["polls"]),
        "MB/s": _r(per_s * VIDEO_BYTES / 1e6),
        "flushes/s": _r(per_s * flushes),
        "cores": _r(per_s * cpu_s),
    }


if __name__ == "__main__":
    figures.main(whole)
