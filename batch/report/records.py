"""What a report is made of, as it is in the state at one moment."""

from __future__ import annotations

import itertools
import time as clock
from collections.abc import Sequence
from dataclasses import field
from datetime import time
from pathlib import Path
from typing import Any

from batch.attempt import Attempt
from batch.days import parse_time
from batch.errors import UsageError
from batch.frozen import frozen
from batch.library.entries import Presence, videos_here
from batch.library.planned import Planned
from batch.library.resting import Rest, policy_of, rest_of
from batch.output import stores
from batch.output.folder import ORIGIN, SANDBOX
from batch.output.store import RunRecord, recorded
from batch.output.uploaded import target_of
from batch.output.whereabouts import Where, Whereabouts


@frozen
class Run:
    """A run. *until* is its end, or the latest moment that may belong to it.

    *summary* is what the run has recorded of its limits and its end; older releases recorded
    nothing.
    """

    run_id: str
    started_at: float
    until: float
    finished_at: float | None = None
    exit_code: int | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, Any]:
        """The limits of the run; empty before its end."""
        limits = self.summary.get("limits")
        return limits if isinstance(limits, dict) else {}

    def covers(self, moment: float | None) -> bool:
        """Return whether *moment* lies within the run."""
        return moment is not None and self.started_at <= moment <= self.until


@frozen
class Records:
    """Everything that was read. *attempts* are by job, each job's in the order of their numbers.

    *listed* are the manifest's jobs with their tags, in its order; empty where no run has recorded
    them. *present* are the files of the attempts that the library has, *stored* those that are only in
    the bucket at *bucket*. *rests* are the failed jobs that no run retries by itself.
    """

    name: str
    now: float
    attempts: dict[str, list[Attempt]]
    runs: tuple[Run, ...] = ()
    listed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    present: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()
    bucket: str | None = None
    rests: dict[str, Rest] = field(default_factory=dict)
    is_running: bool = False
    is_sandbox: bool = False
    has_index: bool = False

    @property
    def limits(self) -> dict[str, Any]:
        """The limits of the latest run that has recorded them, at its end; empty without one."""
        found = (run.limits for run in reversed(self.runs))
        return next((limits for limits in found if limits), {})

    @property
    def day_starts(self) -> time:
        """When a day of the budgets begins, local time."""
        return parse_time(self.limits.get("day_starts", "00:00"))


def read(root: Path, presence: Presence, up_to: int | None = None) -> Records:
    """Read the state of the output folder at *root*. Changes nothing.

    Args:
        root: the output folder.
        presence: makes the judge of whether a video is here, the same as that of a plan.
        up_to: the most jobs that the library may have.

    Raises:
        StateError: there is none, or it cannot be read.
        UsageError: the library is larger than *up_to*; no more than that was read.
    """
    now = clock.time()
    is_running = stores.holder(root) is not None
    with stores.open_to_read(root) as database:
        attempts: dict[str, list[Attempt]] = {}
        for attempt in database.attempts():
            attempts.setdefault(attempt.job_id, []).append(attempt)
            if up_to is not None and len(attempts) > up_to:
                raise UsageError(
                    f"a library of more than {up_to:,} jobs has its page only on request; to write"
                    f" it: kling-batch report {root}"
                )
        runs = arranged(database.runs()[::-1], now)
        listed = Planned(database).listed or {}
        is_sandbox = database.fact(ORIGIN) == SANDBOX
        here = videos_here(database, presence(root, database))
        target = target_of(database)
        whereabouts = Whereabouts(database, target)
        policy = policy_of(database)
        rests = ((job[-1].job_id, rest_of(job, policy)) for job in database.jobs())
        resting = {job_id: rest for job_id, rest in rests if rest is not None}
        present, stored = set[str](), set[str]()
        for attempt in itertools.chain.from_iterable(attempts.values()):
            name, file = attempt.external_task_id, file_of(attempt)
            if file is not None:
                if name in here:
                    present.add(file)
                is_here = (root / file).is_file()
                if whereabouts.of(file, name, is_here=is_here).where is Where.IN_BUCKET:
                    stored.add(file)
    return Records(
        name=root.resolve().name,
        now=now,
        attempts=attempts,
        runs=runs,
        listed=tuple(listed.items()),
        present=frozenset(present),
        stored=frozenset(stored),
        bucket=target.url if target is not None and stored else None,
        rests=resting,
        is_running=is_running,
        is_sandbox=is_sandbox,
        has_index=(root / "index.json").is_file(),
    )


def file_of(attempt: Attempt) -> str | None:
    """Return where the video of an attempt is recorded to be, relative to the output folder."""
    file: str | None = getattr(attempt.state, "file", None)
    return file


def arranged(records: Sequence[RunRecord], now: float) -> tuple[Run, ...]:
    """Return the runs in their order.

    A run that did not end properly lasts until the next one begins.

    Args:
        records: what the state has of them, oldest first.
        now: until when the latest run may last.
    """
    begins = [*(started_at for _, started_at, *_ in records[1:]), now]
    return tuple(
        Run(
            run_id=run_id,
            started_at=started_at,
            until=finished_at or max(following, started_at),
            finished_at=finished_at,
            exit_code=exit_code,
            summary=recorded(summary),
        )
        for (run_id, started_at, finished_at, exit_code, summary), following in zip(
            records, begins, strict=False
        )
    )
