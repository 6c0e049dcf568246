"""The budget of a run: estimates are set aside before anything is sent, and given back if nothing was made."""

from __future__ import annotations

from collections.abc import Callable

from batch import events
from batch.events import Event
from batch.run.stop import Stop, StopReason
from batch.run.tally import Tally

_DUST_USD = 1e-9  # what adding up cents in binary may be off by


class Budget:
    """What a run may spend, by estimate. Once it is used up, nothing more is submitted."""

    def __init__(
        self,
        limit_usd: float | None,
        *,
        tally: Tally,
        stop: Stop,
        notify: Callable[[Event], None],
    ) -> None:
        self._limit_usd = limit_usd
        self._tally = tally
        self._stop = stop
        self._notify = notify
        self._covered: set[str] = set()  # attempts whose estimate this run has set aside

    def reserve(self, cost_usd: float | None) -> bool:
        """Set an estimate aside; False, and the run stops submitting, when that is too much."""
        limit_usd, cost_usd = self._limit_usd, cost_usd or 0.0
        if limit_usd is not None and self._tally.cost_usd + cost_usd > limit_usd + _DUST_USD:
            sentence = (
                f"the budget of ${limit_usd:.2f} is used up (estimated so far:"
                f" ${self._tally.cost_usd:.2f}); run again to go on"
            )
            if self._stop.ask(StopReason.BUDGET, sentence):
                self._notify(events.Stopping(sentence))
            return False
        self._tally.cost_usd += cost_usd
        return True

    def cover(self, external_task_id: str) -> None:
        """Note that an attempt's estimate has been set aside: sent again, it costs nothing more."""
        self._covered.add(external_task_id)

    def covers(self, external_task_id: str, cost_usd: float | None) -> bool:
        """Tell whether an attempt may be sent again; sets its estimate aside if none was yet."""
        if external_task_id not in self._covered:
            if not self.reserve(cost_usd):
                return False
            self.cover(external_task_id)
        return True

    def refund(self, cost_usd: float | None) -> None:
        """Nothing was created: the estimate is free again."""
        self._tally.cost_usd -= cost_usd or 0.0
