"""The budget of a run: estimates are set aside before a request, and given back if it made nothing."""

from __future__ import annotations

from batch.run.stop import Stop, StopReason

DUST_USD = 1e-9  # what adding up cents in binary may be off by


class Budget:
    """What a run may spend, by estimate. What it does not cover is left to the next run."""

    def __init__(self, limit_usd: float | None, stop: Stop) -> None:
        self._limit_usd = limit_usd
        self._stop = stop
        self._covered: set[str] = set()  # attempts whose estimate this run has set aside
        self.spent_usd = 0.0

    def reserve(self, cost_usd: float | None) -> bool:
        """Set an estimate aside; False when that is too much, and then the run stops for it."""
        limit_usd, cost_usd = self._limit_usd, cost_usd or 0.0
        if limit_usd is not None and self.spent_usd + cost_usd > limit_usd + DUST_USD:
            self._stop.ask(
                StopReason.BUDGET,
                f"the budget of ${limit_usd:.2f} is used up (estimated so far:"
                f" ${self.spent_usd:.2f}); run again to go on",
            )
            return False
        self.spent_usd += cost_usd
        return True

    def cover(self, external_task_id: str) -> None:
        """Record that an attempt's estimate is set aside: sent again, it costs nothing more."""
        self._covered.add(external_task_id)

    def covers(self, external_task_id: str, cost_usd: float | None) -> bool:
        """Return whether an attempt may be sent again; sets its estimate aside if none was yet."""
        if external_task_id not in self._covered:
            if not self.reserve(cost_usd):
                return False
            self.cover(external_task_id)
        return True

    def refund(self, cost_usd: float | None) -> None:
        """Give an estimate back: nothing was created."""
        self.spent_usd -= cost_usd or 0.0
