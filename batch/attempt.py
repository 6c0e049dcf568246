"""An attempt: one request to pay for a job, and everything that can happen to it.

The states are a sum type in which a field exists only where it is known, and `TRANSITIONS` is the
one table of what may follow what (`kling-batch help design` draws it). A stage changes a state through
`Attempt.to`, and commits the result before its next step.

*Planned* is nothing on disk. *Superseded* is not a state: an attempt is superseded when its
fingerprint is no longer that of its job in the manifest, and it is collected all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from batch.errors import TransitionError
from batch.job import Failure, Video

EXTERNAL_ID_PREFIX = "kb-"
RETENTION_S = 30 * 24 * 3600.0  # "cleared after 30 days", the provider's documentation


def external_id(library: str, fingerprint: str, place: int, number: int) -> str:
    """Return the external id of an attempt.

    Nothing of it is chance, nor does the name of the job matter: a state that has forgotten the
    attempt (a restored backup) makes the same id again, and the provider reports that it exists.

    Args:
        library: the library's own id.
        fingerprint: what is asked for.
        place: tells jobs with the same request apart; 0 for the first one listed.
        number: counts the attempts for this request.
    """
    name = json.dumps([library, fingerprint, place, number]).encode()
    return f"{EXTERNAL_ID_PREFIX}{hashlib.sha256(name).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Account:
    """Where a request goes and with which key: *key_hash* is a short hash of the key."""

    base_url: str = ""
    key_hash: str = ""


@dataclass(frozen=True, slots=True)
class PaidTask:
    """A task at the provider. Once an attempt has one, it is paid for."""

    task_id: str
    submitted_at: float
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
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


# -- the states ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Intended:
    """On disk before the POST. A run that finds it later cannot know whether the POST went out.

    *doubt* is what an earlier request under the same external id may have created.
    """

    since: float
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The POST went out, or may have, and its answer says nothing."""

    since: float
    doubt: Doubt


@dataclass(frozen=True, slots=True)
class Open:
    """Paid for. The provider works on it."""

    task: PaidTask


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Open, but this run has stopped waiting. Not a verdict: the next run polls again.

    *said* are the last words of the provider about it, if there were any.
    """

    task: PaidTask
    timed_out_at: float
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """The provider has the video. *trouble* says why an earlier download of it failed."""

    task: PaidTask
    generated_at: float
    trouble: Failure | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A landed file that was written to later, as it was then: a whole video of the right length."""

    bytes: int
    modified_at: float
    sha256: str

    def fits(self, status: os.stat_result) -> bool:
        """Return whether the file is still as it was."""
        return (status.st_size, status.st_mtime) == (self.bytes, self.modified_at)


@dataclass(frozen=True, slots=True)
class Pin:
    """A person has brought a version back: it is current while its job asks for *fingerprint*.

    *version_at* is when that version landed first.
    """

    fingerprint: str
    version_at: float


@dataclass(frozen=True, slots=True)
class Landed:
    """The video is on disk, whole. *file* is relative to the output folder.

    *trouble* says why a run could not bring the file back that it missed. The attempt stays landed:
    the disk may be mounted again tomorrow. *checked* is the file as it was found when it had been
    written to since. *pin*: it was restored, and stands for its job.
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

    @property
    def is_edited(self) -> bool:
        """Whether a person has made something else of the file."""
        return self.checked is not None and self.checked.sha256 != self.sha256

    @property
    def contents(self) -> frozenset[str]:
        """The hashes that the file may have: as it landed, and as it was found later."""
        found = () if self.checked is None else (self.checked.sha256,)
        return frozenset({self.sha256, *found})


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Failed:
    """Refused (no *task*: nothing was paid) or failed at the provider (*task*: it was)."""

    failure: Failure
    failed_at: float
    task: PaidTask | None = None


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """It cannot be known whether a task exists. Sent again only if a person asks for it."""

    since: float
    doubt: Doubt


AttemptState = (
    Intended | Lost | Open | TimedOut | Generated | Landed | Discarded | Failed | Unconfirmed
)


class Phase(StrEnum):
    """The state of an attempt by name, as it is stored, and what follows from the name alone."""

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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to pay for a job, with an `external_task_id` of its own.

    *number* counts a job's attempts from 1; *polls* the status requests for its task; *cost_usd* is
    the estimate at the time of submission; *account* says where the request goes; *token_hash* is
    what is stored of the token in its callback URL.
    """

    external_task_id: str
    job_id: str
    fingerprint: str
    number: int
    request: str
    state: AttemptState
    polls: int = 0
    cost_usd: float | None = None
    account: Account = Account()
    token_hash: str | None = None

    def body(self) -> dict[str, Any]:
        """Return what is (or was) sent, as a new dict, without the external id."""
        body: dict[str, Any] = json.loads(self.request)
        return body

    def polled(self) -> Attempt:
        """Return the attempt with one more status request counted."""
        return replace(self, polls=self.polls + 1)

    # -- to the next state

    def to(self, state: AttemptState) -> Attempt:
        """Return the attempt in its next state.

        Raises:
            TransitionError: the table has no such transition.
        """
        if type(state) not in TRANSITIONS[type(self.state)]:
            before, after = type(self.state).__name__, type(state).__name__
            message = f"attempt {self.external_task_id} of {self.job_id!r}: {before} → {after}"
            raise TransitionError(message)
        return replace(self, state=state)

    def intended(self, now: float) -> Attempt:
        """Return the attempt about to be sent, with the doubt that it has."""
        return self.to(Intended(now, self.doubt))

    def doubted(self, now: float, failure: Failure, *, exists: bool = False) -> Attempt:
        """Return the attempt lost by *failure*; what was in doubt before stays so."""
        before = self.doubt
        if before is not None:
            exists = exists or before.exists
        on_request = before is not None and before.on_request
        doubt = Doubt(failure, exists=exists, on_request=on_request, sent_at=self.sent_at)
        return self.to(Lost(now, doubt))

    def failed(self, now: float, failure: Failure) -> Attempt:
        """Return the attempt failed: its task, or the request if there never was one."""
        return self.to(Failed(failure, now, self.task))

    def generated(self, now: float) -> Attempt:
        """Return the attempt whose video the provider has."""
        return self.to(Generated(self.paid_task, now))

    def discarded(self, now: float) -> Attempt:
        """Return the attempt whose video is deleted on request.

        Raises:
            TransitionError: it has not landed.
        """
        known = self.state
        if not isinstance(known, Landed):
            message = f"attempt {self.external_task_id} of {self.job_id!r} has not landed"
            raise TransitionError(message)
        times = (known.generated_at, known.landed_at, now)
        return self.to(Discarded(known.task, *times, known.bytes, known.sha256))

    def unpinned(self) -> Attempt:
        """Return the attempt without its pin."""
        if isinstance(self.state, Landed):
            return self.to(replace(self.state, pin=None))
        return self

    def wanted_again(self) -> Attempt:
        """Return the attempt as it is to be fetched: one that was discarded is *Generated* again."""
        if isinstance(self.state, Discarded):
            return self.generated(self.state.generated_at)
        return self

    # -- what is known

    @property
    def phase(self) -> Phase:
        """The name of its state."""
        return Phase(type(self.state).__name__)

    @property
    def doubt(self) -> Doubt | None:
        """What an earlier request under this external id may have created."""
        match self.state:
            case Intended(doubt=doubt) | Lost(doubt=doubt) | Unconfirmed(doubt=doubt):
                return doubt
            case _:
                return None

    @property
    def task(self) -> PaidTask | None:
        """The provider's task, as soon as it is known."""
        match self.state:
            case Intended() | Lost() | Unconfirmed():
                return None
            case _:
                return self.state.task

    @property
    def sent_at(self) -> float:
        """When it was sent, as far as is known."""
        match self.state:
            case Intended(since=since):
                return since
            case Lost(since=since, doubt=doubt) | Unconfirmed(since=since, doubt=doubt):
                return since if doubt.sent_at is None else doubt.sent_at
            case Failed(task=None, failed_at=failed_at):
                return failed_at
            case _:
                return self.paid_task.submitted_at

    @property
    def paid_task(self) -> PaidTask:
        """The provider's task.

        Raises:
            TransitionError: there is none yet.
        """
        if self.task is None:
            message = f"attempt {self.external_task_id} of {self.job_id!r} has no task"
            raise TransitionError(message)
        return self.task

    @property
    def task_id(self) -> str | None:
        """The provider's id of the task, as soon as it is known."""
        return None if self.task is None else self.task.task_id

    def is_anothers(self, external_task_id: str | None) -> bool:
        """Return whether an external id is one of ours, but not this attempt's."""
        is_ours = external_task_id is not None and external_task_id.startswith(EXTERNAL_ID_PREFIX)
        return is_ours and external_task_id != self.external_task_id

    def owns(self, task_id: str, external_task_id: str | None) -> bool:
        """Return whether a task that an answer names is this attempt's, by either id.

        A gateway that mixes up its answers must not give one job the video of another; a relay
        that gives our external id a name of its own does no harm.
        """
        if self.is_anothers(external_task_id):
            return False
        return task_id == self.task_id or external_task_id == self.external_task_id
