"""What a plan is made of: what is known of each attempt, what a person asked for, and the decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import time
from enum import StrEnum
from typing import NamedTuple

from batch.attempt import Phase
from batch.days import MIDNIGHT
from batch.frozen import frozen
from batch.job import Job
from batch.plan.select import Selection


class Action(StrEnum):
    """What a run does with a job."""

    __hash__ = str.__hash__  # that of an Enum is a call in Python

    NEW = "new"  # never submitted: pay
    CHANGED = "changed"  # submitted with other options before: pay
    RETRY = "retry"  # failed, and a new attempt may heal it: pay
    MOVED = "moved"  # its request is known under another id: taken over, free
    FORCED = "forced"  # up to date, regenerated on request: pay
    RESUME = "resume"  # a task is (or may be) there: ask for it
    RESUBMIT = "resubmit"  # unconfirmed, and sent again on request: may pay again
    FETCH = "fetch"  # the video is made and paid for, the file is not here
    UNCHANGED = "unchanged"  # nothing to do
    RESTING = "resting"  # failed, and only the person can heal it
    ORPHANED = "orphaned"  # known here, no longer in the manifest


PAYING = frozenset({Action.NEW, Action.CHANGED, Action.RETRY, Action.FORCED})
COSTING = PAYING | {Action.RESUBMIT}


class Known(NamedTuple):
    """What a plan needs to know of an attempt; a hundred thousand of them fit into memory.

    *generated_at* is known of one whose video was discarded. *pinned_for* is the fingerprint for which
    a restored version stands, *version_at* when that landed first. *sent_at* is that of the attempt.
    """

    external_task_id: str
    job_id: str
    number: int
    fingerprint: str
    phase: Phase
    task_id: str | None
    failure_kind: str | None
    file: str | None
    bytes: int | None
    cost_usd: float | None
    landed_at: float | None
    failure_message: str | None = None
    is_unexplained: bool = False
    failed_at: float | None = None
    generated_at: float | None = None
    pinned_for: str | None = None
    version_at: float | None = None
    sent_at: float = 0.0


History = Mapping[str, Sequence[Known]]
"""Attempts by job id, each job's in the order of their numbers."""
IsPresent = Callable[[Known], bool]
"""Tells whether the video of an attempt that has landed is here."""


class Move(NamedTuple):
    """Attempts that get a new owner, since their request stands under another id by now.

    *fingerprint* is the job's. *attempts* are as they will be: with their new owner and numbers, but
    with the files that they have now. *has_room*: no other video that is known stands where the moved
    one belongs. *tags* are the job's, for its row.
    """

    old_id: str
    new_id: str
    fingerprint: str
    attempts: tuple[Known, ...]
    has_room: bool = True
    tags: tuple[str, ...] = ()

    def takes_place(self, external_task_id: str, fingerprint: str) -> bool:
        """Return whether an attempt's video is to stand at the job's name."""
        pinned = {
            item.external_task_id for item in self.attempts if item.pinned_for == self.fingerprint
        }
        return external_task_id in pinned if pinned else fingerprint == self.fingerprint


class Decision(NamedTuple):
    """What to do with one job.

    *job* is None for an orphan. *attempt* is the external id of the attempt to go on with, if any.
    *stands* is the attempt whose video stands where that is one of a round of `--force`: without
    `--force` it is not sent again. It is also that of a job that is done, or no longer
    listed, beside *former* attempts.
    *former* are attempts for earlier versions of the job whose tasks are still to be collected.
    *tries* counts the attempts for this fingerprint that may have created a task, *paid* the tasks,
    *failed_paid* those of them that failed since the last success; *cost_usd* is the estimate for
    what is to be paid now. *moved_from* is the id under which its attempts stand until the run
    begins; *before* the external id of the attempt that a changed job is compared with. *held* says
    why a run by a saved plan may not pay for it. *is_pinned*: the attempt is a version that a person
    has restored. *unpins* are attempts whose pin ends when its video lands.
    """

    action: Action
    job_id: str
    reason: str
    job: Job | None = None
    attempt: str | None = None
    stands: str | None = None
    former: tuple[str, ...] = ()
    number: int = 1
    held: str | None = None
    tries: int = 0
    paid: int = 0
    failed_paid: int = 0
    cost_usd: float | None = None
    price_known: bool = True
    moved_from: str | None = None
    before: str | None = None
    is_pinned: bool = False
    unpins: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether the video that the job asks for stands; there may be former ones to collect."""
        is_moved = self.action is Action.MOVED and self.attempt is None
        return is_moved or self.action is Action.UNCHANGED

    @property
    def is_fresh(self) -> bool:
        """Whether it begins with a payment: of what is paid for already, there is nothing to collect."""
        return self.action in PAYING and not self.former


@frozen
class Policy:
    """What the person asked for: on the command line, and of the limits what says when a job rests."""

    force: bool = False
    no_move: bool = False
    retry_failed: bool = False
    resubmit_unconfirmed: bool = False
    max_attempts: int = 3
    give_up_after: int | None = None
    day_starts: time = MIDNIGHT
    selection: Selection = field(default_factory=Selection)


@frozen
class Round:
    """A round of `--force`: it regenerates each of its jobs once, in as many runs as that takes.

    *due* are the jobs that are left. *begun* says, for a new round, how many videos each of its
    requests has so far; empty for one that goes on.
    """

    due: frozenset[str]
    begun: dict[str, int] = field(default_factory=dict)

    @property
    def is_new(self) -> bool:
        """Whether it begins with this run."""
        return bool(self.begun)
