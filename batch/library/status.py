"""What stands where in an output folder, what is wrong by name, and what to do about it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batch.attempt import Attempt, Phase
from batch.job import FailureKind
from batch.library.accounts import IN_DOUBT, figures
from batch.library.entries import Presence, days_left, what_failed
from batch.library.ledger import iso
from batch.library.planned import Planned
from batch.library.resting import Rest, policy_of, rest_of
from batch.output import stores
from batch.output.folder import ORIGIN, SANDBOX
from batch.output.layout import Layout
from batch.output.rescue import Rescue
from batch.output.row import outcome_of
from batch.output.store import Store, last_run, recorded
from batch.output.uploaded import standing, target_of
from batch.output.whereabouts import Whereabouts
from batch.plan import HEALS_BY_ITSELF, IsPresent, Known, Policy

SCHEMA = 2
WORDS = {
    Phase.LANDED: "succeeded",
    Phase.DISCARDED: "discarded",
    Phase.OPEN: "generating",
    Phase.GENERATED: "to download",
    Phase.TIMED_OUT: "timed out",
    Phase.FAILED: "failed",
    Phase.UNCONFIRMED: "unconfirmed",
    Phase.INTENDED: "being submitted",
    Phase.LOST: "being looked up",
}
TO_DO = {
    FailureKind.MODERATION: "change the prompt in the manifest",
    FailureKind.INVALID_REQUEST: "change the job in the manifest, or --retry-failed",
    FailureKind.ACCOUNT: "check key, credit and permission, then --retry-failed",
    FailureKind.DOWNLOAD: "the provider no longer has it; --retry-failed pays for a new one",
}
COLLECTED = "the next run downloads it again, unpaid"
FETCHED = "bring its file or its disk back, or leave it: the next run tries to fetch it again"
ASKED_AGAIN = "the next run asks for it again"
RESTS = {
    Rest.SPENT: "it has failed as often as limits.max_attempts allows: change the job, or raise that",
    Rest.RESTING: "it is not retried any more: change the job, or use --retry-failed",
}
RETRIED = "the next run submits it again, up to limits.max_attempts"
LEFT_TO_FORCE = "its video stands; --force goes on with the round, a plain run leaves it"
RETRIED_ONCE = "the next run tries it once more, then change the prompt or use --retry-failed"


def look(root: Path, presence: Presence, now: float) -> dict[str, Any]:
    """Return what the state of *root* holds, as plain JSON values with always the same keys.

    Takes no lock and changes nothing. One job is looked at after the other, so that a million need no
    memory; an attempt is read whole only where something is to be said about it.

    Raises:
        StateError: the state cannot be read.
    """
    holder = stores.holder(root)
    with stores.open_to_read(root) as database:
        seen = _Seen(database, presence(root, database), now, is_running=holder is not None)
        found = figures(itertools.chain.from_iterable(map(seen.see, database.jobs())))
        target = target_of(database)
        return {
            "schema": SCHEMA,
            "output_dir": str(root),
            "sandbox": database.fact(ORIGIN) == SANDBOX,
            "running": None if holder is None else holder._asdict(),
            "last_run": _run(database),
            "jobs": dict(seen.words),
            "waiting": seen.waiting,
            "waiting_again": seen.waiting_again,
            "tasks_paid": found.tasks,
            "figures": found._asdict(),
            "uploads": None if target is None else standing(database, root, target),
            "failed": seen.failed,
            "unconfirmed": [
                item | {"to_do": _ways_out(root, item["job_id"])} for item in seen.unconfirmed
            ],
            "rescued": list(_rescued(database, Layout(root))),
            "paid_without_file": seen.missing,
        }


class _Seen:
    """What is counted and listed while the jobs of a library pass by."""

    def __init__(
        self, database: Store, is_present: IsPresent, now: float, *, is_running: bool
    ) -> None:
        self.planned = Planned(database)
        self.words: Counter[str] = Counter()
        self.begun = 0  # jobs that the latest run has submitted
        self.failed: list[dict[str, Any]] = []
        self.unconfirmed: list[dict[str, Any]] = []
        self.missing: list[dict[str, Any]] = []
        self._database, self._is_present = database, is_present
        self._policy = policy_of(database)
        self._whereabouts = Whereabouts(database, target_of(database))
        self._now, self._is_running = now, is_running

    def see(self, job: list[Known]) -> list[Known]:
        """Count a job, and list what is wrong with it; return it."""
        latest = job[-1]
        is_left = latest.phase in IN_DOUBT and not self._is_running
        is_missed = latest.phase is Phase.LANDED and latest.failure_kind is not None
        phase = Phase.UNCONFIRMED if is_left else Phase.GENERATED if is_missed else latest.phase
        self.words[WORDS[phase]] += 1
        self.begun += self._has_begun(job)
        to_do = self._to_do(job)
        if to_do is not None:
            self.failed.append(_named(self._whole(latest)) | {"to_do": to_do})
        for item in job:
            # Without a run nothing is submitted or looked up.
            is_in_doubt = item.phase in IN_DOUBT and not self._is_running
            if is_in_doubt or item.phase is Phase.UNCONFIRMED:
                self.unconfirmed.append(_named(self._whole(item)))
            elif item.phase.is_collectable or (item is latest and self._is_gone(item)):
                self.missing.append(self._missing(item))
        return job

    @property
    def waiting(self) -> int:
        """How many jobs the latest run was to submit, and has not."""
        return max(self.planned.to_pay - self.begun, 0)

    @property
    def waiting_again(self) -> int:
        """How many of these are counted by a word, too: changed ones, for example, that have a video."""
        listed = self.planned.listed if self.waiting else None
        if listed is None:
            return 0
        known = (job for job in self._database.jobs() if job[-1].job_id in listed)
        others = sum(not self._has_begun(job) for job in known)
        has_none = len(listed) - others - self.begun
        return min(max(self.waiting - max(has_none, 0), 0), others)

    def _has_begun(self, job: list[Known]) -> bool:
        """Return whether the latest run has submitted a job."""
        return any(item.sent_at >= self.planned.at for item in job)

    def _to_do(self, job: list[Known]) -> str | None:
        """Return what heals a job that has failed or timed out; None if it has not."""
        latest = job[-1]
        match latest.phase:
            case Phase.FAILED if self.planned.is_orphan(latest.job_id):
                return None
            case Phase.FAILED:
                same = (item.phase for item in job if item.fingerprint == latest.fingerprint)
                return LEFT_TO_FORCE if Phase.LANDED in same else _remedy(job, self._policy)
            case Phase.GENERATED if latest.failure_kind is not None:
                return COLLECTED
            case Phase.LANDED if latest.failure_kind is not None:
                return FETCHED
            case Phase.TIMED_OUT:
                return ASKED_AGAIN
            case _:
                return None

    def _is_gone(self, item: Known) -> bool:
        return item.phase is Phase.LANDED and not self._is_present(item)

    def _missing(self, item: Known) -> dict[str, Any]:
        attempt, name, url = self._whole(item), item.external_task_id, None
        if item.file is not None:
            url = self._whereabouts.of(item.file, name, is_here=False).url
        is_wanted = attempt.phase.is_collectable or not self.planned.is_orphan(attempt.job_id)
        return {
            "job_id": attempt.job_id,
            "task_id": attempt.task_id,
            "external_task_id": name,
            "state": WORDS[attempt.phase],
            "submitted_at": iso(attempt.sent_at),
            "days_left": days_left(attempt, self._now),
            "will_be_fetched": is_wanted,
            "url": url,
        }

    def _whole(self, item: Known) -> Attempt:
        return self._database.attempt(item.external_task_id)


def _rescued(database: Store, layout: Layout) -> Iterator[dict[str, Any]]:
    """Yield the rescue files with tasks that the state does not have, as far as they are found.

    Where the manifest was is not recorded: of its folder's file only that of the working directory is.
    """
    for file in Rescue.of(layout, Path("manifest")).files():
        listed = [task.task_id for task in file.tasks]
        tasks = [task_id for task_id in listed if database.owner_of(task_id) is None]
        if tasks or not file.is_whole:
            yield {"file": str(file.path), "task_ids": tasks}


def _remedy(job: list[Known], policy: Policy) -> str:
    latest, rest = job[-1], rest_of(job, policy)
    if rest is not None:
        return RESTS[rest]
    kind = FailureKind(str(latest.failure_kind))
    if kind in HEALS_BY_ITSELF:
        return RETRIED_ONCE if latest.is_unexplained else RETRIED
    return TO_DO.get(kind, "see kling-batch help results-and-state, or --retry-failed")


def _named(attempt: Attempt) -> dict[str, Any]:
    failure = what_failed(attempt)
    in_doubt = attempt.phase in IN_DOUBT
    return {
        "job_id": attempt.job_id,
        "status": "unconfirmed" if in_doubt else outcome_of(attempt).value,
        "kind": failure.kind.value,
        "message": failure.message,
        "task_id": attempt.task_id,
        "external_task_id": attempt.external_task_id,
        "submitted_at": iso(attempt.sent_at),
        "cost_usd": attempt.cost_usd,
    }


def _ways_out(root: Path, job_id: str) -> str:
    return (
        f"the next run looks for it again; seen at the provider: kling-batch adopt {root} {job_id}"
        f" TASK_ID; seen not to be there: kling-batch forget {root} {job_id}"
    )


def _run(database: Store) -> dict[str, Any] | None:
    run = last_run(database)
    if run is None:
        return None
    run_id, started_at, finished_at, exit_code, summary = run
    return {
        "run_id": run_id,
        "started_at": iso(started_at),
        "finished_at": None if finished_at is None else iso(finished_at),
        "exit_code": exit_code,
        "stopped": recorded(summary).get("stopped"),
    }
