"""Polling that learns, against a fixed interval and against the optimum; computed, not simulated.

    python tests/benchmarks/polling.py [--json]

Generation times are lognormal with a known spread; the schedule only has a night of samples. Its
expected requests and lateness are integrals over the true distribution. A fixed interval and the
optimum (dynamic programming over the true distribution) are tuned to the same lateness, and the
requests that each needs for it are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from batch.run.schedule import History, next_poll, plan

MEDIAN_S = 135.0  # kling-3.0, API sheet section 6
POLL_INTERVAL_S = 5.0
HORIZON = 30.0  # medians; later polls are ignored
GOAL_LATENESS = 0.08  # of the median
GOAL_REQUESTS = 0.55  # of what a fixed interval needs

Done = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One case, averaged over nights. Lateness in medians; ratios of requests at equal lateness."""

    case: str
    spread: float
    samples: int
    lateness: float
    requests: float
    against_fixed: float
    against_optimum: float


def lognormal(median_s: float, spread: float) -> Done:
    """Return the function that gives the probability that a task is done by an age."""

    def done(age_s: float) -> float:
        if age_s <= 0:
            return 0.0
        return 0.5 * math.erfc(-math.log(age_s / median_s) / spread * math.sqrt(0.5))

    return done


def integral(done: Done, start: float, end: float) -> float:
    """Return the integral of *done*, by Simpson's rule on pieces shorter than its spread."""
    pieces = max(2, min(400, math.ceil((end - start) / 2.0)))
    width = (end - start) / pieces
    total = 0.0
    for i in range(pieces):
        a = start + i * width
        total += (done(a) + 4 * done(a + width / 2) + done(a + width)) * width / 6
    return total


def expected(polls: Sequence[float], done: Done) -> tuple[float, float]:
    """Return expected requests and lateness (seconds) of polls at these ages."""
    requests = lateness = before = 0.0
    for poll in polls:
        share = done(before)
        if share > 1 - 1e-9:
            break
        requests += 1 - share
        lateness += integral(done, before, poll) - share * (poll - before)
        before = poll
    return requests, lateness


def learned_polls(history: History | None, rng: random.Random, median_s: float) -> list[float]:
    """Return the ages at which the schedule polls a task that never ends."""
    polls: list[float] = []
    age = 0.0
    while age < HORIZON * median_s:
        age += next_poll(age, poll_interval_s=POLL_INTERVAL_S, history=history, rng=rng)
        polls.append(age)
    return polls


def fixed_requests(lateness_s: float, done: Done, median_s: float) -> float:
    """Return the requests that polling at a fixed interval needs for this lateness."""
    low, high = 0.05, 2 * median_s
    requests = 0.0
    for _ in range(24):
        interval = (low + high) / 2
        polls = [interval * (i + 1) for i in range(math.ceil(HORIZON * median_s / interval))]
        requests, late = expected(polls, done)
        low, high = (interval, high) if late < lateness_s else (low, interval)
    return requests


def optimal_polls(price_s: float, ages: Sequence[float], done: Sequence[float]) -> list[float]:
    """Return the polls with the least `requests * price + lateness`, in quadratic time."""
    area = [0.0]
    for i in range(1, len(ages)):
        area.append(area[-1] + (done[i - 1] + done[i]) / 2 * (ages[i] - ages[i - 1]))
    cost, after = [0.0] * len(ages), [0] * len(ages)
    for i in range(len(ages) - 2, -1, -1):
        cost[i], after[i] = min(
            (area[j] - area[i] - done[i] * (ages[j] - ages[i]) + cost[j], j)
            for j in range(i + 1, len(ages))
        )
        cost[i] += price_s * (1 - done[i])
    polls, i = [], 0
    while i < len(ages) - 1:
        i = after[i]
        polls.append(ages[i])
    return polls


def optimal_requests(lateness_s: float, done: Done, median_s: float, spread: float) -> float:
    """Return the fewest requests for this lateness if the distribution is known."""
    low_age, high_age = -4.5 * spread, 5.5 * spread
    cells = 300
    ages = [0.0] + [
        median_s * math.exp(low_age + (high_age - low_age) * i / cells) for i in range(cells + 1)
    ]
    shares = [done(age) for age in ages]
    points: list[tuple[float, float]] = []  # (lateness, requests) on the frontier
    low, high = 0.001, 5.0
    for _ in range(12):
        price = math.sqrt(low * high)
        requests, late = expected(optimal_polls(price * median_s, ages, shares), done)
        points.append((late, requests))
        low, high = (price, high) if late < lateness_s else (low, price)
    # Choosing between two plans at random reaches every point of the line between them.
    below = max((p for p in points if p[0] <= lateness_s), default=min(points))
    above = min((p for p in points if p[0] > lateness_s), default=max(points))
    if above[0] <= below[0]:
        return below[1]
    share = (lateness_s - below[0]) / (above[0] - below[0])
    return below[1] + (above[1] - below[1]) * share


def measure(
    case: str, spread: float, samples: int, *, nights: int, drift: float = 1.0, fresh: int = 0
) -> Row:
    """Measure one case: *samples* of an earlier night, and a night that is *drift* times as slow.

    *fresh* of the *samples* are from tonight's own run.
    """
    rng = random.Random(f"{case} {spread} {samples}")
    median_s = MEDIAN_S * drift
    done = lognormal(median_s, spread)
    results = []
    for _ in range(nights):
        times = [rng.lognormvariate(math.log(MEDIAN_S), spread) for _ in range(samples - fresh)]
        times += [rng.lognormvariate(math.log(median_s), spread) for _ in range(fresh)]
        polls = learned_polls(History(times) if times else None, rng, median_s)
        results.append(expected(polls, done))
    requests = statistics.fmean(result[0] for result in results)
    late_s = statistics.fmean(result[1] for result in results)
    return Row(
        case=case,
        spread=spread,
        samples=samples,
        lateness=round(late_s / median_s, 4),
        requests=round(requests, 2),
        against_fixed=round(requests / fixed_requests(late_s, done, median_s), 3),
        against_optimum=round(requests / optimal_requests(late_s, done, median_s, spread), 3),
    )


def plan_ms(samples: int) -> float:
    """Return the milliseconds that a new plan takes."""
    rng = random.Random(1)
    times = [rng.lognormvariate(math.log(MEDIAN_S), 0.25) for _ in range(samples)]
    took = []
    for _ in range(20):
        start = time.perf_counter()
        plan(times, poll_interval_s=POLL_INTERVAL_S)
        took.append(time.perf_counter() - start)
    return round(1_000 * statistics.median(took), 3)


def run(nights: int) -> dict[str, object]:
    """Measure every case."""
    rows = [
        measure("one night of history", 0.25, 50, nights=nights),
        measure("a short night", 0.25, 10, nights=nights),
        measure("three samples", 0.25, 3, nights=nights),
        measure("a full history", 0.25, 256, nights=nights),
        measure("narrow", 0.10, 50, nights=nights),
        measure("wide", 0.50, 50, nights=nights),
        measure("tonight 1.5 x slower, nothing learned", 0.25, 50, nights=nights, drift=1.5),
        measure("… 20 tasks later", 0.25, 70, nights=nights, drift=1.5, fresh=20),
        measure("tonight 1.5 x faster, nothing learned", 0.25, 50, nights=nights, drift=1 / 1.5),
        measure("… 20 tasks later", 0.25, 70, nights=nights, drift=1 / 1.5, fresh=20),
        measure("no history", 0.25, 0, nights=nights),
    ]
    main = rows[0]
    return {
        "benchmark": "polling",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "median_s": MEDIAN_S,
        "goal": {"lateness": GOAL_LATENESS, "against_fixed": GOAL_REQUESTS},
        "is_met": main.lateness <= GOAL_LATENESS and main.against_fixed <= GOAL_REQUESTS,
        "plan_ms": plan_ms(256),
        "rows": [asdict(row) for row in rows],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; exit 0 if the goal is met, else 1."""
    parser = argparse.ArgumentParser(description="Polling that learns, against fixed and optimum.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--nights", type=int, default=20, help="nights of history per case")
    options = parser.parse_args(argv)
    result = run(options.nights)
    if options.json:
        print(json.dumps(result, indent=2))
        return 0 if result["is_met"] else 1
    head = ("case", "spread", "samples", "lateness", "requests", "/ fixed", "/ optimum")
    print("{:<40}{:>7}{:>9}{:>10}{:>10}{:>9}{:>11}".format(*head))
    for row in result["rows"]:  # type: ignore[attr-defined]
        print(
            f"{row['case']:<40}{row['spread']:>7}{row['samples']:>9}{row['lateness']:>9.1%}"
            f"{row['requests']:>11.2f}{row['against_fixed']:>9.2f}{row['against_optimum']:>11.2f}"
        )
    print(
        f"\nlateness in medians; requests against those of the same lateness; "
        f"a plan takes {result['plan_ms']} ms; goal {'met' if result['is_met'] else 'missed'}"
    )
    return 0 if result["is_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
