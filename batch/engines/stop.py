"""A run's switch, shared by all workers."""

from __future__ import annotations

from collections.abc import Callable

from batch.events import Event
from batch.run.stop import LEAVES, Stop, StopReason

Tell = Callable[[StopReason, str], None]


class SharedStop(Stop):
    """The switch of a run on one worker: what is asked here, *tell* tells all others.

    *leaves_run*: open tasks are left to the next run, not only by this worker.
    """

    def __init__(self, notify: Callable[[Event], None], tell: Tell) -> None:
        super().__init__(notify)
        self._tell = tell
        self._known: set[StopReason] = set()
        self.leaves_run = False

    def ask(self, reason: StopReason, sentence: str) -> None:
        is_news = reason not in self._known
        self.hear(reason, sentence)
        if is_news:
            self._tell(reason, sentence)

    def hear(self, reason: StopReason, sentence: str) -> None:
        """Stop as another worker or a person has asked for."""
        self._known.add(reason)
        self.leaves_run = self.leaves_run or reason in LEAVES
        super().ask(reason, sentence)

    def end_here(self) -> None:
        """Have this worker's jobs stop where they are: another worker goes on with them."""
        self.feeding.set()
        self.leaving.set()
