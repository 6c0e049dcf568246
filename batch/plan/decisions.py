"""A plan, and its decisions in the manifest's order: of a million jobs without needing them all at once.

A job that was never made needs no more than its place in the manifest; its decision is made whenever
it is asked for. All others are kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from batch.job import Job
from batch.plan.changes import Changed
from batch.plan.decision import Action, Decision, Move, Round

Price = Callable[[Job], tuple[float, bool]]
"""Estimates a job in USD, and tells whether the price is known."""


class Decisions:
    """A list of decisions; *jobs* and *price* are for those about jobs that were never made."""

    def __init__(
        self,
        decided: Iterable[Decision] = (),
        jobs: Sequence[Job] = (),
        price: Price = lambda _job: (0.0, True),
    ) -> None:
        self._jobs = jobs
        self._price = price
        self._parts: list[Decision | range] = []  # places in the manifest that follow each other
        self._begins = array("q")  # where each part does
        self._length = 0
        self.cost_usd = 0.0
        self.priced = self.guessed = 0  # how many have a price, and one that is not known
        for decision in decided:
            self.append(decision)

    def append(self, decision: Decision) -> None:
        """Add a decision."""
        self._add(decision, decision.cost_usd, price_known=decision.price_known)

    def append_new(self, place: int, job: Job) -> None:
        """Add the one about a job that was never made, at *place* in the manifest."""
        last = self._parts[-1] if self._parts else None
        cost_usd, price_known = self._price(job)
        if isinstance(last, range) and last.stop == place:
            self._parts[-1] = range(last.start, place + 1)
            self._count(cost_usd, price_known=price_known)
        else:
            self._add(range(place, place + 1), cost_usd, price_known=price_known)

    def _add(self, part: Decision | range, cost_usd: float | None, *, price_known: bool) -> None:
        self._parts.append(part)
        self._begins.append(self._length)
        self._count(cost_usd, price_known=price_known)

    def _count(self, cost_usd: float | None, *, price_known: bool) -> None:
        self._length += 1
        self.cost_usd += cost_usd or 0.0
        self.priced += cost_usd is not None
        self.guessed += not price_known

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Decision]:
        return (self[place] for place in range(self._length))

    def __getitem__(self, place: int) -> Decision:
        """Return one decision; quick for one after the other."""
        place = range(self._length)[place]
        number = bisect_right(self._begins, place) - 1
        part = self._parts[number]
        if isinstance(part, Decision):
            return part
        job = self._jobs[part[place - self._begins[number]]]
        cost_usd, price_known = self._price(job)
        return never_made(job, cost_usd, price_known=price_known)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def kept(self) -> Iterator[tuple[int, Decision]]:
        """Iterate over all but those about jobs that were never made, each with its place."""
        for place, part in zip(self._begins, self._parts, strict=True):
            if isinstance(part, Decision):
                yield place, part

    def fresh(self) -> Iterator[tuple[int, Action]]:
        """Iterate over the places and actions of those that begin with a payment."""
        for begin, part in zip(self._begins, self._parts, strict=True):
            if isinstance(part, range):
                yield from ((begin + each, Action.NEW) for each in range(len(part)))
            elif part.is_fresh:
                yield begin, part.action


def never_made(job: Job, cost_usd: float | None = None, *, price_known: bool = True) -> Decision:
    """Return the decision about a job that has no attempts."""
    return Decision(
        Action.NEW, job.id, "not made yet", job, cost_usd=cost_usd, price_known=price_known
    )


@dataclass(slots=True)
class Plan:
    """The decisions that need something done, in the manifest's order, and counts of all.

    *round* is what `--force` begins or goes on with; *unfinished* counts the jobs of a round that a
    run without `--force` leaves as they are. *pinned* are jobs that are up to date with a restored
    version. *changed* says what changed, where a person asked to see
    the plan.
    """

    decisions: Decisions = field(default_factory=Decisions)
    counts: Counter[Action] = field(default_factory=Counter)
    resting: list[Decision] = field(default_factory=list)
    orphans: list[Decision] = field(default_factory=list)
    moved: list[Decision] = field(default_factory=list)
    pinned: list[Decision] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    round: Round | None = None
    unfinished: int = 0
    changed: dict[str, Changed] = field(default_factory=dict)

    @property
    def cost_usd(self) -> float:
        """The estimate for everything that is to be paid."""
        return self.decisions.cost_usd

    @property
    def has_unknown_price(self) -> bool:
        """Whether some price is a guess (the dearest that is known)."""
        return self.decisions.guessed > 0
