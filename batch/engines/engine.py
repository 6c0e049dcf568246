"""What workers need of an engine: jobs are queued in our transaction, and each is delivered.

An engine may deliver a job twice, late, or to two workers at once: the claim sorts that out. It may not
lose one; what it loses all the same, `Fleet.astray` finds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Protocol

from batch.attempt import Account


class Fate(StrEnum):
    """How a delivery came out."""

    DONE = "done"  # there is nothing more to do for it
    BACK = "back"  # this worker cannot do it now: the queue has it again
    LOST = "lost"  # another worker has the job


Live = Callable[[str, str], Awaitable[Fate]]
"""Carries out one job of a run; both by their ids. Returns only when it is known how that came out."""


class Engine(Protocol):
    """Delivers jobs to workers."""

    def enqueue(
        self,
        transaction: Any,
        run_id: str,
        account: Account,
        jobs: Sequence[tuple[int, str]],
        look: int = 1,
    ) -> None:
        """Queue *jobs* (place and id), in the *transaction* that hands them over.

        Args:
            transaction: a connection to the database, within a transaction.
            run_id: the run.
            account: whose queue it is.
            jobs: the lowest place is delivered first.
            look: counts how often these jobs are handed over: the second time they were parked.
        """
        ...

    def working(
        self, rooms: Mapping[Account, int], live: Live
    ) -> AbstractAsyncContextManager[None]:
        """Have jobs of the accounts delivered to *live* while the block runs, so many at once.

        At its end what is under way is cancelled, and stays this worker's until it is taken over.
        """
        ...

    async def make_room(self, account: Account, room: int) -> None:
        """Have at least so many jobs of an account delivered at once."""
        ...

    def take_over(self, worker: str) -> None:
        """Queue again what a dead worker had; called while nobody else can. Blocks.

        What is queued again, here or below, is delivered to a worker without room, too.
        """
        ...

    async def take_over_unknown(self, known: Collection[str]) -> None:
        """Queue again what is with workers that are not *known*, or with this one without its knowledge.

        One that was taken for dead may wake up, be delivered a job, and die before anyone hears of it.
        A connection may break just when jobs are delivered over it.
        """
        ...

    async def deliver_again(self, run_id: str, account: Account, job_id: str) -> None:
        """Queue a job again, if its delivery has ended."""
        ...

    async def forget(self, run_id: str) -> None:
        """Remove what is kept of an ended run."""
        ...
