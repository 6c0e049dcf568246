"""The states of an attempt: a sum type in which a field exists only where it is known."""

from __future__ import annotations

import os
from dataclasses import field
from enum import StrEnum

from batch.frozen import frozen
from batch.job import Failure, Video

RETENTION_S = 30 * 24 * 3600.0  # "cleared after 30 days", the provider's documentation


@frozen
class Account:
    """Where a request goes and with which key: *key_hash* is a short hash of the key."""

    base_url: str = ""
    key_hash: str = ""


@frozen
class PaidTask:
    """A task at the provider. Once an attempt has one, it is paid for."""

    task_id: str
    submitted_at: float
    request_id: str | None = None


@frozen
class Doubt:
    """A request that may have created a task, and why that is not known.

    *exists*: the provider reported that the external id is taken, so a task exists. *on_request*:
    the request was repeated because a person asked for it, so two may be under way, and only a
    person can ask for a third. *sent_at* is when it was sent: it may be looked for in many a later
    night, and belongs to none of them. It makes no other doubt of it.
    """

    failure: Failure
    exists: bool = False
    on_request: bool = False
    sent_at: float | None = field(default=None, compare=False)


class Outcome(StrEnum):
    """What became of a job in a run; `status` in results.jsonl."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    UNCONFIRMED = "unconfirmed"


@frozen
class Intended:
    """On disk before the POST. A run that finds it later cannot know whether the POST went out.

    *doubt* is what an earlier request under the same external id may have created.
    """

    since: float
    doubt: Doubt | None = None


@frozen
class Lost:
    """The POST went out, or may have, and its answer says nothing."""

    since: float
    doubt: Doubt


@frozen
class Open:
    """Paid for. The provider works on it."""

    task: PaidTask


ELSEWHERE = (
    "it was submitted with another key or to another base URL, and is not found with this one"
)


@frozen
class TimedOut:
    """Open, but this run has stopped waiting. Not a verdict: the next run polls again.

    *said* are the last words of the provider about it, if there were any; or `ELSEWHERE`, ours.
    """

    task: PaidTask
    timed_out_at: float
    said: str | None = None


@frozen
class Generated:
    """The provider has the video. *trouble* says why an earlier download of it failed."""

    task: PaidTask
    generated_at: float
    trouble: Failure | None = None


@frozen
class Checked:
    """A landed file that was written to later, as it was then: a whole video of the right length."""

    bytes: int
    modified_at: float
    sha256: str

    def fits(self, status: os.stat_result) -> bool:
        """Return whether the file is still as it was."""
        return (status.st_size, status.st_mtime) == (self.bytes, self.modified_at)


@frozen
class Pin:
    """A person has brought a version back: it is current while its job asks for *fingerprint*.

    *version_at* is when that version landed first.
    """

    fingerprint: str
    version_at: float


@frozen
class Landed:
    """The video is on disk, whole. *file* is relative to the output folder.

    *trouble* says why a run could not bring the file back that it missed. The attempt stays landed:
    the disk may be mounted again tomorrow. *checked* is the file as it was found when it had been
    written to since. *pin*: it was restored, and stands for its job. *first_at* is when it landed
    first, if it was fetched again or restored since; it names the version. *came_from* is the name
    under versions/ that it then left, and may still have: a death or the disk can leave it there.
    """

    task: PaidTask
    generated_at: float
    landed_at: float
    file: str
    bytes: int
    sha256: str
    video: Video
    warnings: tuple[str, ...] = ()
    trouble: Failure | None = None
    checked: Checked | None = None
    pin: Pin | None = None
    first_at: float | None = None
    came_from: str | None = None

    @property
    def came_at(self) -> float:
        """When it landed first."""
        return self.landed_at if self.first_at is None else self.first_at

    @property
    def latest(self) -> Landed | Checked:
        """What is known of the file's content last: as it landed, or as it was found later."""
        return self if self.checked is None else self.checked

    @property
    def is_edited(self) -> bool:
        """Whether a person has made something else of the file."""
        return self.latest.sha256 != self.sha256

    @property
    def contents(self) -> frozenset[str]:
        """The hashes that the file may have: as it landed, and as it was found later."""
        return frozenset({self.sha256, self.latest.sha256})


@frozen
class Discarded:
    """Its video had landed and was deleted on request; what is known of it stays.

    Wanted again, it is fetched, as long as the provider keeps it.
    """

    task: PaidTask
    generated_at: float
    landed_at: float
    discarded_at: float
    bytes: int
    sha256: str


@frozen
class Failed:
    """Refused (no *task*: nothing was paid) or failed at the provider (*task*: it was)."""

    failure: Failure
    failed_at: float
    task: PaidTask | None = None


@frozen
class Unconfirmed:
    """It cannot be known whether a task exists. Sent again only if a person asks for it."""

    since: float
    doubt: Doubt


AttemptState = (
    Intended | Lost | Open | TimedOut | Generated | Landed | Discarded | Failed | Unconfirmed
)


class Phase(StrEnum):
    """The state of an attempt by name, as it is stored, and what follows from the name alone."""

    __hash__ = str.__hash__  # that of an Enum is a call in Python

    INTENDED = "Intended"
    LOST = "Lost"
    OPEN = "Open"
    TIMED_OUT = "TimedOut"
    GENERATED = "Generated"
    LANDED = "Landed"
    DISCARDED = "Discarded"
    FAILED = "Failed"
    UNCONFIRMED = "Unconfirmed"

    @property
    def holds_slot(self) -> bool:
        """Whether a task of it may be in the making at the provider."""
        return self is not Phase.GENERATED and not self.is_finished

    @property
    def keeps_slot(self) -> bool:
        """Whether the run that has sent it still counts a task of it as open."""
        return self in {Phase.INTENDED, Phase.LOST, Phase.OPEN}

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to collect any more."""
        return self.has_landed or self is Phase.FAILED

    @property
    def has_landed(self) -> bool:
        """Whether its video was here once."""
        return self in {Phase.LANDED, Phase.DISCARDED}

    @property
    def is_collectable(self) -> bool:
        """Whether a task is known to be paid for and its video is not here yet."""
        return self in {Phase.OPEN, Phase.TIMED_OUT, Phase.GENERATED}


# What may follow what. Intended follows itself when a request that surely created nothing goes out
# again under the same id; Generated follows itself with another trouble; Landed follows itself when
# its file has moved, was fetched again, or is missed. What was discarded is fetched again. After
# Failed there is only a new attempt.
TRANSITIONS: dict[type[AttemptState], frozenset[type[AttemptState]]] = {
    Intended: frozenset({Intended, Lost, Open, Failed}),
    Lost: frozenset({Intended, Open, Unconfirmed}),
    Open: frozenset({Generated, Failed, TimedOut}),
    TimedOut: frozenset({Generated, Failed, TimedOut}),
    Generated: frozenset({Generated, Landed, Failed}),
    Landed: frozenset({Landed, Discarded}),
    Discarded: frozenset({Generated}),
    Failed: frozenset(),
    Unconfirmed: frozenset({Lost, Intended, Open, Unconfirmed}),
}
