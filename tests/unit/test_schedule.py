"""When to look at a task next: the promises, and that looking pays."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch.run.cheapest import cheapest, integral
from batch.run.schedule import MAX_SAMPLES, History, Plan, next_poll, plan, worth

MEDIAN_S = 135.0


def times(
    count: int, *, spread: float = 0.25, median_s: float = MEDIAN_S, seed: int = 1
) -> list[float]:
    dice = random.Random(seed)
    return [dice.lognormvariate(math.log(median_s), spread) for _ in range(count)]


def night(count: int, **how: Any) -> History:
    return History(times(count, **how))


def polls_of(plan: Plan) -> list[float]:
    """Return the ages at which a task that is never done is polled."""
    polls: list[float] = []
    age = plan.after(0.0)
    while age is not None:
        polls.append(age)
        age = plan.after(age)
    return polls


def watch(took_s: float, history: History | None, dice: random.Random) -> tuple[int, float]:
    """Return the looks that one task takes, and how late its end is seen."""
    age, looks = 0.0, 0
    while age < took_s:
        age += next_poll(age, poll_interval_s=5.0, history=history, rng=dice)
        looks += 1
    return looks, age - took_s


def test_without_history_the_poll_interval_comes_first() -> None:
    """That is what the manifest promises; an empty history is none."""
    for history in (None, History()):
        dice = random.Random(1)
        assert next_poll(0.0, poll_interval_s=5.0, history=history, rng=dice) == 5.0


def test_without_history_intervals_grow_with_the_age() -> None:
    """A seventh of the age, jittered upwards only."""
    dice = random.Random(1)
    waits = [next_poll(1000.0, poll_interval_s=5.0, history=None, rng=dice) for _ in range(500)]
    assert 150.0 <= min(waits) < 151.0
    assert 171.0 < max(waits) <= 172.5
    assert next_poll(10.0, poll_interval_s=5.0, history=None, rng=dice) >= 5.0


@given(
    st.floats(0, 1e6),
    st.floats(0.01, 600),
    st.lists(st.floats(0.01, 1e5), max_size=40),
    st.floats(0.0001, 2.0),
    st.integers(0, 2**32),
)
def test_every_wait_is_at_least_the_interval(
    age_s: float, poll_interval_s: float, samples: list[float], worth_of_late: float, seed: int
) -> None:
    """Whatever was learned; and the next look is always some time."""
    wait = next_poll(
        age_s,
        poll_interval_s=poll_interval_s,
        history=History(samples),
        rng=random.Random(seed),
        worth=worth_of_late,
    )
    assert poll_interval_s <= wait < math.inf


def test_looks_are_where_tasks_end() -> None:
    """Hardly any before a task can be done, most around the median, few in the tail."""
    looks = polls_of(plan(times(100), poll_interval_s=1.0))
    shares = [look / MEDIAN_S for look in looks]
    assert sum(share < 0.5 for share in shares) <= 1
    assert sum(0.6 <= share <= 1.6 for share in shares) >= 5
    widths = [after - before for before, after in itertools.pairwise(shares)]
    assert min(widths) < 0.15
    assert widths[-1] > 4 * min(widths)


def test_learned_looks_beat_a_fixed_interval() -> None:
    """The goal of the design: a tenth of the median late, for 0.6 of the requests."""
    dice = random.Random(7)
    tasks = [dice.lognormvariate(math.log(MEDIAN_S), 0.25) for _ in range(4_000)]
    history = night(50)
    watched = [watch(took_s, history, dice) for took_s in tasks]
    looks = sum(looks for looks, _ in watched) / len(watched)
    late_s = sum(late_s for _, late_s in watched) / len(watched)
    assert late_s <= 0.10 * MEDIAN_S
    interval = 2 * late_s  # a fixed interval is half of itself late
    fixed = sum(math.ceil(took_s / interval) for took_s in tasks) / len(tasks)
    assert looks <= 0.6 * fixed


def test_the_knob_trades_lateness_for_requests() -> None:
    """The more lateness costs, the more polls."""
    samples = times(50)
    counts = [
        len(polls_of(plan(samples, poll_interval_s=1.0, worth=late)))
        for late in (32.0, 4.0, 0.25, 0.03)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[2]


@given(
    st.lists(st.tuples(st.floats(0.5, 20), st.floats(0, 1)), min_size=2, max_size=40),
    st.floats(0.01, 30),
    st.floats(0.1, 40),
)
@example([(2.0, 0.0), (1.0, 1.0), (1.0, 0.0), (3.0, 0.25), (2.0, 1.0)], 1.0, 2.0)
def test_the_cheapest_looks_equal_an_exhaustive_search(
    cells: list[tuple[float, float]], price_s: float, poll_interval_s: float
) -> None:
    """The quick search against one that compares every pair of looks, for any distribution."""
    ages = [0.0, *itertools.accumulate(width for width, _ in cells)]
    total = sum(weight for _, weight in cells) or 1.0
    done = [0.0, *(sum_ / total for sum_ in itertools.accumulate(weight for _, weight in cells))]
    nexts = cheapest(ages, done, price_s, poll_interval_s)
    areas = integral(ages, done)

    def cost_of(i: int, j: int) -> float:
        late_s = areas[j] - areas[i] - done[i] * (ages[j] - ages[i])
        return price_s * (1 - done[i]) + late_s

    least = [price_s * (1 - share) for share in done]
    found = list(least)
    for i in range(len(ages) - 2, -1, -1):
        allowed = [j for j in range(i + 1, len(ages)) if ages[j] >= ages[i] + poll_interval_s]
        if not allowed:
            assert nexts[i] == ages[i] + poll_interval_s
            continue
        least[i] = min(cost_of(i, j) + least[j] for j in allowed)
        chosen = ages.index(nexts[i])
        assert chosen in allowed
        found[i] = cost_of(i, chosen) + found[chosen]
    assert found == pytest.approx(least, rel=1e-6, abs=1e-6)


def test_what_a_run_teaches_is_used_at_once() -> None:
    """One task of an unknown kind is enough for a first plan; many change an old one."""
    dice = random.Random(1)
    history = History([200.0])
    assert next_poll(0.0, poll_interval_s=5.0, history=history, rng=dice) > 50.0
    history = night(100)
    before = history.plan(poll_interval_s=5.0)
    for _ in range(60):
        history.add(3 * MEDIAN_S)
    after = history.plan(poll_interval_s=5.0)
    assert polls_of(after)[0] > polls_of(before)[0]


def test_a_plan_is_kept_until_enough_is_new() -> None:
    """Ten thousand tasks in flight ask one plan."""
    history = night(100)
    first = history.plan(poll_interval_s=5.0)
    history.add(MEDIAN_S)
    assert history.plan(poll_interval_s=5.0) is first
    assert history.plan(poll_interval_s=6.0) is not first


def test_a_thousand_tasks_make_few_plans() -> None:
    """Each costs half a millisecond, on the loop that also downloads."""
    history, plans = History(), []
    for took_s in itertools.islice(itertools.cycle(times(200)), 1000):
        history.add(took_s)
        plan_now = history.plan(poll_interval_s=5.0)
        if not plans or plans[-1] is not plan_now:
            plans.append(plan_now)
    assert 20 < len(plans) < 70


def test_a_history_is_bounded_and_forgets_the_oldest() -> None:
    """A year of nights is no larger than one."""
    history = History(range(1, 1001))
    assert len(history) == MAX_SAMPLES
    assert history.quantile(1.0) == 1000.0
    assert history.quantile(0.0) == 1001.0 - MAX_SAMPLES


def test_rubbish_teaches_nothing() -> None:
    """A strange answer or an old state file must not spoil the schedule."""
    rubbish = [0, -1.0, math.nan, math.inf, 1e9, "135", None, True, [], 10**400]
    assert len(History(rubbish)) == 0
    assert len(History([*rubbish, 135])) == 1


@given(st.lists(st.floats(1e-3, 6e5), min_size=1, max_size=60), st.floats(0.05, 100))
def test_every_plan_ends(samples: list[float], poll_interval_s: float) -> None:
    """However odd the samples: looks ascend, are far enough apart, and come to an end."""
    looks = polls_of(plan(samples, poll_interval_s=poll_interval_s))
    assert looks
    assert len(looks) <= 300
    gaps = [after - before for before, after in itertools.pairwise([0.0, *looks])]
    assert min(gaps) >= poll_interval_s * (1 - 1e-9)


def test_empty_slot_costs_more_among_few() -> None:
    """One of many that is wanted delays the jobs behind it; one of few delays the run."""
    waited = [worth(count, is_waited_for=True, is_tail=False) for count in (10_000, 100, 20, 5, 1)]
    assert waited == [8.0, 16.0, 16.0, 64.0, 256.0]
    assert worth(5, is_waited_for=False, is_tail=False) == 1.0


def test_lateness_costs_more_as_tail_shrinks() -> None:
    """The last ends are the run's own end; of many open tasks one more or less is not."""
    tail = [worth(count, is_waited_for=False, is_tail=True) for count in (1_000, 64, 8, 1)]
    assert tail == [1.0, 4.0, 32.0, 256.0]


def test_trusted_callbacks_make_polls_insurance() -> None:
    """Even at the tail: the callback brings the end at once."""
    assert worth(1, is_waited_for=True, is_tail=True, stretch=4.0) == 1 / 16


def test_last_task_is_polled_at_every_interval() -> None:
    """Where it is likely to end."""
    late = worth(1, is_waited_for=False, is_tail=True)
    polls = polls_of(plan(times(50), poll_interval_s=5.0, worth=late))
    near = [after - before for before, after in itertools.pairwise(polls) if 110 < before < 160]
    assert near
    assert max(near) == pytest.approx(5.0)


def test_task_with_scouts_is_polled_less() -> None:
    """They teach it when it may end; but they may all be stuck."""
    dice = random.Random(1)

    def wait_s(age_s: float, scouted_s: float | None) -> float:
        return next_poll(age_s, poll_interval_s=5.0, history=None, rng=dice, scouted_s=scouted_s)

    assert wait_s(100.0, None) < 17.3
    assert 100.0 <= wait_s(100.0, 60.0) <= 115.0
    assert wait_s(10.0, 90.0) == 80.0
    assert (wait_s(0.0, 3.0), wait_s(0.0, 90.0)) == (5.0, 5.0)
