"""The rules of an account's limits: what the provider has taught, and when a request may go out.

Pure: every door (of one run, of the runs of one machine, of a fleet) keeps the values and the time,
and none of them has a rule of its own.
"""

from __future__ import annotations

from dataclasses import replace

from batch.frozen import frozen

QUIET_S = 60.0
QUIET_MAX_S = 960.0
LATE_S = 0.05  # how late turns may come, of a busy event loop, without the next being later for it
SPREAD = 1.01  # shared turns are so much farther apart: what reaches the server is not that even
WINDOW_S = 1.0  # the shortest that a provider is expected to count requests in


@frozen
class Traffic:
    """What is known of an account's traffic; moments are by one clock, whichever.

    A refusal (1303) says what the provider takes: the *limit* falls to what was open at that moment.
    After a quiet while it rises by one, and only if it was really used (*is_probing*); if that is
    refused again, the while doubles. *refusals* are in a row, of the whole account.
    """

    limit: int
    quiet_s: float = QUIET_S
    raise_at: float = 0.0
    is_probing: bool = False
    due_at: float = 0.0
    paused_until: float = 0.0
    refusals: int = 0

    # -- slots

    def saturated(self, accepted: int, now: float) -> Traffic:
        """Return it after a task was refused while so many others were open."""
        limit, quiet_s = max(1, min(self.limit, accepted)), self.quiet_s
        if self.is_probing and max(1, accepted) >= self.limit - 1:
            quiet_s = min(quiet_s * 2, QUIET_MAX_S)
        raise_at = now + quiet_s
        return replace(self, limit=limit, quiet_s=quiet_s, raise_at=raise_at, is_probing=False)

    def risen(self, in_use: int, ceiling: int, now: float) -> Traffic:
        """Return it with one slot more where it is time; a job waits for one."""
        if now < self.raise_at or in_use < self.limit or self.limit >= ceiling:
            return self
        # Was the last rise used for a whole quiet while, and not refused?
        quiet_s = QUIET_S if self.is_probing else self.quiet_s
        raise_at = now + quiet_s
        limit = self.limit + 1
        return replace(self, limit=limit, quiet_s=quiet_s, raise_at=raise_at, is_probing=True)

    # -- requests

    def turn(self, interval_s: float, now: float, late_s: float = LATE_S) -> tuple[float, Traffic]:
        """Return when the next turn is due, and the traffic once it is taken."""
        due = max(due_now(self.due_at, now, late_s), self.paused_until)
        return due, replace(self, due_at=due + interval_s)

    def refused(
        self, now: float, *, wait_s: float, asked_s: float | None, accepted: int | None = None
    ) -> Traffic:
        """Return it after a request that surely created nothing.

        Args:
            now: the moment.
            wait_s: how long to wait by our own reckoning.
            asked_s: how long the provider wants silence, if it has said so.
            accepted: how many other tasks were open, where that was the reason.
        """
        is_first = now >= self.paused_until  # requests refused at the same time are one refusal
        refusals = self.refusals + is_first
        # Saturated once, the end of a task of ours frees a slot. Again, and nothing was taken in
        # between: others fill the account, and only time helps.
        is_held = accepted is None or (is_first and refusals > 1)
        until = now + max(wait_s if is_held else 0.0, asked_s or 0.0)
        after = replace(self, refusals=refusals, paused_until=max(self.paused_until, until))
        return after if accepted is None else after.saturated(accepted, now)

    def accepted(self) -> Traffic:
        """Return it after a request was taken."""
        return replace(self, refusals=0)


def due_now(due_at: float, now: float, late_s: float = LATE_S) -> float:
    """Return when the turn that may be taken now was due.

    Turns that come a little late do not lower the rate: those of *late_s* are made up for at once.
    That is all that a silence saves up.
    """
    return max(due_at, now - late_s)


def late_of_many(interval_s: float) -> float:
    """Return how late the turns of several runs may come, whose windows nobody guards together.

    It is what `SPREAD` leaves in a window, so that none sees more requests than the rate.
    """
    return min(LATE_S, (SPREAD - 1.0) * max(interval_s, WINDOW_S))
