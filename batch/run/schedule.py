"""When to poll a task next.

Polling often notices a finished task early and costs requests; polling rarely is the reverse. The
price of a poll, in seconds of lateness that are as bad, is the one knob: `POLL_COST`, as a share of
the typical generation time. Given past generation times, `plan` finds the polls with the least

    expected polls * price + expected lateness

exactly, by dynamic programming: no poll before a task can be done, many where it probably is, few in
the tail.

Without history, intervals grow with the age of the task: after *a* seconds the next poll comes
`GROWTH * a` later, so that lateness stays a constant share of the time that the task took.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GROWTH = 0.15  # of a task's age, where nothing is known
POLL_COST = 0.035  # of the typical generation time: one poll is worth so much lateness
# While jobs wait for a slot, a task whose end is noticed late leaves a slot empty that is wanted.
# With five slots: 97 % of them are in use, for some eight polls per task; at 0.012 95 % for six.
URGENT_POLL_COST = 0.004

MAX_SAMPLES = 256  # generation times kept per kind of task
_MAX_TIME_S = 7 * 86_400.0  # no task takes a week
_REPLAN = 8  # a plan is computed again when one sample in so many is new to it
_HALF_LIFE = 64  # samples after which one counts half: the provider's speed drifts
_JITTER = 0.15  # of an interval, without history
_FINE_JITTER = 0.02  # of an interval, on a plan

_CELLS = 256  # of the time axis of a plan
_KERNELS = 24  # bumps that stand for the samples
_PRIOR_SPREAD = 0.35  # in log time, of generation times that were not measured yet
_PRIOR_WEIGHT = 2.0  # samples that this prior is worth
_SURPRISE_SPREAD = 0.8  # in log time, of the share of tasks that behave like nothing seen before
_REACH = 4.0  # spreads from its centre to where a bump begins and ends


@dataclass(frozen=True, slots=True)
class Plan:
    """When to poll tasks of one kind: after a poll in vain at `ages[i]` comes the one at `nexts[i]`.

    All in seconds since submission, `ages` ascending from 0. Beyond the last age nothing is planned.
    """

    ages: tuple[float, ...]
    nexts: tuple[float, ...]

    def after(self, age_s: float) -> float | None:
        """Return the age of the next poll, or None beyond the plan."""
        if age_s >= self.ages[-1]:
            return None
        return self.nexts[bisect_right(self.ages, max(age_s, 0.0)) - 1]

    def polls(self) -> list[float]:
        """Return the ages at which a task that is never done is polled."""
        polls: list[float] = []
        age: float | None = self.after(0.0)
        while age is not None:
            polls.append(age)
            age = self.after(age)
        return polls


class History:
    """The latest generation times of one kind of task, in seconds, oldest first. Bounded.

    One kind: the same model, mode and duration. Invalid values are ignored, so that neither a strange
    answer nor an old state file can spoil it.
    """

    __slots__ = ("_fresh", "_plan", "_plan_key", "_samples")

    def __init__(self, samples: Iterable[object] = ()) -> None:
        self._samples: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._plan: Plan | None = None
        self._plan_key: tuple[float, float] | None = None
        self._fresh = 0
        for sample in samples:
            self.add(sample)

    def __len__(self) -> int:
        return len(self._samples)

    def __repr__(self) -> str:
        return f"<History of {len(self)}>"

    def add(self, generation_time_s: object) -> None:
        """Learn one more generation time; anything but a positive, finite number is ignored."""
        if isinstance(generation_time_s, bool) or not isinstance(generation_time_s, int | float):
            return
        if 0 < generation_time_s < _MAX_TIME_S:
            self._samples.append(float(generation_time_s))
            self._fresh += 1

    def quantile(self, share: float) -> float:
        """Return the time that this share of the samples took at most; there must be some."""
        ordered = sorted(self._samples)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def merged(self, newer: History) -> History:
        """Return a history of both, *newer* last; the oldest fall out."""
        return History([*self._samples, *newer._samples])

    def to_list(self) -> list[float]:
        """Return the times, oldest first; `History(list)` reads them back."""
        return list(self._samples)

    def plan(self, *, poll_interval_s: float, poll_cost: float = POLL_COST) -> Plan:
        """Return the plan for what is known; computed again when that has grown by an eighth."""
        key = (poll_interval_s, poll_cost)
        is_stale = self._fresh * _REPLAN >= len(self._samples) and self._fresh > 0
        if self._plan is None or is_stale or key != self._plan_key:
            self._plan = plan(self._samples, poll_interval_s=poll_interval_s, poll_cost=poll_cost)
            self._plan_key, self._fresh = key, 0
        return self._plan


def next_poll(
    age_s: float,
    *,
    poll_interval_s: float,
    history: History | None,
    rng: random.Random,
    poll_cost: float = POLL_COST,
) -> float:
    """Return seconds until the next poll of a task that was submitted *age_s* ago.

    Never less than *poll_interval_s*. Without history, the first poll comes after just that, later
    ones at intervals that grow with the age. Jitter only ever adds: a crowd that was submitted at
    once does not come back at once.
    """
    age_s = max(age_s, 0.0)
    due_s = None
    if history:
        plan = history.plan(poll_interval_s=poll_interval_s, poll_cost=poll_cost)
        due_s = plan.after(age_s)
    if due_s is not None:
        wait_s = max(due_s - age_s, poll_interval_s)
        return wait_s + rng.random() * _FINE_JITTER * wait_s
    if age_s <= 0:
        return poll_interval_s
    wait_s = max(poll_interval_s, GROWTH * age_s)
    return wait_s + rng.random() * _JITTER * wait_s


def plan(
    samples: Sequence[float],
    *,
    poll_interval_s: float,
    poll_cost: float = POLL_COST,
) -> Plan:
    """Plan the polls of a task whose generation time is like *samples* (seconds, oldest first).

    *poll_cost* is the price of a poll as a share of the median: less of it means less lateness and
    more requests. Pure; about half a millisecond.
    """
    bumps, spread = _bumps(samples)
    median = math.exp(bumps[len(bumps) // 2])
    axis = _axis(bumps, spread)
    ages = (0.0, *map(math.exp, axis))
    done = [0.0, *_done_by(axis, bumps, spread, surprise=1 / (len(samples) + 2))]
    return Plan(ages, _cheapest(ages, done, poll_cost * median, poll_interval_s))


# -- what is known of generation times -------------------------------------------------------


def _bumps(samples: Sequence[float]) -> tuple[list[float], float]:
    """Return the centres of equally heavy bumps, ascending, and their width; in log time.

    Newer samples weigh more. The width is Silverman's, of a spread that a few samples may not
    claim to know: it is drawn towards a prior.
    """
    logs = [math.log(sample) for sample in samples]
    newest = len(logs) - 1
    weighted = sorted((x, 0.5 ** ((newest - i) / _HALF_LIFE)) for i, x in enumerate(logs))
    total = sum(weight for _, weight in weighted)
    mean = sum(x * weight for x, weight in weighted) / total
    squares = sum(weight * (x - mean) ** 2 for x, weight in weighted)
    spread = math.sqrt(
        (squares + _PRIOR_WEIGHT * _PRIOR_SPREAD**2) / (total - 1 + _PRIOR_WEIGHT)
        if total > 1
        else _PRIOR_SPREAD**2
    )
    count = min(_KERNELS, len(weighted))
    return _quantiles(weighted, total, count), max(0.9 * spread * total**-0.2, 0.01)


def _quantiles(weighted: list[tuple[float, float]], total: float, count: int) -> list[float]:
    """Return the middles of *count* equally heavy slices of the sorted samples."""
    middles: list[float] = []
    passed = 0.0
    for x, weight in weighted:
        passed += weight
        while len(middles) < count and passed >= total * (len(middles) + 0.5) / count:
            middles.append(x)
    return middles or [weighted[-1][0]]


def _axis(bumps: list[float], spread: float) -> list[float]:
    """Return the logarithms of the ages at which a poll may be, evenly spaced."""
    reach = _REACH * max(spread, _SURPRISE_SPREAD / 2)
    low, high = bumps[0] - reach, bumps[-1] + reach
    step = (high - low) / (_CELLS - 1)
    return [low + step * i for i in range(_CELLS)]


def _done_by(
    axis: Sequence[float], bumps: list[float], spread: float, *, surprise: float
) -> list[float]:
    """Return the probability that a task is done, at each age, given in log time and ascending.

    The share *surprise* is spread widely: a plan that is certain would never poll where it is wrong.
    """
    middle, count = bumps[len(bumps) // 2], len(bumps)
    reach, steepness = _REACH * spread, math.sqrt(0.5) / spread
    steepness_of_other = math.sqrt(0.5) / _SURPRISE_SPREAD
    passed = reached = 0  # the bumps that are wholly done, and those that have begun, by this age
    done = []
    for log_age in axis:
        while passed < count and bumps[passed] < log_age - reach:
            passed += 1
        while reached < count and bumps[reached] <= log_age + reach:
            reached += 1
        near = sum([math.erfc((bump - log_age) * steepness) for bump in bumps[passed:reached]])
        other = math.erfc((middle - log_age) * steepness_of_other) / 2
        done.append((1 - surprise) * (passed + near / 2) / count + surprise * other)
    return done


# -- the cheapest polls ----------------------------------------------------------------------


def _cheapest(
    ages: Sequence[float], done: Sequence[float], price_s: float, poll_interval_s: float
) -> tuple[float, ...]:
    """Return, for each age at which a poll was in vain, the age of the poll that should follow.

    With F = *done* and I its integral, the lateness of what ends between two polls at a and b is
    I(b) - I(a) - F(a) (b - a). So the least cost from age i on is

        V(i) = price (1 - F_i) - I_i + F_i t_i + min over j of ( I_j + V_j - F_i t_j ),

    a minimum over lines in F_i. Going backwards the lines come in the order of their slopes, so
    that a stack holds their lower envelope, and F_i falls, so that the lowest line only moves up
    the stack: n steps instead of n².
    """
    areas = _integral(ages, done)
    last = len(ages) - 1
    costs = [price_s * (1 - share) for share in done]
    nexts = [age + poll_interval_s for age in ages]
    lines: list[tuple[float, float]] = []  # (t_j, I_j + V_j), in the order of their slopes
    best, candidate = 0, last
    for i in range(last - 1, -1, -1):
        age, share = ages[i], done[i]
        while candidate > i and ages[candidate] >= age + poll_interval_s:
            _push(lines, ages[candidate], areas[candidate] + costs[candidate])
            best = min(best, len(lines) - 1)  # what replaced the lowest line is the lowest
            candidate -= 1
        if not lines:
            continue
        best = _lowest(lines, share, best)
        nexts[i], level = lines[best]
        costs[i] += level - areas[i] - share * (nexts[i] - age)
    return tuple(nexts)


def _integral(ages: Sequence[float], done: Sequence[float]) -> list[float]:
    areas = [0.0]
    for i in range(1, len(ages)):
        areas.append(areas[-1] + (done[i - 1] + done[i]) / 2 * (ages[i] - ages[i - 1]))
    return areas


def _push(lines: list[tuple[float, float]], age: float, level: float) -> None:
    """Add the line `level - F * age`, flatter than all before, to the lower envelope."""
    while len(lines) >= 2:
        (age1, level1), (age2, level2) = lines[-2], lines[-1]
        # With F falling, the last line takes over from its neighbour; it is of no use if the new
        # one has taken over by then.
        if (level2 - level) * (age1 - age2) < (level1 - level2) * (age2 - age):
            break
        lines.pop()
    lines.append((age, level))


def _lowest(lines: list[tuple[float, float]], share: float, start: int) -> int:
    """Return which line is the lowest at F = *share*, being asked with F falling.

    The lowest one then only ever moves towards the flatter lines, from where it was: *start*.
    """
    while start + 1 < len(lines):
        (age1, level1), (age2, level2) = lines[start], lines[start + 1]
        if level1 - share * age1 <= level2 - share * age2:
            break
        start += 1
    return start
