"""The cost per job as jobs grow: plans of up to 100,000, up to 20,000 tasks in flight.

python tests/benchmarks/growth.py [--quick] [--json] [--check]
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import children
import figures
import manifests
from children import FailedError, Used

PLANS = (1_000, 10_000, 100_000)
IN_FLIGHT = (100, 1_000, 10_000, 20_000)
POLL_S = 5.0
SUBMIT_RATE = "600/s"  # so many in 30 s leave descriptors to the rest where 20,000 are granted
HOLD_S = 20.0  # how long all tasks are in flight; then all end
LOOK_S = 5.0  # whether all are
MOST_OPEN = 2_000  # descriptors: tasks that wait hold none
MOST_MB = 300.0
MOST_GROWTH = 1.25  # of the cost per job, over the last factor of ten; more than noise


def measure(*, quick: bool = False) -> figures.Report:
    """Measure time, CPU and memory per job of plans and runs of growing size."""
    shrink = 20 if quick else 1
    with children.folder() as folder:
        plan_figures, plan_rows = _plans(
            folder, [jobs // shrink for jobs in PLANS], 1 if quick else 3
        )
        run_figures, run_rows = _runs(folder, [jobs // shrink for jobs in IN_FLIGHT], shrink)
    return figures.report(
        "growth",
        f"plans of up to {PLANS[-1] // shrink:,} jobs,"
        f" up to {IN_FLIGHT[-1] // shrink:,} tasks in flight",
        plan_figures + run_figures,
        rows=plan_rows + run_rows,
        notes=[
            "CPU per job: of one more job; the smallest run, or a plan of one job, is subtracted",
            f"runs: all tasks are in flight for {HOLD_S / shrink:g} s or more, then all end",
        ],
    )


# -- plans -------------------------------------------------------------------------------------


def _plans(
    folder: Path, sizes: Sequence[int], rounds: int
) -> tuple[list[figures.Figure], list[dict[str, object]]]:
    names = {jobs: manifests.write(folder / f"plan-{jobs}.yaml", jobs) for jobs in (1, *sizes)}
    used: dict[int, list[Used]] = {jobs: [] for jobs in names}
    for _ in range(rounds):
        for jobs, manifest in names.items():
            used[jobs].append(children.run(children.batch("plan", manifest), folder))
    base_s = statistics.median(each.cpu_s for each in used[1])
    per_job = {jobs: [(each.cpu_s - base_s) / jobs for each in used[jobs]] for jobs in sizes}
    rows = [_plan_row("plan, all new", jobs, used[jobs], per_job[jobs]) for jobs in sizes]
    most = sizes[-1]
    known = _plan_of_known(folder, names[most], most)
    rows.append(_plan_row("plan, all up to date", most, [known], [(known.cpu_s - base_s) / most]))
    return [
        figures.Figure(
            name=f"plan of {most:,}, peak memory",
            unit="MB",
            ours=figures.rounded(max(each.peak_mb for each in (*used[most], known))),
            at_most=MOST_MB,
        ),
        figures.compared(
            f"plan, CPU per job of {most:,}",
            "µs",
            [1e6 * cost for cost in per_job[most]],
            f"of {sizes[-2]:,}",
            [1e6 * cost for cost in per_job[sizes[-2]]],
            at_most=MOST_GROWTH,
        ),
        figures.Figure(
            name="plan, CPU grows with jobs to the power of",
            unit="",
            ours=_exponent({jobs: statistics.median(per_job[jobs]) * jobs for jobs in sizes}),
        ),
    ], rows


def _plan_of_known(folder: Path, manifest: Path, jobs: int) -> Used:
    """Plan with every job in the state: the most that a plan has to hold."""
    output = folder / "known"
    children.run(children.python(children.HERE / "known_state.py", manifest, output), folder)
    used = children.run(children.batch("plan", manifest, "--output-dir", output, "--json"), folder)
    if json.loads(used.output)["counts"]["unchanged"] != jobs:
        raise FailedError("the plan does not find the jobs in the state")
    return used


def _plan_row(
    what: str, jobs: int, used: Sequence[Used], per_job: Sequence[float]
) -> dict[str, object]:
    return {
        "what": what,
        "jobs": jobs,
        "wall s": figures.rounded(statistics.median(each.wall_s for each in used)),
        "CPU s": figures.rounded(statistics.median(each.cpu_s for each in used)),
        "CPU µs/job": figures.rounded(1e6 * statistics.median(per_job)),
        "peak MB": figures.rounded(max(each.peak_mb for each in used)),
        "in flight": None,
        "descriptors": None,
        "polls/job": None,
        "CPU share while all are in flight": None,
    }


def _exponent(seconds: dict[int, float]) -> float:
    """Fit seconds = a * jobs ** b by least squares in logs; return b."""
    points = [(math.log(jobs), math.log(max(each, 1e-6))) for jobs, each in seconds.items()]
    slope = statistics.linear_regression(*zip(*points, strict=True)).slope
    return figures.rounded(slope)


# -- runs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Flight:
    """A run with all tasks in flight. *idle_cpu*: share of a core while it only polls."""

    jobs: int
    used: Used
    most_in_flight: int
    most_open: int
    polls: float
    idle_cpu: float | None


def _runs(
    folder: Path, sizes: Sequence[int], shrink: int
) -> tuple[list[figures.Figure], list[dict[str, object]]]:
    # The small ones in parallel: they mostly wait.
    with ThreadPoolExecutor() as pool:
        flights = list(pool.map(lambda jobs: _fly(folder, jobs, shrink), sizes[:-1]))
    flights.append(_fly(folder, sizes[-1], shrink))
    costs = [
        (more.used.cpu_s - fewer.used.cpu_s) / (more.jobs - fewer.jobs)
        for fewer, more in itertools.pairwise(flights)
    ]
    rows: list[dict[str, object]] = [
        {
            "what": "run",
            "jobs": flight.jobs,
            "wall s": figures.rounded(flight.used.wall_s),
            "CPU s": figures.rounded(flight.used.cpu_s),
            "CPU µs/job": None if cost is None else figures.rounded(1e6 * cost),
            "peak MB": figures.rounded(flight.used.peak_mb),
            "in flight": flight.most_in_flight,
            "descriptors": flight.most_open,
            "polls/job": figures.rounded(flight.polls),
            "CPU share while all are in flight": flight.idle_cpu,
        }
        for flight, cost in zip(flights, [None, *costs], strict=True)
    ]
    most = flights[-1]
    found = [
        figures.compared(
            f"run, CPU per job of {most.jobs:,} in flight",
            "ms",
            [1e3 * costs[-1]],
            f"of {flights[-2].jobs:,}",
            [1e3 * costs[-2]],
            at_most=MOST_GROWTH,
        ),
        figures.Figure(
            name=f"run of {most.jobs:,} in flight, peak memory per task",
            unit="kB",
            ours=figures.rounded(
                1e3 * (most.used.peak_mb - flights[0].used.peak_mb) / (most.jobs - flights[0].jobs)
            ),
        ),
        figures.Figure(
            name="tasks in flight at once",
            unit="",
            ours=float(most.most_in_flight),
            at_least=float(most.jobs),
        ),
        figures.Figure(
            name="descriptors open at once",
            unit="",
            ours=float(most.most_open),
            at_most=float(MOST_OPEN),
        ),
    ]
    if most.idle_cpu is not None:
        found.append(
            figures.Figure(
                name="CPU while all are in flight",
                unit="of a core",
                ours=most.idle_cpu,
                at_most=0.9,
            )
        )
    return found, rows


def _fly(folder: Path, jobs: int, shrink: int) -> _Flight:
    home = folder / f"run-{jobs}"
    home.mkdir()
    manifest = manifests.write(
        home / "jobs.yaml",
        jobs,
        submit_rate=SUBMIT_RATE,
        max_in_flight=str(jobs),
        poll_interval=f"{POLL_S / shrink:g}s",
        task_timeout="6h",  # they end when all are submitted, however long that takes
    )
    with children.sandbox("--median", "3600", "--sigma", "0", "--clip", "tiny") as server:
        command = children.batch("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
        ender = Thread(target=_end_all, args=(server, jobs, shrink), daemon=True)
        ender.start()
        used = children.run(command, home, is_sampled=True)
        stats = server.stats()
    if stats["created"] != jobs:
        raise FailedError(f"{stats['created']} tasks for {jobs} jobs")
    return _Flight(
        jobs,
        used,
        stats["most_in_flight"],
        max((opened for _, _, opened in used.samples), default=0),
        (stats["queries"] + stats["lookups"]) / jobs,
        _share(used.samples, stats["tasks"]),
    )


def _end_all(server: children.Server, jobs: int, shrink: int) -> None:
    """End all tasks once they have been in flight together for a while, however slow this machine is."""
    while server.stats()["created"] < jobs:
        time.sleep(LOOK_S / shrink)
    time.sleep(HOLD_S / shrink)
    server.post("/sandbox/finish", {})


def _share(
    samples: Sequence[tuple[float, float, int]], tasks: Sequence[dict[str, Any]]
) -> float | None:
    """Return the share of a core between the last submission and the first finished task."""
    begin = max(task["created_at"] for task in tasks)
    end = min(task["finished_at"] for task in tasks)
    inside = [sample for sample in samples if begin <= sample[0] <= end]
    if len(inside) < 2:
        return None
    (first, cpu_before, _), (last, cpu_after, _) = inside[0], inside[-1]
    return figures.rounded((cpu_after - cpu_before) / (last - first))


if __name__ == "__main__":
    figures.main(measure)
