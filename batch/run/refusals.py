"""When requests were refused for the moment (429, 1303, no connection): for the picture of a run."""

from __future__ import annotations

from collections import Counter

from batch import events
from batch.clock import Clock
from batch.events import Event
from batch.job import Failure

MOST = 240  # marks; above, neighbours become one

Mark = tuple[int, str, int]
"""Seconds since the beginning of the run, code, and how many requests."""


class Refusals:
    """An observer that counts them by time and code; the longer the run, the coarser the time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun = clock.monotonic()
        self._width_s = 1
        self._counts: Counter[tuple[int, str]] = Counter()

    def notify(self, event: Event) -> None:
        """Count *event* if it is a refusal."""
        if not isinstance(event, events.Delayed):
            return
        slot = int((self._clock.monotonic() - self._begun) // self._width_s)
        self._counts[slot, _code(event.failure)] += 1
        while len(self._counts) > MOST:
            self._width_s *= 2
            before, self._counts = self._counts, Counter()
            for (at, code), count in before.items():
                self._counts[at // 2, code] += count

    @property
    def marks(self) -> list[Mark]:
        """What was counted, in the order of time."""
        found = sorted(self._counts.items())
        return [(at * self._width_s, code, count) for (at, code), count in found]


def _code(failure: Failure) -> str:
    if failure.code is not None or failure.http_status is not None:
        return str(failure.code or failure.http_status)
    return "no connection"
