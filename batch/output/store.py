"""The state of an output folder as commands and the planning of a run see it: synchronous.

SQLite and Postgres both keep it (`stores` says which of them a folder's is).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from batch.attempt import Account, Attempt
from batch.output.state import Change, Payment, Uploaded
from batch.plan import History, Known

RunRecord = tuple[str, float, float | None, int | None, str | None]


class Store(Protocol):
    """What is on disk. *path* is its file in the folder, for messages.

    *library* is the name under which Postgres has it; a state in SQLite is named by its facts alone.
    The two rules are those of `State`.
    """

    path: Path

    @property
    def library(self) -> str | None: ...

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever committed."""
        ...

    def write(self, changes: Iterable[Change]) -> None:
        """Commit all *changes* as one transaction, flushed.

        Raises:
            LockedError: another run of the library has begun and has not ended.
            RefusedError: they break a rule of the state.
            StateError: they cannot be written. In all cases none of them is committed.
        """
        ...

    def checkpoint(self) -> None:
        """Bring what is committed to where a copy of the folder finds it."""
        ...

    def close(self) -> None:
        """Close it."""
        ...

    def known(self) -> History:
        """Return all attempts in short, by job, each job's in the order of their numbers."""
        ...

    def jobs(self) -> Iterator[list[Known]]:
        """Iterate over the jobs, by id: all attempts of each in short, in the order of their numbers.

        They are as they were at one moment, and so is what else is asked until the end.
        """
        ...

    def attempt(self, external_task_id: str) -> Attempt:
        """Return one attempt.

        Raises:
            KeyError: there is none of that id.
        """
        ...

    def attempts(self) -> Iterator[Attempt]:
        """Iterate over all attempts, by job and number."""
        ...

    def attempts_of(self, job_id: str) -> list[Attempt]:
        """Return the attempts of a job, in the order of their numbers."""
        ...

    def owner_of(self, task_id: str) -> str | None:
        """Return the external id of the attempt that a task is recorded for."""
        ...

    def holders_of(self, file: str) -> list[Attempt]:
        """Return the attempts whose video is recorded to be in *file*, by job and number."""
        ...

    def owners_of_content(self, sha256: str) -> list[Attempt]:
        """Return the attempts whose video has, or had, this content: as it landed, or edited."""
        ...

    def result_lines(self, after: int = 0) -> Iterator[str]:
        """Iterate over the rows behind the first *after*, oldest first."""
        ...

    def result_bytes(self) -> int:
        """Return the size that results.jsonl should have."""
        ...

    def proved_at(self, account: Account) -> float | None:
        """Return when look-up by external id last worked for *account*."""
        ...

    def newest_task_of(self, account: Account) -> Attempt | None:
        """Return the attempt of the latest task that is known to be *account*'s, if there is one."""
        ...

    def has_task_at(self, base_url: str) -> bool:
        """Return whether a task was ever seen at *base_url*, with any key."""
        ...

    def generation_times(self) -> dict[str, list[float]]:
        """Return the seconds that past tasks took, by kind, oldest first."""
        ...

    def payments(self, since: float) -> list[Payment]:
        """Return the attempts that are, or may be, paid for and were sent *since* a moment."""
        ...

    def uploads(
        self, target: str, *, file: str | None = None, sha256: str | None = None
    ) -> list[Uploaded]:
        """Return what is in the bucket *target*, by file: all, or only that *file* or content."""
        ...

    def targets(self) -> list[str]:
        """Return the buckets in which something is."""
        ...

    def not_uploaded(self, target: str) -> list[str]:
        """Return the files of landed videos that the bucket *target* does not have as they are now."""
        ...

    def surplus(self, target: str) -> list[Uploaded]:
        """Return what may go from the bucket *target*: videos that stand nowhere under that name.

        They were discarded, or the bucket has them under another name, too.
        """
        ...

    def forced(self) -> dict[str, int]:
        """Return the requests in rounds of `--force`, with the number of their videos before it."""
        ...

    def first_run(self) -> str | None:
        """Return the id of the earliest run; ids begin with the time."""
        ...

    def runs(self, last: int = -1) -> list[RunRecord]:
        """Return id, start, end, exit code and summary of the *last* runs (-1: all), newest first."""
        ...

    def fact(self, name: str) -> str | None:
        """Return the value of a named fact."""
        ...


def last_run(store: Store) -> RunRecord | None:
    """Return what is recorded of the latest run."""
    return next(iter(store.runs(last=1)), None)


def recorded(summary: str | None) -> dict[str, Any]:
    """Return what a run has recorded at its end; nothing if that cannot be read."""
    try:
        found = json.loads(summary or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
