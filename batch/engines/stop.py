"""A run's switch, shared by all workers, and how they are told."""

from __future__ import annotations

from collections.abc import Callable

from batch.engines.chores import Chores
from batch.events import Event
from batch.output.fleet import Fleet
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


class Stops:
    """The stops of a worker's runs that the fleet is to be told of."""

    def __init__(self, fleet: Fleet, chores: Chores) -> None:
        self._fleet = fleet
        self._chores = chores
        self._untold: dict[tuple[str, StopReason], str] = {}

    def of(self, run_id: str) -> Tell:
        """Return what has a run stopped everywhere that is stopped here."""

        def tell(reason: StopReason, sentence: str) -> None:
            self._untold[run_id, reason] = sentence
            self.begin_to_tell()

        return tell

    def begin_to_tell(self) -> None:
        """Tell what is untold, as a chore; what fails is told at a later beat."""
        self._chores.do(("tell",), self.tell)

    async def tell(self) -> None:
        """Tell what is untold."""
        while self._untold:
            (run_id, reason), sentence = next(iter(self._untold.items()))
            await self._fleet.stop(run_id, reason.value, sentence)
            self._untold.pop((run_id, reason), None)
