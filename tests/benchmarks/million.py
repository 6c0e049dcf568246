"""A night of a million prompts: the cost of one job, and of a million.

    python tests/benchmarks/million.py [--quick] [--json] [--check]

Takes about eight minutes, half of them for a folder of a million jobs; run_all.py has a smaller one.

Three kinds of numbers, each marked. *Simulated*: whole nights of single accounts in virtual time,
with the real run, schedule and state (`account_night.py`). *Measured*: a folder of a million jobs,
requests and downloads over sockets, flushes of this disk. *Arithmetic*: a million jobs over many
accounts, computed from those. MILLION.md is the report.
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
LEAST, ROUNDS = 1_000, 15  # jobs of an account, and per slot: enough to leave out both ends
CROWD = 4_000  # in flight in one process: a million in a night over one account
IN_FOLDER = 100_000  # jobs in one folder, as a million takes too long
ON_TOP = 1_000  # new jobs in that folder
VIDEO_BYTES = 11_000_000
MOST_GROWTH = 1.25  # as in growth.py
TORN_BYTES = 40  # off the end of results.jsonl
FLUSHES = 100
ABOUT_ROWS = (
    "rows: up to 'flushes/job' simulated, one night of one account each; the rest is arithmetic"
    f" for {MILLION:,} jobs, with a process, a key and a folder for each account"
)
ABOUT_CORES = (
    f"cores: {MILLION:,} jobs within {NIGHT_S // 3600} h, their requests and"
    f" {VIDEO_BYTES / 1e6:g} MB per video at the CPU measured over sockets"
)

Found = dict[str, Any]


def whole(*, quick: bool = False) -> figures.Report:
    """Measure, simulate and calculate a million jobs, with all of them in one folder."""
    return measure(quick=quick, in_folder=MILLION)


def measure(*, quick: bool = False, in_folder: int = IN_FOLDER) -> figures.Report:
    """Measure, simulate and calculate a million jobs."""
    shrink = 20 if quick else 1
    told = _growth([jobs // shrink for jobs in SIZES], CROWD // shrink)
    with children.folder() as folder:
        requests_s, per_gb_s, over_sockets = _over_sockets(folder, shrink)
        told += over_sockets
        told.append(_figure("measured: a flush of this disk", "ms", 1e3 * _flush_s(folder)))
        told += _one_folder(folder, in_folder // shrink, ON_TOP // shrink)
    rows = [
        _on_paper(
            _night(max(LEAST, ROUNDS * slots) // shrink, slots, median_s), requests_s, per_gb_s
        )
        for slots, median_s in ACCOUNTS
    ]
    return figures.report(
        "million",
        f"{MILLION:,} jobs: the cost of one, and a night of all",
        told,
        rows=rows,
        notes=[ABOUT_ROWS, ABOUT_CORES],
    )


_r = figures.rounded


def _figure(name: str, unit: str, value: float) -> Figure:
    return Figure(name=name, unit=unit, ours=_r(value))


# -- simulated: nights of one account ----------------------------------------------------------


def _night(
    jobs: int, slots: int, median_s: float, root: Path | None = None, seed: int = 1
) -> Found:
    """Simulate one account's night in a child process; in memory, or in *root*."""
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
    """Make a folder in memory, where a flush costs nothing, if there is one."""
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="kling-batch-million-", dir=where) as home:
        yield Path(home)


def _written_kb(night: Found) -> float:
    """Return the kB per job written to state and results."""
    written: float = night["written"] - night["clip_bytes"]
    return written / night["jobs"] / 1e3


def _growth(sizes: list[int], crowd: int) -> list[Figure]:
    """Simulate nights of growing size: the cost of a job must not depend on their number."""
    # The smaller one before and after the larger: the machine changes within minutes.
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
        ratio("results.jsonl per job", "kB", lambda n: n["results_bytes"] / n["jobs"] / 1e3),
        ratio("written to state and results per job", "kB", _written_kb),
        _figure(f"{what}: largest log beside state.db", "MB", many["most_wal"] / 1e6),
        _figure(
            f"{what}: memory of one more job",
            "kB",
            1e3 * (many["peak_mb"] - few["peak_mb"]) / (many["jobs"] - few["jobs"]),
        ),
        _figure(f"{what}: slots in use", "of 1", many["used_slots"]),
        figures.compared(
            f"simulated, {crowded['most_open']:,} in flight: CPU per request without the network",
            "ms",
            [crowded["cpu_s"] / crowded["requests_per_job"] / crowded["jobs"] * 1e3],
            "with 100",
            [many["cpu_s"] / many["requests_per_job"] / many["jobs"] * 1e3],
            at_most=MOST_GROWTH,
        ),
        _figure(
            f"simulated, {crowded['most_open']:,} in flight: flushes per job",
            "",
            crowded["flushes"] / crowded["jobs"],
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
    request = "measured: CPU of a request, whole client, over sockets"
    memory = f"measured: peak memory of a client with {few} jobs"
    told = [
        _figure(request, "ms", 1e3 * per_request_s),
        _figure("requests that one event loop can do", "requests/s", 1 / per_request_s),
        _figure("measured: CPU of downloads", "s/GB", per_gb_s),
        _figure(memory, "MB", used["few"][0].peak_mb),
    ]
    return per_request_s, per_gb_s, told


def _run(home: Path, jobs: int, *options: str) -> tuple[Used, float]:
    """Run against a sandbox; return the resources used and the number of requests."""
    home.mkdir()
    manifest = manifests.write(home / "jobs.yaml", jobs, submit_rate="200/s", poll_interval="1s")
    with children.sandbox("--median", "6", "--seed", "1", *options) as server:
        command = children.batch("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
        used = children.run(command, home)
        stats = server.stats()
    if stats["created"] != jobs:
        raise FailedError(f"{stats['created']} tasks for {jobs} jobs")
    return used, stats["queries"] + stats["lookups"] + 2 * jobs


def _flush_s(folder: Path) -> float:
    """Return the median time of a flush of a few pages to this disk."""
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
    """Measure a folder of that many jobs from JSONL: plan, status, quiet run, repair, and new jobs."""
    manifest = manifests.write_rows(folder / "million", jobs)
    output = folder / "known"
    results, state = output / "results.jsonl", output / ".kling-batch" / "state.db"
    at_output = ("--output-dir", output, "--quiet")
    used_by = {"plan, all new": children.run(children.batch("plan", manifest, "--quiet"), folder)}
    children.run(children.python(children.HERE / "known_state.py", manifest, output), folder)
    for name, command in (
        ("plan, all up to date", ("plan", manifest, *at_output)),
        ("status", ("status", output)),
        ("run with nothing to do", ("run", "--new", manifest, *at_output)),
    ):
        used_by[name] = children.run(children.batch(*command), folder)
    size = results.stat().st_size
    os.truncate(results, size - TORN_BYTES)
    used_by["the same, results.jsonl torn"] = children.run(children.batch(*command), folder)
    if results.stat().st_size != size:
        raise FailedError("results.jsonl was not repaired")
    sizes = {"state.db": state.stat().st_size, "results.jsonl": size}
    empty = _night(on_top, 100, 120.0, root=folder / "empty")
    later = _night(on_top, 100, 120.0, root=output)
    what = f"measured, {jobs:,} jobs in one folder"
    told = []
    for name, used in used_by.items():
        told += [
            _figure(f"{what}: {name}", "CPU s", used.cpu_s),
            _figure(f"{what}: {name}, peak memory", "MB", used.peak_mb),
        ]
    told += [_figure(f"{what}: {name}", "MB", s / 1e6) for name, s in sizes.items()]
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
            [_written_kb(later)],
            "in an empty folder",
            [_written_kb(empty)],
        ),
    ]


# -- arithmetic --------------------------------------------------------------------------------


def _on_paper(night: Found, request_s: float, per_gb_s: float) -> Found:
    """Extrapolate from one account's night: accounts, hours, and rates per second."""
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
