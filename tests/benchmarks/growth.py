"""The cost per job as jobs grow: plans of up to a million, up to 20,000 tasks in flight.

python tests/benchmarks/growth.py [--quick] [--json] [--check]
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import children
import figures
import flights
import manifests
from children import FailedError, Used
from figures import Figure

PLANS = (1_000, 10_000, 100_000)
MILLION = 1_000_000
IN_FLIGHT = (100, 1_000, 5_000, 20_000)
MOST_MB = 250.0
MOST_S = 4.0  # of a plan of 100,000
MOST_BYTES = 100.0  # of one more job from JSONL: what tells its id from all others
MOST_GROWTH = 1.25  # of the cost per job, over the last factor of ten; more than noise


def measure(*, quick: bool = False) -> figures.Report:
    """Measure time, CPU and memory per job of plans and runs of growing size."""
    shrink = 20 if quick else 1
    with children.folder() as folder:
        plan_figures, plan_rows = _plans(folder, shrink, rounds=1 if quick else 3)
        run_figures, run_rows = flights.fly_all(
            folder, [jobs // shrink for jobs in IN_FLIGHT], hurry=shrink
        )
    return figures.report(
        "growth",
        f"plans of up to {MILLION // shrink:,} jobs,"
        f" up to {IN_FLIGHT[-1] // shrink:,} tasks in flight",
        plan_figures + run_figures,
        rows=plan_rows + run_rows,
        notes=[
            "CPU per job: of one more job; the smaller run, or a plan of one job, is subtracted",
            f"runs: all tasks are in flight for {flights.HOLD_S / shrink:g} s or more, then all end",
            "tasks of smaller runs are as old at their end as those of the largest in the mean",
        ],
    )


@dataclass(frozen=True, slots=True)
class _Plans:
    """The plans of one manifest. *base_s*: CPU of a plan of one job."""

    what: str
    jobs: int
    used: Sequence[Used]
    base_s: float

    @property
    def wall_s(self) -> float:
        return statistics.median(each.wall_s for each in self.used)

    @property
    def peak_mb(self) -> float:
        return max(each.peak_mb for each in self.used)

    @property
    def job_us(self) -> list[float]:
        """The CPU of one more job, in each round."""
        return [1e6 * (each.cpu_s - self.base_s) / self.jobs for each in self.used]

    def row(self) -> dict[str, object]:
        return {
            "what": self.what,
            "jobs": self.jobs,
            "wall s": figures.rounded(self.wall_s),
            "CPU s": figures.rounded(statistics.median(each.cpu_s for each in self.used)),
            "CPU µs/job": figures.rounded(statistics.median(self.job_us)),
            "peak MB": figures.rounded(self.peak_mb),
            "in flight": None,
            "descriptors": None,
            "polls/job": None,
            "CPU share while all are in flight": None,
        }


def _plans(folder: Path, shrink: int, rounds: int) -> tuple[list[Figure], list[dict[str, object]]]:
    sizes = [jobs // shrink for jobs in PLANS]
    most, million = sizes[-1], MILLION // shrink
    yaml = {jobs: manifests.write(folder / f"plan-{jobs}.yaml", jobs) for jobs in (1, *sizes)}
    rows_of = {
        jobs: manifests.write_rows(folder / f"rows-{jobs}", jobs) for jobs in (most, million)
    }
    used: dict[Path, list[Used]] = {path: [] for path in (*yaml.values(), rows_of[most])}
    _plan(folder, yaml[1])  # bytecode and caches: its CPU is subtracted from that of all others
    for _ in range(rounds):
        for path, found in used.items():
            found.append(_plan(folder, path))
    base_s = statistics.median(each.cpu_s for each in used[yaml[1]])
    new = [_Plans("plan, all new, YAML", jobs, used[yaml[jobs]], base_s) for jobs in sizes]
    lines = _Plans("plan, all new, JSONL", most, used[rows_of[most]], base_s)
    many = _Plans("plan, all new, JSONL", million, [_plan(folder, rows_of[million])], base_s)
    output, renamed = folder / "known", folder / "renamed.yaml"
    children.run(children.python(children.HERE / "known_state.py", yaml[most], output), folder)
    renamed.write_text(yaml[most].read_text("utf-8").replace("- id: ", "- id: new-", 1), "utf-8")
    known = [
        _Plans(what, most, _of_known(folder, manifest, output, counts, rounds), base_s)
        for what, manifest, counts in (
            ("plan, all up to date, YAML", yaml[most], {"unchanged": most}),
            ("plan, one renamed, YAML", renamed, {"unchanged": most - 1, "moved": 1}),
        )
    ]
    told = [
        *(_time(plans) for plans in (new[-1], lines, *known)),
        *(_memory(plans) for plans in (new[-1], lines, *known, many)),
        Figure(
            name=f"{many.what}, one more job of {million:,}",
            unit="bytes",
            ours=figures.rounded(1e6 * (many.peak_mb - lines.peak_mb) / (million - most)),
            at_most=MOST_BYTES,
        ),
        _flat(new[-1], new[-2]),
        _flat(many, lines),
        Figure(
            name="plan, CPU grows with jobs to the power of",
            unit="",
            ours=_exponent({each.jobs: statistics.median(each.job_us) * each.jobs for each in new}),
        ),
    ]
    return told, [plans.row() for plans in (*new, lines, many, *known)]


def _plan(folder: Path, manifest: Path) -> Used:
    return children.run(children.batch("plan", manifest), folder)


def _of_known(
    folder: Path, manifest: Path, output: Path, counts: dict[str, int], rounds: int
) -> list[Used]:
    """Plan with every job in the state: the most that a plan has to hold."""
    command = children.batch("plan", manifest, "--output-dir", output, "--json")
    used = [children.run(command, folder) for _ in range(rounds)]
    for each in used:
        found = json.loads(each.output)["counts"]
        if any(found.get(action) != count for action, count in counts.items()):
            raise FailedError(f"the plan finds {found} in the state instead of {counts}")
    return used


def _time(plans: _Plans) -> Figure:
    name = f"{plans.what}: time of {plans.jobs:,}"
    return Figure(name=name, unit="s", ours=figures.rounded(plans.wall_s), at_most=MOST_S)


def _memory(plans: _Plans) -> Figure:
    name = f"{plans.what}: peak memory of {plans.jobs:,}"
    return Figure(name=name, unit="MB", ours=figures.rounded(plans.peak_mb), at_most=MOST_MB)


def _flat(more: _Plans, fewer: _Plans) -> Figure:
    """Compare the CPU per job with that of a smaller plan."""
    return figures.compared(
        f"{more.what}: CPU per job of {more.jobs:,}",
        "µs",
        more.job_us,
        f"of {fewer.jobs:,}",
        fewer.job_us[: len(more.job_us)],
        at_most=MOST_GROWTH,
    )


def _exponent(seconds: dict[int, float]) -> float:
    """Fit seconds = a * jobs ** b by least squares in logs; return b."""
    points = [(math.log(jobs), math.log(max(each, 1e-6))) for jobs, each in seconds.items()]
    slope = statistics.linear_regression(*zip(*points, strict=True)).slope
    return figures.rounded(slope)


if __name__ == "__main__":
    figures.main(measure)
