"""The only place that reads time; the only one that sleeps is `batch.waker`.

Tests run on an event loop whose time is virtual and hand in a clock that reads that loop.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The two times that a run needs. All values are seconds."""

    def now(self) -> float:
        """Wall-clock time, seconds since the epoch (UTC). May jump."""
        ...

    def monotonic(self) -> float:
        """A time that only grows, and that counts while the machine is asleep."""
        ...


class SystemClock:
    """The machine's clock."""

    def __init__(self) -> None:
        # CLOCK_MONOTONIC stands still while a laptop sleeps, and money rule 7 asks how old an
        # intent really is; CLOCK_BOOTTIME goes on. Where there is none, monotonic has to do.
        self._source: int | None = getattr(time, "CLOCK_BOOTTIME", None)

    def now(self) -> float:
        """Wall-clock time, seconds since the epoch (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since boot, sleep included where the system can tell."""
        return time.monotonic() if self._source is None else time.clock_gettime(self._source)
