"""The time of the database: what all workers of a fleet go by."""

from __future__ import annotations

from batch.clock import Clock


class FleetClock:
    """A clock that is set at every beat, and runs by the machine's own in between.

    It may be late by as long as a beat takes to be answered, never early: how old an intent is must
    not be overrated.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.now() - clock.monotonic()

    def set(self, now: float) -> None:
        """Take over the database's time, which was just told."""
        self._offset = now - self._clock.monotonic()

    def now(self) -> float:
        return self._clock.monotonic() + self._offset

    def monotonic(self) -> float:
        return self._clock.monotonic()
