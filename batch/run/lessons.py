"""What past tasks teach about when to poll the next one."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batch.attempt import Attempt
from batch.output.state import GenerationTime
from batch.run import schedule
from batch.waker import Waker

REPLANNED_AT = frozenset({1, 2, 4, 8, 16, 32, 64})  # tasks open at the tail


class Lessons:
    """Generation times by kind of task: learned in this run and in earlier ones.

    *times* are seconds by kind; *is_waited_for* says whether a job waits for a slot.

    *watched* counts the tasks that are polled, and *is_tail* is set once nothing more is to be
    submitted: they say what lateness costs. *changed* wakes those that wait for their next poll when
    that may now come earlier.
    """

    def __init__(
        self,
        times: dict[str, list[float]],
        poll_interval_s: float,
        dice: random.Random,
        *,
        is_waited_for: Callable[[], bool] = lambda: False,
    ) -> None:
        self._histories = {kind: schedule.History(seconds) for kind, seconds in times.items()}
        self._scouts: dict[str, dict[str, float]] = {}  # ages by task, of kinds without history
        self._poll_interval_s = poll_interval_s
        self._dice = dice
        self._is_waited_for = is_waited_for
        self._watched = 0
        self._is_tail = False
        self.changed = Waker()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count a task as polled while the block runs."""
        self._watched += 1
        try:
            yield
        finally:
            self._watched -= 1
            if self._is_tail and self._watched in REPLANNED_AT:
                self._replan()

    def begin_tail(self) -> None:
        """Record that nothing more is to be submitted."""
        self._is_tail = True
        if 0 < self._watched <= max(REPLANNED_AT):
            self._replan()

    def _replan(self) -> None:
        self.changed.set()
        self.changed.clear()

    def next_poll(self, attempt: Attempt, age_s: float, stretch: float = 1.0) -> float:
        """Return seconds until the next poll of a task of this age.

        With a *stretch* above 1, callbacks are trusted to announce the end.
        """
        return schedule.next_poll(
            age_s,
            poll_interval_s=self._poll_interval_s,
            history=self._histories.get(kind_of(attempt.request)),
            rng=self._dice,
            scouted_s=self._scouted_s(attempt),
            worth=schedule.worth(
                self._watched,
                is_waited_for=self._is_waited_for(),
                is_tail=self._is_tail,
                stretch=stretch,
            ),
        )

    def _scouted_s(self, attempt: Attempt) -> float | None:
        """Return the age at which all scouts of a task were seen open; None if it has none."""
        ages = self._scouts.get(kind_of(attempt.request), {})
        if len(ages) < schedule.SCOUTS or attempt.external_task_id in ages:
            return None
        return min(ages.values())

    def saw_open(self, attempt: Attempt, age_s: float) -> None:
        """Take in that a task has not ended at this age. The oldest of a kind are its scouts."""
        kind = kind_of(attempt.request)
        if kind in self._histories:
            return
        ages = self._scouts.setdefault(kind, {})
        ages[attempt.external_task_id] = age_s
        if len(ages) > schedule.SCOUTS:
            del ages[min(ages, key=ages.__getitem__)]

    def usual_s(self, request: str, share: float) -> float | None:
        """Return how long this share of the tasks of a request's kind took; None if none is known."""
        history = self._histories.get(kind_of(request))
        return history.quantile(share) if history else None

    def learn(self, attempt: Attempt, seconds: float) -> GenerationTime:
        """Take in how long a task took; used at once, and returned to be kept for later nights."""
        kind = kind_of(attempt.request)
        history = self._histories.setdefault(kind, schedule.History())
        history.add(seconds)
        if len(history) == 1:  # until now, their polls knew nothing
            self._scouts.pop(kind, None)
            self._replan()
        return GenerationTime(kind, seconds)


@functools.lru_cache(maxsize=10_000)
def kind_of(request: str) -> str:
    """Return what tasks of like generation times have in common: model, mode and duration."""
    body = json.loads(request)
    return "/".join(str(body.get(name, "")) for name in ("model_name", "mode", "duration"))
