"""What the workers of a fleet share beside the state: runs, their jobs, and whose each job is now.

A run on many machines is planned by one process, which hands its jobs over; workers execute them. A
job belongs to the worker that has claimed it last, and every commit names the claim that it is made
under: a worker that was taken for dead, and wakes up, commits nothing any more (`ClaimLostError`).
All times are the database's, in seconds since the epoch: the clocks of two machines may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from batch.attempt import Account
from batch.frozen import frozen
from batch.plan import Known

BEAT_S = 5.0  # how often a worker says that it is alive
DEAD_AFTER_S = 30.0  # without a beat, by the database's clock


class JobState(StrEnum):
    """How far a job of a run is."""

    TODO = "todo"  # handed over; a worker has claimed it, or will
    DONE = "done"
    LEFT = "left"  # to the next run
    PARKED = "parked"  # unconfirmed; looked at once more when the others are done
    BUG = "bug"


class Work(NamedTuple):
    """A job of a run as it is handed over: its place in the manifest, and what is to be done, as JSON."""

    order: int
    job_id: str
    work: str


@frozen
class OpenRun:
    """A run that has been handed over and has not ended.

    *root* is the output folder; *terms* the limits and what the person asked for, as JSON;
    *stop* the reason and the sentence with which it was stopped, if it was.
    """

    run_id: str
    library: str
    root: str
    account: Account
    terms: str
    began_at: float
    deadline_at: float | None = None
    budget_usd: float | None = None
    stop: tuple[str, str] | None = None


@frozen
class Claim:
    """One worker's right to a job. *token* grows with every claim of the library's job, in all runs."""

    library: str
    run_id: str
    job_id: str
    token: int


CLAIM: ContextVar[Claim | None] = ContextVar("claim", default=None)
"""The claim under which this task commits; None for the process that plans, which holds the lock."""


@frozen
class Assignment:
    """A claimed job.

    *has_begun*: an attempt of the job was changed in this run, so that what was planned no longer
    stands, and it is to be decided anew from *known*, its attempts in their order. *sent* are the
    attempts that this run may have paid for. *is_second_look*: it was parked. *takeovers* counts the
    workers that died over it.
    """

    claim: Claim
    work: Work
    has_begun: bool = False
    known: tuple[Known, ...] = ()  # where it has begun, or was parked
    sent: frozenset[str] = frozenset()
    is_second_look: bool = False
    takeovers: int = 0


@frozen
class Pulse:
    """What a worker learns at its beat.

    *now* is the database's time; *stops* are reason and sentence of the stopped runs, by run; *dead*
    the workers that this one is to take over; *settled* runs of which no job is to be done any more.
    """

    now: float
    stops: Mapping[str, tuple[str, str]]
    dead: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()


@frozen
class Progress:
    """How far a run is: the living workers that have its key, and how it was stopped or ended, if it was.

    *is_held*: something is to be done in it; where it is left to the next run, by a living worker.
    """

    workers: int
    stop: tuple[str, str] | None = None
    exit_code: int | None = None
    is_held: bool = True


@frozen
class Outcome:
    """What a settled run has come to.

    *left* are the jobs that are left to the next run, *bugs* those that a bug has ended; *rows* are the
    run's lines of results.jsonl, of what was made in short; *sent* are the attempts that it may have
    paid for.
    """

    left: tuple[Work, ...] = ()
    bugs: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    sent: frozenset[str] = frozenset()


class Fleet(Protocol):
    """The shared records. Every call may be repeated: one whose answer was lost is made again.

    What is called back (*enqueue*, *resume*) may block: it runs in a thread, within the transaction that
    it belongs to. *enqueue* gets the connection of that transaction, which is synchronous.
    """

    async def hand_over(
        self, run: OpenRun, jobs: Sequence[Work], enqueue: Callable[[Any], None]
    ) -> None:
        """Record a begun run's terms and jobs, and *enqueue* them.

        What the provider refused of the account before is forgotten, and so are the jobs of the
        library's ended runs.
        """
        ...

    async def run_of(self, run_id: str) -> OpenRun | None:
        """Return a run that has not ended."""
        ...

    async def claim(self, run_id: str, job_id: str, worker: str) -> Assignment | None:
        """Claim a job for *worker*; None when it is no longer to be done, or its run has ended.

        A worker that has not beaten yet, or was buried since, counts as alive from now on.
        """
        ...

    async def settle(self, claim: Claim, state: JobState) -> None:
        """Record how a claimed job came out.

        Raises:
            ClaimLostError: another worker has claimed it since.
        """
        ...

    async def name(self, claim: Claim, external_task_id: str) -> bool:
        """Take an external id for a claimed job; False when another job of the run has it."""
        ...

    async def stop(self, run_id: str, reason: str, sentence: str) -> None:
        """Stop a run on all workers; a worse reason takes the place of a milder one.

        An account that is refused stops all its open runs.
        """
        ...

    async def beat(self, worker: str, accounts: Sequence[Account]) -> Pulse:
        """Record that *worker*, which has the keys of *accounts*, is alive."""
        ...

    async def bury(self, worker: str, resume: Callable[[], None]) -> bool:
        """Have the jobs of a dead worker *resumed*, unless it is alive, or another one does it."""
        ...

    async def leave(self, worker: str) -> None:
        """Record that *worker* ends: its jobs are taken over at once."""
        ...

    async def look_again(self, run_id: str, enqueue: Callable[[Any, Sequence[Work]], None]) -> int:
        """Hand the parked jobs of a settled run over once more.

        In their order, and each only once: one that is parked again stays so.

        Returns:
            How many jobs are to be done now, also where another worker has just handed them over;
            with none, nothing will be done in this run any more, and it can be ended.
        """
        ...

    async def outcome(self, run_id: str) -> Outcome:
        """Return what a run has come to, as far as it is settled; jobs to be done count as left."""
        ...

    async def end(self, run_id: str, exit_code: int, summary: str) -> bool:
        """End a settled run; False when it has ended already."""
        ...

    async def progress(self, run_id: str) -> Progress | None:
        """Return how far a run is; None if it is not known: a failover may have forgotten it.

        A run whose deadline has passed is stopped by this, too: no worker may be alive to do it.
        """
        ...

    async def is_taken_up(self, run_id: str) -> bool:
        """Return whether a worker has claimed a job of a run, however that came out."""
        ...

    async def workers(self) -> frozenset[str]:
        """Return the workers that are known: alive, or dead and not taken over yet."""
        ...

    async def astray(self, worker: str) -> list[tuple[str, str]]:
        """Return run and job of what is to be done, was claimed, and has no other living worker.

        Those that *worker* has claimed itself are among them: it knows which of them it is at.
        """
        ...
