"""One attempt: what it asks for, its state, and what follows from both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import field, replace
from typing import Any

from batch.attempt.states import (
    TRANSITIONS,
    Account,
    AttemptState,
    Discarded,
    Doubt,
    Failed,
    Generated,
    Intended,
    Landed,
    Lost,
    PaidTask,
    Phase,
    Unconfirmed,
)
from batch.errors import TransitionError
from batch.frozen import frozen
from batch.job import Failure, video_path

EXTERNAL_ID_PREFIX = "kb-"
_PHASES = {phase.value: phase for phase in Phase}  # asked a dozen times of each of a million
FORGOTTEN_CODE = "forgotten"  # of a failure: a person said that the task does not exist


def external_id(library: str, fingerprint: str, number: int) -> str:
    """Return the external id of an attempt.

    Nothing of it is chance, nor does it matter which job asks: a state that has forgotten the
    attempt (a restored backup) makes the same id again, and the provider reports that it exists.

    Args:
        library: the library's own id.
        fingerprint: what is asked for.
        number: counts the attempts for this request, of all jobs.
    """
    name = json.dumps([library, fingerprint, 0, number]).encode()
    return f"{EXTERNAL_ID_PREFIX}{hashlib.sha256(name).hexdigest()[:32]}"


@frozen
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
    account: Account = field(default_factory=Account)
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
        return _PHASES[type(self.state).__name__]

    @property
    def created_nothing(self) -> bool:
        """Whether its request surely created no task. A person's word is not as sure as that."""
        match self.state:
            case Failed(failure=failure, task=None):
                return failure.code != FORGOTTEN_CODE
            case _:
                return False

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
    def stands(self) -> bool:
        """Whether its video has landed, and is at its job's name."""
        state = self.state
        return isinstance(state, Landed) and state.file == video_path(self.job_id)

    @property
    def paid_task(self) -> PaidTask:
        """The provider's task.

        Raises:
            TransitionError: there is none yet.
        """
        task = self.task
        if task is None:
            message = f"attempt {self.external_task_id} of {self.job_id!r} has no task"
            raise TransitionError(message)
        return task

    @property
    def task_id(self) -> str | None:
        """The provider's id of the task, as soon as it is known."""
        task = self.task
        return None if task is None else task.task_id

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
