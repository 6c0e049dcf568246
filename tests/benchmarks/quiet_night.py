"""A run with nothing to do, and `--help`: wall time, CPU and memory.

python tests/benchmarks/quiet_night.py [--quick] [--json] [--check]
"""

from __future__ import annotations

from pathlib import Path

import children
import figures
import manifests
from children import FailedError, Used

LOAD = "import sys, yaml; yaml.load(open(sys.argv[1], encoding='utf-8'), yaml.CSafeLoader)"
NOWHERE = "http://127.0.0.1:9"
HELP_RATIO = 10.0  # 150 ms where bare Python needs 15


def measure(*, quick: bool = False) -> figures.Report:
    """Measure a run of unchanged jobs against PyYAML alone, and `--help` against bare Python."""
    jobs, rounds = (500, 2) if quick else (5_000, 7)
    helps: list[Used] = []
    pythons: list[Used] = []
    with children.folder() as folder:
        long = _Manifest(folder / "long", jobs, manifests.LONG_JOB)
        short = _Manifest(folder / "short", jobs, manifests.JOB)
        for _ in range(rounds):
            for manifest in (long, short):
                manifest.measure()
            helps.append(children.run(children.batch("--help"), folder))
            pythons.append(children.run(children.python("-c", "pass"), folder))
    found = [
        _compared("quiet night, wall", "s", long.nights, long.loads, at_most=1.3),
        _compared("quiet night, CPU", "s", long.nights, long.loads),
        _compared("quiet night, peak memory", "MB", long.nights, long.loads),
        _compared("short prompts, wall", "s", short.nights, short.loads),
        _compared("short prompts, CPU", "s", short.nights, short.loads),
        figures.compared(
            "--help, wall",
            "ms",
            [1_000 * used.wall_s for used in helps],
            "bare Python",
            [1_000 * used.wall_s for used in pythons],
            at_most=HELP_RATIO,
        ),
    ]
    about = f"{jobs:,} jobs, all of them up to date; start-up included everywhere"
    return figures.report("quiet night", about, found, notes=[f"{rounds} rounds, in turn"])


class _Manifest:
    """A manifest whose jobs are all done, and the figures of its runs."""

    def __init__(self, folder: Path, jobs: int, job: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._path = manifests.write(folder / "jobs.yaml", jobs, job=job)
        self._output = folder / "outputs" / "bench"
        command = children.python(children.HERE / "known_state.py", self._path, self._output)
        children.run(command, folder)
        self._night()  # bytecode and caches
        self.nights: list[Used] = []
        self.loads: list[Used] = []

    def measure(self) -> None:
        """Measure one round."""
        self.nights.append(self._night())
        self.loads.append(children.run(children.python("-c", LOAD, self._path), self._folder))

    def _night(self) -> Used:
        # If there is work after all, it must not start, nor last.
        bounds = ("--base-url", NOWHERE, "--deadline", "20s")
        command = children.batch("run", "--new", self._path, "--quiet", *bounds)
        used = children.run(command, self._folder)
        if used.output:
            raise FailedError(f"the night was not quiet:\n{used.output[:2_000]}")
        return used


def _compared(
    name: str, unit: str, ours: list[Used], theirs: list[Used], *, at_most: float | None = None
) -> figures.Figure:
    """Compare wall time, CPU or memory, whichever *name* ends with."""
    field = {"wall": "wall_s", "CPU": "cpu_s", "peak memory": "peak_mb"}[name.partition(", ")[2]]
    return figures.compared(
        name,
        unit,
        [getattr(used, field) for used in ours],
        "CSafeLoader",
        [getattr(used, field) for used in theirs],
        at_most=at_most,
    )


if __name__ == "__main__":
    figures.main(measure)
