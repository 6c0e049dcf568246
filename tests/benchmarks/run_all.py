"""All benchmarks, one after the other.

    python tests/benchmarks/run_all.py [--quick] [--check] [--json FILE] [--save] [NAME …]

Takes about ten minutes and both cores of a small machine, which should be idle otherwise. `--save`
keeps the figures in `results/`, by date and kind of machine, so that a change can be seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import children
import downloads
import figures
import growth
import makespan
import million
import peers
import push
import quiet_night
import report_page
import slots
from figures import Figure, Report

RESULTS = children.HERE / "results"
ABOUT_RESULTS = (
    "Made by `python tests/benchmarks/run_all.py --save`. Ratios are medians over rounds that were"
    " run in turn; compare only ratios with another day's."
)


def polling(*, quick: bool = False) -> Report:
    """Run polling.py and convert its figures."""
    nights = "3" if quick else "20"
    script = children.HERE / "polling.py"
    # Its exit code tells whether its goals are met.
    ended = subprocess.run(
        children.python(script, "--json", "--nights", nights),
        env=children.environment(),
        capture_output=True,
        check=False,
        text=True,
    )
    if not ended.stdout:
        raise children.FailedError(f"polling.py ended with {ended.returncode}:\n{ended.stderr}")
    found = json.loads(ended.stdout)
    rows, goal = found["rows"], found["goal"]
    main_case = rows[0]
    return figures.report(
        "polling",
        "requests at equal lateness; generation times lognormal, one night of history",
        [
            Figure(
                name="lateness",
                unit="of the median",
                ours=main_case["lateness"],
                at_most=goal["lateness"],
            ),
            Figure(
                name="requests",
                unit="of a fixed interval's",
                ours=main_case["against_fixed"],
                at_most=goal["against_fixed"],
            ),
            Figure(
                name="requests, likewise",
                unit="of the optimum's",
                ours=main_case["against_optimum"],
            ),
        ],
        rows=rows,
        notes=[f"integrals over the true distribution; a plan takes {found['plan_ms']} ms"],
    )


def schedule(*, quick: bool = False) -> Report:
    """Run virtual_run.py, which imports the package, in a process of its own."""
    script = children.HERE / "virtual_run.py"
    with children.folder() as folder:
        options = ("--json", "--quick") if quick else ("--json",)
        used = children.run(children.python(script, "--check", *options), folder)
    found: Report = json.loads(used.output.splitlines()[0])
    return found


BENCHMARKS: dict[str, Callable[..., Report]] = {
    "makespan": makespan.measure,
    "quiet_night": quiet_night.measure,
    "report_page": report_page.measure,
    "growth": growth.measure,
    "downloads": downloads.measure,
    "slots": slots.measure,
    "peers": peers.measure,
    "push": push.measure,
    "polling": polling,
    "schedule": schedule,
    "million": million.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a benchmark could not be measured, not for slowness."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], epilog=f"names: {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--quick", action="store_true", help="small numbers, to try it out")
    parser.add_argument("--check", action="store_true", help="also print which goals are met")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--save", action="store_true", help="keep the figures in results/")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {min(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.save and (options.quick or options.names):
        parser.error("--save keeps complete runs only: leave out --quick and the names")
    print(f"{figures.today()}, {figures.machine()}", flush=True)
    reports, troubles = [], []
    for name in options.names or BENCHMARKS:
        begun = time.perf_counter()
        try:
            found = BENCHMARKS[name](quick=options.quick)
        except children.FailedError as error:
            troubles.append(name)
            print(f"\n{name}: not measured: {error}", flush=True)
            continue
        reports.append(found | {"took_s": round(time.perf_counter() - begun, 1)})
        print(f"\n{figures.to_text(found)}", flush=True)
    if options.check:
        print(f"\n{figures.verdict(reports)}")
    if options.quick:
        print("\n(--quick: the goals apply to full runs only)")
    whole = {"date": figures.today(), "machine": figures.machine(), "benchmarks": reports}
    if options.json is not None:
        _write(options.json, whole)
    if options.save and not troubles:
        save(whole)
    return 1 if troubles else 0


def save(whole: Report) -> None:
    """Keep the figures as JSON, and the tables of the latest run as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    name = f"{whole['date']}-{figures.machine_slug()}.json"
    _write(RESULTS / name, whole)
    parts = [
        "# Benchmarks, the latest run",
        f"{whole['date']}, {whole['machine']}; [numbers]({name}). {ABOUT_RESULTS}",
    ]
    for found in whole["benchmarks"]:
        parts += [
            f"## {found['benchmark']}",
            f"{found['about']}.",
            figures.markdown(figures.table(found)),
        ]
        if found["rows"]:
            parts.append(figures.markdown(figures.details(found)))
        parts += [f"{note}." for note in found["notes"]]
    (RESULTS / "README.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def _write(path: Path, whole: Report) -> None:
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
