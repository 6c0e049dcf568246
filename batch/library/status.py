"""What stands where in an output folder, what is wrong by name, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batch.attempt import Attempt, Failed, Generated, Landed, Phase
from batch.job import Failure, FailureKind
from batch.library.accounts import IN_DOUBT, figures
from batch.library.entries import Entry, Library, what_failed
from batch.library.ledger import iso
from batch.output import stores
from batch.output.layout import Layout
from batch.output.rescue import Rescue
from batch.output.row import outcome_of
from batch.plan import HEALS_BY_ITSELF

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
RETRIED = "the next run submits it again, up to limits.max_attempts"
LEFT_TO_FORCE = "its video stands; --force goes on with the round, a plain run leaves it"
RETRIED_ONCE = "the next run tries it once more, then change the prompt or use --retry-failed"


def look(library: Library) -> dict[str, Any]:
    """Return what a library holds, as plain JSON values with always the same keys."""
    layout = Layout(library.root)
    holder = stores.holder(library.root)
    latest = {attempt.job_id: attempt for attempt in library.attempts}
    found = figures(library.attempts)
    is_running = holder is not None
    return {
        "schema": SCHEMA,
        "output_dir": str(library.root),
        "sandbox": library.is_sandbox,
        "running": None if holder is None else holder._asdict(),
        "last_run": _run(library),
        "jobs": dict(Counter(_word(attempt, is_running=is_running) for attempt in latest.values())),
        "waiting": _waiting(library),
        "tasks_paid": found.tasks,
        "figures": found._asdict(),
        "uploads": library.uploads,
        "failed": list(_failed(library, latest)),
        "unconfirmed": [
            _named(attempt) | {"to_do": _ways_out(library, attempt)}
            for attempt in library.attempts
            if attempt.phase is Phase.UNCONFIRMED or (attempt.phase in IN_DOUBT and not is_running)
        ],
        "rescued": list(_rescued(library, layout)),
        "paid_without_file": [
            _missing(entry)
            for entry in library.entries
            if entry.is_missing
            and (entry.will_be_fetched or entry.attempt is latest[entry.attempt.job_id])
        ],
    }


def _word(attempt: Attempt, *, is_running: bool) -> str:
    """Return the state of a job in a word. Without a run nothing is submitted or looked up."""
    is_left = attempt.phase in IN_DOUBT and not is_running
    return WORDS[Phase.UNCONFIRMED if is_left else attempt.phase]


def _rescued(library: Library, layout: Layout) -> Iterator[dict[str, Any]]:
    """Yield the rescue files with tasks that the state does not have, as far as they are found.

    Where the manifest was is not recorded: of its folder's file only that of the working directory is.
    """
    known = {attempt.task_id for attempt in library.attempts}
    for file in Rescue.of(layout, Path("manifest")).files():
        tasks = [task.task_id for task in file.tasks if task.task_id not in known]
        if tasks or not file.is_whole:
            yield {"file": str(file.path), "task_ids": tasks}


def _failed(library: Library, latest: dict[str, Attempt]) -> Iterator[dict[str, Any]]:
    made = {(a.job_id, a.fingerprint) for a in library.attempts if a.phase is Phase.LANDED}
    for job_id, attempt in latest.items():
        match attempt.state:
            case Failed() if library.planned.is_orphan(job_id):
                continue
            case Failed() if (job_id, attempt.fingerprint) in made:
                to_do = LEFT_TO_FORCE
            case Failed(failure=failure):
                to_do = _remedy(failure)
            case Generated(trouble=Failure()):
                to_do = COLLECTED
            case Landed(trouble=Failure()):
                to_do = FETCHED
            case _ if attempt.phase is Phase.TIMED_OUT:
                to_do = ASKED_AGAIN
            case _:
                continue
        yield _named(attempt) | {"to_do": to_do}


def _remedy(failure: Failure) -> str:
    if failure.kind in HEALS_BY_ITSELF:
        return RETRIED_ONCE if failure.is_unexplained else RETRIED
    return TO_DO.get(failure.kind, "see kling-batch help results-and-state, or --retry-failed")


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


def _ways_out(library: Library, attempt: Attempt) -> str:
    job, root = attempt.job_id, library.root
    return (
        f"the next run looks for it again; seen at the provider: kling-batch adopt {root} {job}"
        f" TASK_ID; seen not to be there: kling-batch forget {root} {job}"
    )


def _missing(entry: Entry) -> dict[str, Any]:
    return {
        "job_id": entry.attempt.job_id,
        "task_id": entry.task_id,
        "external_task_id": entry.external_task_id,
        "state": WORDS[entry.phase],
        "submitted_at": iso(entry.submitted_at),
        "days_left": entry.days_left,
        "will_be_fetched": entry.will_be_fetched,
    }


def _waiting(library: Library) -> int:
    """Return how many jobs the latest run was to pay for, and has not submitted yet."""
    begun_at = library.planned.at
    begun = {attempt.job_id for attempt in library.attempts if attempt.sent_at >= begun_at}
    return max(library.planned.to_pay - len(begun), 0)


def _run(library: Library) -> dict[str, Any] | None:
    if library.last_run is None:
        return None
    run_id, started_at, finished_at, exit_code = library.last_run
    return {
        "run_id": run_id,
        "started_at": iso(started_at),
        "finished_at": None if finished_at is None else iso(finished_at),
        "exit_code": exit_code,
    }
