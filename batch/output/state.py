"""The state of an output folder: the changes that can be committed to it, and its questions.

Every implementation (SQLite here, in memory for tests) keeps the promises in `tests/contract`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from batch.attempt import Account, Attempt, Phase
from batch.plan import History, Known

FORGOT_AT = "forgot_at"  # the fact that says when a state was found to have forgotten something


class Put(NamedTuple):
    """An attempt is now in this state."""

    attempt: Attempt


class Withdraw(NamedTuple):
    """Remove an attempt whose request was surely not sent."""

    external_task_id: str


class AddRow(NamedTuple):
    """One line of results.jsonl, without its newline."""

    line: str


class Proof(NamedTuple):
    """Look-up works for this account: it found a task of ours by its external id."""

    account: Account
    proved_at: float


class GenerationTime(NamedTuple):
    """The seconds that the provider took for a task of this kind (model, mode, duration)."""

    kind: str
    seconds: float


class BeginRun(NamedTuple):
    """A run began."""

    run_id: str
    at: float


class EndRun(NamedTuple):
    """A run ended with this exit code; *summary* is what it came to, as JSON."""

    run_id: str
    at: float
    exit_code: int
    summary: str = "{}"


class Force(NamedTuple):
    """A request is in a round of `--force`, and had so many *videos* when that began."""

    fingerprint: str
    began_at: float
    videos: int


class Fact(NamedTuple):
    """A named fact about the folder, for example whose videos it holds."""

    name: str
    value: str


class Uploaded(NamedTuple):
    """A file is in the bucket *target*, whole, under the name that it has in the folder.

    *sha256* and *bytes* are of its content, *e_tag* and *version* the bucket's names for that. It is
    the video of *external_task_id*; None for a file beside a video.
    """

    target: str
    file: str
    sha256: str
    bytes: int
    uploaded_at: float
    external_task_id: str | None = None
    e_tag: str | None = None
    version: str | None = None


class NotUploaded(NamedTuple):
    """A file is no longer known to be in the bucket *target*."""

    target: str
    file: str


Change = (
    Put
    | Withdraw
    | AddRow
    | Proof
    | GenerationTime
    | BeginRun
    | EndRun
    | Force
    | Fact
    | Uploaded
    | NotUploaded
)


class Payment(NamedTuple):
    """An attempt that is, or may be, paid for, and when it was sent (seconds since the epoch)."""

    external_task_id: str
    phase: Phase
    task_id: str | None
    cost_usd: float | None
    at: float


class State(Protocol):
    """What is on disk.

    Two rules hold whatever a bug makes a run try: a task belongs to one attempt, and a job has one
    unfinished attempt for a fingerprint.
    """

    async def commit(self, *changes: Change) -> None:
        """Return when all *changes* are on disk. Cancelling the call does not take them back.

        Raises:
            RefusedError: they break one of the two rules; none of them is committed.
            StateError: they cannot be written, and none of them is committed; or they are, and only
                their rows could not be appended to results.jsonl, which the next run does.
        """
        ...

    async def attempt(self, external_task_id: str) -> Attempt:
        """Return one attempt.

        Raises:
            KeyError: there is none of that id.
        """
        ...

    async def holders_of(self, file: str) -> list[Attempt]:
        """Return the attempts whose video is recorded to be in *file*, by job and number."""
        ...

    async def owners_of_content(self, sha256: str) -> list[Attempt]:
        """Return the attempts whose video has, or had, this content: as it landed, or edited."""
        ...

    async def owner_of(self, task_id: str) -> str | None:
        """Return the external id of the attempt that a task is recorded for."""
        ...

    async def proved_at(self, account: Account) -> float | None:
        """Return when look-up by external id last worked for *account*."""
        ...

    async def newest_task_of(self, account: Account) -> Attempt | None:
        """Return the attempt of the latest task that is known to be *account*'s, if there is one."""
        ...

    async def has_task_at(self, base_url: str) -> bool:
        """Return whether a task was ever seen at *base_url*, with any key."""
        ...

    async def generation_times(self) -> dict[str, list[float]]:
        """Return the seconds that past tasks took, by kind, oldest first."""
        ...

    async def known(self) -> History:
        """Return what a plan needs, by job, each job's attempts in their order."""
        ...

    async def known_of(self, job_id: str) -> list[Known]:
        """Return what a plan needs of one job: its attempts in their order."""
        ...

    async def payments(self, since: float) -> list[Payment]:
        """Return the attempts that are, or may be, paid for and were sent *since* a moment."""
        ...

    async def uploads(
        self, target: str, *, file: str | None = None, sha256: str | None = None
    ) -> list[Uploaded]:
        """Return what is in the bucket *target*, by file: all, or only that *file* or content."""
        ...
