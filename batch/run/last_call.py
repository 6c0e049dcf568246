"""The deadline, and the last call before it: what would not be collected in time is not submitted.

    begin ──────────── submitting ──────────── last call ── typical task ── reserve ── deadline

Each kind of task has a last call of its own, by what earlier tasks of that kind took (`Lessons`). A
kind without history has none: it is submitted until the deadline.
"""

from __future__ import annotations

import math

from batch.clock import Clock
from batch.run.lessons import Lessons

RESERVE_S = 120.0  # for the answer, the last poll and the download
SHARE = 0.9  # of the tasks of a kind take no longer than is reckoned with


class LastCall:
    """Tells what may still be submitted by a run that begins now and has *left_s* until its deadline.

    *deadline* is a time of `Clock.monotonic`; None without one. *has_refused*: it has kept a job from
    being submitted.
    """

    def __init__(self, left_s: float | None, lessons: Lessons, clock: Clock) -> None:
        self._left_s = left_s
        self._lessons = lessons
        self._clock = clock
        self.deadline = None if left_s is None else clock.monotonic() + left_s
        self.has_refused = False
        self._longest_s = 0.0

    def has_passed(self, request: str) -> bool:
        """Return whether it is too late to submit a request (canonical JSON)."""
        return self._clock.monotonic() > self._at(request)

    def refuses(self, request: str) -> bool:
        """Return whether it is too late for a job, which then is left."""
        if not self.has_passed(request):
            return False
        self.has_refused = True
        self._longest_s = max(self._longest_s, self._takes_s(request) or 0.0)
        return True

    @property
    def sentence(self) -> str:
        """Why jobs are left."""
        takes = (
            f"a task takes up to {_told(self._longest_s)}, and {_told(RESERVE_S)} are in reserve"
        )
        if self._left_s is not None and self._left_s < self._longest_s + RESERVE_S:
            return f"the deadline leaves no time to submit anything: {takes}; set a later one"
        return (
            "what would not be finished by the deadline is no longer submitted:"
            f" {takes}; run again to go on"
        )

    @property
    def is_over(self) -> str:
        """That the deadline is reached, in a sentence that says which: 5 may have meant hours."""
        return f"the deadline is reached, {_told(self._left_s or 0.0)} after the start"

    def _at(self, request: str) -> float:
        takes_s = self._takes_s(request)
        if self.deadline is None or takes_s is None:
            return math.inf
        return self.deadline - takes_s - RESERVE_S

    def _takes_s(self, request: str) -> float | None:
        return self._lessons.usual_s(request, SHARE)


def _told(seconds: float) -> str:
    if seconds < RESERVE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"
