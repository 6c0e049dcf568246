"""A library's attempts one by one: what each has cost, what became of it, and whether it is here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from pathlib import Path

from batch.attempt import RETENTION_S, Attempt, Landed, Phase
from batch.frozen import frozen
from batch.job import Failure, FailureKind
from batch.library.planned import Planned
from batch.output.folder import ORIGIN, SANDBOX
from batch.output.row import failure_of
from batch.output.store import Store
from batch.output.stores import open_to_read
from batch.output.uploaded import target_of
from batch.output.whereabouts import Whereabouts
from batch.plan import IsPresent

DAY_S = 86_400.0
Presence = Callable[[Path, Store], IsPresent]
"""Makes, for a folder and its state, the judge of whether a video is here."""


class Fate(StrEnum):
    """What became of a task."""

    CURRENT = "current"  # its video stands at its job's name
    FORMER = "former"  # its video was displaced by a newer one
    DISCARDED = "discarded"  # its video was deleted on request
    FAILED = "failed"  # at the provider
    OPEN = "open"
    TO_DOWNLOAD = "to_download"
    UNCONFIRMED = "unconfirmed"  # it is not known whether there is a task


@frozen
class Entry:
    """An attempt that is, or may be, paid for.

    *submitted_at* is when it was sent, as far as is known. *is_here* tells whether its video is on
    disk, or need not be: the bucket has it. *url* is where it is in the bucket; if it is not here, in
    whatever bucket has it. *days_left* counts the full days for which the provider keeps its video.
    """

    attempt: Attempt
    submitted_at: float
    fate: Fate
    is_here: bool
    days_left: int | None
    tags: tuple[str, ...]
    url: str | None = None

    @property
    def external_task_id(self) -> str:
        """The id that was sent."""
        return self.attempt.external_task_id

    @property
    def phase(self) -> Phase:
        """The state by name."""
        return self.attempt.phase

    @property
    def task_id(self) -> str | None:
        """The provider's id, if it is known."""
        return self.attempt.task_id

    @property
    def cost_usd(self) -> float | None:
        """The estimate."""
        return self.attempt.cost_usd

    @property
    def file(self) -> str | None:
        """Where its video is, or was, relative to the output folder."""
        state = self.attempt.state
        return state.file if isinstance(state, Landed) else None

    @property
    def is_missing(self) -> bool:
        """Whether it is paid for, could be had, and its video is neither here nor in a bucket."""
        unwanted = {Fate.FAILED, Fate.DISCARDED, Fate.UNCONFIRMED}
        return self.fate not in unwanted and not self.is_here and self.url is None


@frozen
class Library:
    """What a folder's state holds: every attempt that is, or may be, paid for."""

    root: Path
    entries: list[Entry]
    is_sandbox: bool


def read_library(root: Path, presence: Presence, now: float) -> Library:
    """Return what the state of *root* holds. Takes no lock, changes nothing.

    Raises:
        StateError: the state cannot be read.
    """
    with open_to_read(root) as database:
        attempts = list(database.attempts())
        planned = Planned(database)
        is_sandbox = database.fact(ORIGIN) == SANDBOX
        here = videos_here(database, presence(root, database))
        whereabouts = Whereabouts(database, target_of(database))
        entries = list(_entries(attempts, planned, here, now, whereabouts))
    return Library(root, entries, is_sandbox)


def videos_here(database: Store, is_present: IsPresent) -> frozenset[str]:
    """Return the external ids of the attempts whose videos are here."""
    return frozenset(
        item.external_task_id
        for item in itertools.chain.from_iterable(database.jobs())
        if item.phase is Phase.LANDED and is_present(item)
    )


def _entries(
    attempts: list[Attempt],
    planned: Planned,
    here: Collection[str],
    now: float,
    whereabouts: Whereabouts,
) -> Iterator[Entry]:
    for attempt in attempts:
        fate = _fate(attempt)
        if fate is None:
            continue
        name, state = attempt.external_task_id, attempt.state
        is_here = name in here
        yield Entry(
            attempt=attempt,
            submitted_at=attempt.sent_at,
            fate=fate,
            is_here=is_here,
            days_left=days_left(attempt, now),
            tags=planned.tags_of(attempt.job_id),
            url=whereabouts.of(state.file, name, is_here=is_here).url
            if isinstance(state, Landed)
            else None,
        )


def what_failed(attempt: Attempt) -> Failure:
    """Return why an attempt has no video."""
    lost = None if attempt.doubt is None else attempt.doubt.failure
    died = Failure(FailureKind.NETWORK, "its run ended before the answer")
    return failure_of(attempt) or lost or died


def _fate(attempt: Attempt) -> Fate | None:
    """Return what became of an attempt; None if it was refused, and paid for by nobody."""
    match attempt.phase:
        case Phase.LANDED:
            return Fate.CURRENT if attempt.stands else Fate.FORMER
        case Phase.DISCARDED:
            return Fate.DISCARDED
        case Phase.FAILED:
            return None if attempt.task is None else Fate.FAILED
        case Phase.OPEN | Phase.TIMED_OUT:
            return Fate.OPEN
        case Phase.GENERATED:
            return Fate.TO_DOWNLOAD
        case _:
            return Fate.UNCONFIRMED


def days_left(attempt: Attempt, now: float) -> int | None:
    """Return for how many full days the provider keeps a video; None where it has none."""
    if attempt.phase is Phase.FAILED or attempt.task is None:
        return None
    begins = getattr(attempt.state, "generated_at", attempt.task.submitted_at)
    left_s = min(begins + RETENTION_S - now, RETENTION_S)  # the clock may have been set back since
    return max(0, int(left_s // DAY_S))
