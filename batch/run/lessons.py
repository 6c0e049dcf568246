"""What past tasks teach about when to poll the next one."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable

from batch.attempt import Attempt
from batch.output.state import GenerationTime
from batch.run import schedule


class Lessons:
    """Generation times by kind of task: learned in this run and in earlier ones.

    *times* are seconds by kind; *is_urgent* says whether a finished task would free a slot that a
    job waits for.
    """

    def __init__(
        self,
        times: dict[str, list[float]],
        poll_interval_s: float,
        dice: random.Random,
        *,
        is_urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        self._histories = {kind: schedule.History(seconds) for kind, seconds in times.items()}
        self._poll_interval_s = poll_interval_s
        self._dice = dice
        self._is_urgent = is_urgent

    def next_poll(self, attempt: Attempt, age_s: float) -> float:
        """Return seconds until the next poll of a task of this age."""
        return schedule.next_poll(
            age_s,
            poll_interval_s=self._poll_interval_s,
            history=self._histories.get(kind_of(attempt.request)),
            rng=self._dice,
            poll_cost=schedule.URGENT_POLL_COST if self._is_urgent() else schedule.POLL_COST,
        )

    def usual_s(self, request: str, share: float) -> float | None:
        """Return how long this share of the tasks of a request's kind took; None if none is known."""
        history = self._histories.get(kind_of(request))
        return history.quantile(share) if history else None

    def learn(self, attempt: Attempt, seconds: float) -> GenerationTime:
        """Take in how long a task took; used at once, and returned to be kept for later nights."""
        kind = kind_of(attempt.request)
        self._histories.setdefault(kind, schedule.History()).add(seconds)
        return GenerationTime(kind, seconds)


@functools.lru_cache(maxsize=10_000)
def kind_of(request: str) -> str:
    """Return what tasks of like generation times have in common: model, mode and duration."""
    body = json.loads(request)
    return "/".join(str(body.get(name, "")) for name in ("model_name", "mode", "duration"))
