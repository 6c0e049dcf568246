"""Play seeds of the simulation: one with its events, or many with a summary.

python tests/simulation/nights.py --seed 123 --verbose
python tests/simulation/nights.py --seeds 0:20000
python tests/simulation/nights.py --years --seeds 0:5000
python tests/simulation/nights.py --years --state postgres --seeds 0:500
python tests/simulation/nights.py --fleet --seeds 0:5000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))  # works in a checkout, installed or not
sys.path.append(str(Path(__file__).parents[1] / "postgres"))

import fleet_night
from night import Report, play

Player = Callable[..., Report]
_CLUSTERS: list[Any] = []
_DATABASES: list[Any] = []  # of this process


def main() -> int:
    """Play the seeds; return 1 if a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="play only this seed")
    parser.add_argument("--seeds", default="0:1000", help="FROM:TO, without TO")
    parser.add_argument("--verbose", action="store_true", help="print every event of --seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument(
        "--years", action="store_true", help="years of nights, with a person in them"
    )
    parser.add_argument(
        "--state", choices=("sqlite", "postgres"), default="sqlite", help="of the years"
    )
    parser.add_argument("--fleet", action="store_true", help="nights of several workers")
    options = parser.parse_args()
    with _on_postgres() if options.state == "postgres" else nullcontext():
        return _play_all(options)


def _play_all(options: argparse.Namespace) -> int:
    player: Player = fleet_night.play if options.fleet else partial(play, is_year=options.years)
    if options.state == "postgres":
        player = _play_on_postgres
    if options.seed is not None:
        tell = print if options.verbose else None
        report = player(options.seed, tell=tell)
        _print(report)
        return 1 if report.violations else 0
    first, _, last = options.seeds.partition(":")
    return _play_many(range(int(first), int(last)), options.jobs, player)


def _play_many(seeds: range, jobs: int, player: Player) -> int:
    begun = time.perf_counter()
    total = Report(-1)
    broken: list[Report] = []
    played = 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Pool(jobs, initializer=_ignore_interrupts) as pool:
        try:
            for report in pool.imap_unordered(partial(_play_quietly, player), seeds):
                played += 1
                _add(total, report)
                if report.violations:
                    broken.append(report)
                    _print(report)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the summary
            print("interrupted; so far:")
    deaths = sum(total.died_at.values())
    print(
        f"{played} seeds, {total.runs} runs, {deaths} deaths at {len(total.died_at)} kinds of"
        f" step, {total.jobs} jobs, {total.posts} requests, {total.tasks} tasks created,"
        f" {len(broken)} seeds with violations, {time.perf_counter() - begun:.0f} s"
    )
    print("ends:", dict(total.exits.most_common()))
    print("deaths:", dict(total.died_at.most_common()))
    print("known:", dict(total.known))
    kinds = Counter("".join(c for c in r.violations[0] if not c.isdigit())[:60] for r in broken)
    for kind, count in kinds.most_common():
        print(f"{count:6} x {kind}")
    return 1 if broken else 0


def _add(total: Report, report: Report) -> None:
    total.runs += report.runs
    total.tasks += report.tasks
    total.posts += report.posts
    total.jobs += report.jobs
    total.died_at += report.died_at
    total.exits += report.exits
    total.known += report.known


@contextmanager
def _on_postgres() -> Iterator[None]:
    """Have a Postgres for the processes that play; each makes a database of its own there."""
    from cluster import FAST, binaries, running  # noqa: PLC0415 - no night needs it

    found = binaries()
    if found is None:
        raise SystemExit("no Postgres is installed (Debian: apt-get install postgresql)")
    with running(found, FAST) as cluster:
        _CLUSTERS.append(cluster)
        yield


def _play_on_postgres(seed: int, *, tell: Callable[[str], None] | None = None) -> Report:
    """Play a year, its library in Postgres."""
    import fleet_year  # noqa: PLC0415 - psycopg may be missing
    from virtual_postgres import VirtualPostgres  # noqa: PLC0415

    if not _DATABASES:
        name = f"years_{os.getpid()}"
        _CLUSTERS[0].execute(f"CREATE DATABASE {name} TEMPLATE template0")
        _DATABASES.append(VirtualPostgres(_CLUSTERS[0], _CLUSTERS[0].near(name)))
    return fleet_year.play(seed, postgres=_DATABASES[0], tell=tell)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _play_quietly(player: Player, seed: int) -> Report:
    try:
        report = player(seed)
    except Exception as error:  # noqa: BLE001 - reported with its seed
        report = Report(seed, violations=[f"the simulation itself failed: {error!r}"])
    report.trace.clear()
    return report


def _print(report: Report) -> None:
    digest = hashlib.sha256("\n".join(report.trace).encode()).hexdigest()[:12]
    print(f"seed {report.seed}: {report.runs} runs, {report.tasks} tasks, trace {digest}")
    for sentence in report.violations[:5]:
        print(f"    {sentence}")


if __name__ == "__main__":
    sys.exit(main())
