"""The one source of every number that is printed: what the attempts of a library come to.

A task is paid for once its id is known. An attempt without one that may have created a task is
*perhaps paid*; it counts apart, with its cost, and in no sum of tasks. What a run has created is the
difference between two states: nothing else is counted, so nothing can be counted otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeVar

from batch.attempt import Phase

T = TypeVar("T")
IN_DOUBT = frozenset({Phase.INTENDED, Phase.LOST, Phase.UNCONFIRMED})
_CENT_PARTS = 6  # digits behind the point that an estimate has


class Booked(Protocol):
    """What is counted of an attempt."""

    @property
    def external_task_id(self) -> str: ...
    @property
    def phase(self) -> Phase: ...
    @property
    def task_id(self) -> str | None: ...
    @property
    def cost_usd(self) -> float | None: ...


class Figures(NamedTuple):
    """What attempts come to; costs are estimates in USD.

    `tasks` is the sum of the next five: each task has succeeded (its video has landed here), failed
    at the provider, timed out, is open, or has a video that is still to be downloaded. *refused*
    requests created nothing.
    """

    tasks: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    open: int = 0
    to_download: int = 0
    cost_usd: float = 0.0
    refused: int = 0
    perhaps_paid: int = 0
    perhaps_usd: float = 0.0

    @property
    def to_collect(self) -> int:
        """How many tasks are paid for, and neither here nor failed: the next run collects them."""
        return self.timed_out + self.open + self.to_download


def figures(attempts: Iterable[Booked]) -> Figures:
    """Return what *attempts* come to."""
    tasks: Counter[Phase] = Counter()
    cost_usd = perhaps_usd = 0.0
    refused = perhaps_paid = 0
    for attempt in attempts:
        if attempt.task_id is not None:
            tasks[attempt.phase] += 1
            cost_usd += attempt.cost_usd or 0.0
        elif attempt.phase in IN_DOUBT:
            perhaps_paid += 1
            perhaps_usd += attempt.cost_usd or 0.0
        elif attempt.phase is Phase.FAILED:
            refused += 1
    return Figures(
        tasks=tasks.total(),
        succeeded=tasks[Phase.LANDED] + tasks[Phase.DISCARDED],
        failed=tasks[Phase.FAILED],
        timed_out=tasks[Phase.TIMED_OUT],
        open=tasks[Phase.OPEN],
        to_download=tasks[Phase.GENERATED],
        cost_usd=_usd(cost_usd),
        refused=refused,
        perhaps_paid=perhaps_paid,
        perhaps_usd=_usd(perhaps_usd),
    )


def charged_usd(attempts: Iterable[Booked]) -> float:
    """Return what *attempts* cost, those that are perhaps paid for included: budgets count them."""
    found = figures(attempts)
    return found.cost_usd + found.perhaps_usd


def flat(known: Mapping[str, Iterable[T]]) -> Iterable[T]:
    """Iterate over the attempts of all jobs."""
    return (attempt for attempts in known.values() for attempt in attempts)


class Spent(NamedTuple):
    """What one run has created: tasks and their cost, and the tasks of earlier runs that it found."""

    tasks: int = 0
    cost_usd: float = 0.0
    adopted: int = 0


class Books(NamedTuple):
    """A library when a run begins: its figures, and the attempts that may have created a task."""

    figures: Figures
    doubts: frozenset[str]

    @classmethod
    def open(cls, attempts: Iterable[Booked]) -> Books:
        """Return the books of a state."""
        found, doubts = _apart(attempts, _is_in_doubt)
        return cls(found, frozenset(item.external_task_id for item in doubts))

    def close(
        self, attempts: Iterable[Booked], sent: Collection[str], taken_over: Collection[str] = ()
    ) -> tuple[Spent, Figures]:
        """Return what the run has created, and what all attempts come to at its end.

        Args:
            attempts: those of its end.
            sent: the external ids that the run has sent again, of those that were in doubt.
            taken_over: those whose task an earlier run has created, also one that the state forgot.
        """

        def is_adopted(item: Booked) -> bool:
            name = item.external_task_id
            was_sent_before = name in self.doubts or name in taken_over
            return item.task_id is not None and was_sent_before and name not in sent

        after, adopted = _apart(attempts, is_adopted)
        found_usd = sum(item.cost_usd or 0.0 for item in adopted)
        spent = Spent(
            tasks=after.tasks - self.figures.tasks - len(adopted),
            cost_usd=_usd(after.cost_usd - self.figures.cost_usd - found_usd),
            adopted=len(adopted),
        )
        return spent, after


def _apart(
    attempts: Iterable[Booked], is_meant: Callable[[Booked], bool]
) -> tuple[Figures, list[Booked]]:
    """Return what *attempts* come to, and those that are meant. All pass by once: a million fit."""
    meant: list[Booked] = []

    def passing() -> Iterator[Booked]:
        for item in attempts:
            if is_meant(item):
                meant.append(item)
            yield item

    return figures(passing()), meant


def _is_in_doubt(attempt: Booked) -> bool:
    return attempt.task_id is None and attempt.phase in IN_DOUBT


def _usd(amount: float) -> float:
    return (
        round(amount, _CENT_PARTS) + 0.0
    )  # a difference that rounds to -0.0 is no less than nothing
