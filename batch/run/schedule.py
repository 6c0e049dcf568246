"""When to poll a task next.

Polling often notices a finished task early and costs requests; polling rarely is the reverse. One
formula weighs them, in seconds:

    cost = polls * POLL_COST * typical generation time  +  seconds of lateness * worth

The worth of a second (`worth`) says what is delayed by it:

    worth = (SLOT_WORTH if jobs wait for a slot, else 1)
          + (RUN_WORTH / tasks open, if jobs wait for a slot or nothing more is to be submitted)

The first term is the task's own: late is one download, or a slot that stays empty. The second is the
run's end, which comes later by one in so many: of few open tasks each is polled as often as
poll_interval allows, of many open ones less, and where nothing waits for their ends yet, least. While
callbacks announce the ends, it is 1 / stretch**2: a poll only insures against a callback that is lost.

No polls notice an end earlier than poll_interval / 2 in the mean, unless the generation time is known
more closely than that. So of a full account's slots at most 1 / (1 + poll_interval / 2 / generation
time) are in use without callbacks: 98.2 % where poll_interval is 5 s and a generation takes 135 s.
Submissions that ask halfway between polls would save half of the rest, and nearly all be refused:
five or so for each video, where the account takes five tasks.

Given past generation times, `plan` finds the polls of the least expected cost exactly, by dynamic
programming (`batch.run.cheapest`): no poll before a task can be done, many where it probably is, few
in the tail of the distribution.

Without history, intervals grow with the age of the task: after *a* seconds the next poll comes
`GROWTH * a / sqrt(worth)` later, so that lateness stays a constant share of the time that the task
took. The first end that is seen is a history for all. So where there are many, the oldest are scouts for
the others: while none of those has ended at an age, hardly a younger one has.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence

from batch.frozen import frozen
from batch.run.cheapest import cheapest

POLL_COST = 0.028  # of the typical generation time: one poll is worth so much lateness
SLOT_WORTH = 9.0  # of a second of an empty slot, where there are many
RUN_WORTH = 256.0  # of a second of the whole run
GROWTH = 0.15  # of a task's age, where nothing is known
SCOUTS = 8  # tasks of one kind, the oldest that were seen open while none has ended
SCOUTED_GROWTH = 1.0  # likewise, of a task that has scouts: they may all be stuck

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


@frozen
class Plan:
    """When to poll tasks of one kind: after a poll in vain at `ages[i]` comes the one at `nexts[i]`.

    All in seconds since submission, `ages` ascending from 0. Beyond the last age nothing is planned.
    Polls are *poll_interval_s* apart at least.
    """

    ages: tuple[float, ...]
    nexts: tuple[float, ...]
    poll_interval_s: float

    def after(self, age_s: float) -> float | None:
        """Return the age of the next poll, or None beyond the plan."""
        if age_s >= self.ages[-1]:
            return None
        cell = bisect_right(self.ages, max(age_s, 0.0)) - 1
        soonest, due = age_s + self.poll_interval_s, self.nexts[cell]
        # Where the ages are closer than polls may be, the first one that is allowed stands for the
        # earliest poll that is.
        first = bisect_left(self.ages, self.ages[cell] + self.poll_interval_s)
        is_first = cell + 1 < first < len(self.ages) and due <= self.ages[first]
        return soonest if is_first else max(due, soonest)


class History:
    """The latest generation times of one kind of task, in seconds, oldest first. Bounded.

    One kind: the same model, mode and duration. Invalid values are ignored, so that neither a strange
    answer nor an old state file can spoil it.
    """

    __slots__ = ("_fresh", "_plans", "_samples")

    def __init__(self, samples: Iterable[object] = ()) -> None:
        self._samples: deque[float] = deque(maxlen=MAX_SAMPLES)
        self._plans: dict[tuple[float, float], Plan] = {}
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

    def plan(self, *, poll_interval_s: float, worth: float = 1.0) -> Plan:
        """Return the plan for what is known; computed again when that has grown by an eighth."""
        if self._fresh * _REPLAN >= len(self._samples) and self._fresh > 0:
            self._plans, self._fresh = {}, 0
        key = (poll_interval_s, worth)
        found = self._plans.get(key)
        if found is None:
            found = plan(self._samples, poll_interval_s=poll_interval_s, worth=worth)
            self._plans[key] = found
        return found


def worth(watched: int, *, is_waited_for: bool, is_tail: bool, stretch: float = 1.0) -> float:
    """Return what a second of lateness is worth, by the formula above; a power of 2.

    It is rounded so that tasks have few different plans.

    Args:
        watched: how many tasks are open.
        is_waited_for: whether a job waits for a slot.
        is_tail: whether nothing more is to be submitted.
        stretch: how many times longer to wait, since callbacks announce the ends.
    """
    if stretch > 1.0:
        return stretch**-2
    second = SLOT_WORTH if is_waited_for else 1.0
    if is_waited_for or is_tail:
        second += RUN_WORTH / max(watched, 1)
    return 2.0 ** round(math.log2(second))


def next_poll(
    age_s: float,
    *,
    poll_interval_s: float,
    history: History | None,
    rng: random.Random,
    worth: float = 1.0,
    scouted_s: float | None = None,
) -> float:
    """Return seconds until the next poll of a task that was submitted *age_s* ago.

    Never less than *poll_interval_s*. Without history, the first poll comes after just that, later
    ones at intervals that grow with the age. Jitter only ever adds: a crowd that was submitted at
    once does not come back at once.

    Args:
        age_s: the task's age.
        poll_interval_s: the least that is returned.
        history: the generation times of its kind.
        rng: decides the jitter.
        worth: of a second of lateness.
        scouted_s: the age at which all its scouts were seen open, if it has any.
    """
    age_s = max(age_s, 0.0)
    due_s = None
    if history:
        due_s = history.plan(poll_interval_s=poll_interval_s, worth=worth).after(age_s)
    if due_s is not None:
        wait_s = due_s - age_s
        return wait_s + rng.random() * _FINE_JITTER * wait_s
    if age_s < poll_interval_s:  # not polled yet
        return poll_interval_s
    growth = GROWTH if scouted_s is None else SCOUTED_GROWTH
    wait_s = max(poll_interval_s, growth / math.sqrt(worth) * age_s)
    return max(wait_s + rng.random() * _JITTER * wait_s, (scouted_s or 0.0) - age_s)


def plan(samples: Sequence[float], *, poll_interval_s: float, worth: float = 1.0) -> Plan:
    """Plan the polls of a task whose generation time is like *samples* (seconds, oldest first).

    The more a second of lateness is worth, the less of it and the more polls. Pure; about half a
    millisecond.
    """
    bumps, spread = _bumps(samples)
    median = math.exp(bumps[len(bumps) // 2])
    axis = _axis(bumps, spread)
    ages = (0.0, *map(math.exp, axis))
    done = [0.0, *_done_by(axis, bumps, spread, surprise=1 / (len(samples) + 2))]
    nexts = cheapest(ages, done, POLL_COST / worth * median, poll_interval_s)
    return Plan(ages, nexts, poll_interval_s)


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
