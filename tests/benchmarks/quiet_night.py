"""A night on which nothing is to be done, and `--help`: what it costs to find that out.

python tests/benchmarks/quiet_night.py [--quick] [--json] [--check]
"""

from __future__ import annotations

from pathlib import Path

import children
import figures
import manifests
from children import FailedError, Used

LOAD = "import sys, yaml; yaml.load(open(sys.argv[1], encoding='utf-8'), yaml.CSafeLoader)"
HELP_RATIO = 10.0  # 150 ms where bare Python needs 15


def measure(*, quick: bool = False) -> figures.Report:
    """Measure a run of unchanged jobs against PyYAML alone, and `--help` against bare Python."""
    jobs, rounds = (500, 2) if quick else (5_000, 7)
    nights: list[Used] = []
    loads: list[Used] = []
    helps: list[Used] = []
    pythons: list[Used] = []
    with children.folder() as folder:
        manifest = manifests.write(folder / "jobs.yaml", jobs, job=manifests.LONG_JOB)
        output = folder / "outputs" / "bench"
        children.run(children.python(children.HERE / "known_state.py", manifest, output), folder)
        children.run(children.batch("run", manifest, "--quiet"), folder)  # bytecode and caches
        for _ in range(rounds):
            nights.append(_night(manifest, folder))
            loads.append(children.run(children.python("-c", LOAD, manifest), folder))
            helps.append(children.run(children.batch("--help"), folder))
            pythons.append(children.run(children.python("-c", "pass"), folder))
    found = [
        figures.compared(
            "quiet night, wall",
            "s",
            [used.wall_s for used in nights],
            "CSafeLoader",
            [used.wall_s for used in loads],
            at_most=1.3,
        ),
        figures.compared(
            "quiet night, CPU",
            "s",
            [used.cpu_s for used in nights],
            "CSafeLoader",
            [used.cpu_s for used in loads],
        ),
        figures.compared(
            "quiet night, peak memory",
            "MB",
            [used.peak_mb for used in nights],
            "CSafeLoader",
            [used.peak_mb for used in loads],
        ),
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


def _night(manifest: Path, folder: Path) -> Used:
    used = children.run(children.batch("run", manifest, "--quiet"), folder)
    if used.output:
        raise FailedError(f"the night was not quiet:\n{used.output[:2_000]}")
    return used


if __name__ == "__main__":
    figures.main(measure)
