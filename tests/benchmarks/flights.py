"""Runs with all of their tasks in flight at once, against the sandbox; for `growth`.

The tasks of all runs are equally old in the mean when they are ended, so that each was polled as
often: the largest run, which takes longest to submit, goes first and says how old that is.
"""

from __future__ import annotations

import itertools
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

POLL_S = 5.0
SUBMIT_RATE = "600/s"  # so many in 30 s leave descriptors to the rest where 20,000 are granted
HOLD_S = 20.0  # how long all tasks are in flight; then all end
LOOK_S = 5.0  # whether all are
MOST_OPEN = 2_000  # descriptors: tasks that wait hold none
MOST_GROWTH = 1.25  # of the cost per job, beyond the size before; more than noise


@dataclass(frozen=True, slots=True)
class Flight:
    """A run with all tasks in flight.

    *age_s*: of its tasks at their end, in the mean; *idle_cpu*: share of a core while it only polls.
    """

    jobs: int
    used: Used
    age_s: float
    most_in_flight: int
    most_open: int
    polls: float
    idle_cpu: float | None


def fly_all(
    folder: Path, sizes: Sequence[int], *, hurry: int = 1
) -> tuple[list[figures.Figure], list[dict[str, object]]]:
    """Run as many jobs as each of *sizes* says, ascending; *hurry* shortens all waits.

    Raises:
        FailedError: a run has not made each job once, or has not ended with 0.
    """
    largest = _fly(folder, sizes[-1], hurry)
    # The small ones in parallel: they mostly wait.
    with ThreadPoolExecutor() as pool:
        smaller = pool.map(lambda jobs: _fly(folder, jobs, hurry, largest.age_s), sizes[:-1])
        flights = [*smaller, largest]
    costs = [_cost(*pair) for pair in itertools.pairwise(flights)]
    rows = [_row(flight, cost) for flight, cost in zip(flights, (None, *costs), strict=True)]
    return _figures(flights, costs), rows


def _cost(fewer: Flight, more: Flight) -> float:
    """Return the CPU of one more job, seconds."""
    return (more.used.cpu_s - fewer.used.cpu_s) / (more.jobs - fewer.jobs)


def _row(flight: Flight, cost: float | None) -> dict[str, object]:
    return {
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


def _figures(flights: Sequence[Flight], costs: Sequence[float]) -> list[figures.Figure]:
    few, most = flights[0], flights[-1]
    one_more_kb = 1e3 * (most.used.peak_mb - few.used.peak_mb) / (most.jobs - few.jobs)
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
            ours=figures.rounded(one_more_kb),
        ),
        figures.Figure(
            name="tasks in flight at once, each job's made once",
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
        idle = "CPU while all are in flight"
        found.append(figures.Figure(name=idle, unit="of a core", ours=most.idle_cpu, at_most=0.9))
    return found


def _fly(folder: Path, jobs: int, hurry: int, age_s: float = 0.0) -> Flight:
    """Run *jobs*; end their tasks when they are *age_s* old in the mean, and all are in flight."""
    home = folder / f"run-{jobs}"
    home.mkdir()
    manifest = manifests.write(
        home / "jobs.yaml",
        jobs,
        submit_rate=SUBMIT_RATE,
        max_in_flight=str(jobs),
        poll_interval=f"{POLL_S / hurry:g}s",
        task_timeout="6h",  # they end when all are submitted, however long that takes
    )
    with children.sandbox("--median", "3600", "--sigma", "0", "--clip", "tiny") as server:
        command = children.batch("run", "--new", manifest, "--base-url", server.base_url, "--quiet")
        ender = Thread(target=_end_all, args=(server, jobs, hurry, age_s), daemon=True)
        ender.start()
        used = children.run(command, home, is_sampled=True)
        stats = server.stats()
    made = {task["external_task_id"] for task in stats["tasks"]}
    if not stats["created"] == stats["downloads"] == len(made) == jobs:
        raise FailedError(
            f"{stats['created']} tasks and {stats['downloads']} downloads for {jobs} jobs"
        )
    polls = stats["queries"] + stats["lookups"]
    return Flight(
        jobs=jobs,
        used=used,
        age_s=statistics.fmean(task["finished_at"] - task["created_at"] for task in stats["tasks"]),
        most_in_flight=stats["most_in_flight"],
        most_open=max((opened for _, _, opened in used.samples), default=0),
        polls=polls / jobs,
        idle_cpu=_share(used.samples, stats["tasks"]),
    )


def _end_all(server: children.Server, jobs: int, hurry: int, age_s: float) -> None:
    """End all tasks once they have been in flight together for a while, however slow this machine is."""
    while server.stats()["created"] < jobs:
        time.sleep(LOOK_S / hurry)
    created_at = statistics.fmean(task["created_at"] for task in server.stats()["tasks"])
    time.sleep(max(HOLD_S / hurry, created_at + age_s - time.time()))
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
