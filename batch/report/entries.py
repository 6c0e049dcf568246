"""One entry for each job: its status, its versions, and what was paid for it.

An entry is a plain JSON object, since the page's script reads it as it is. A key stands in it only
where it has something to say:

    id, status, rests, tags, orphan, missing, night, flag   of the job
    tries   its attempts, newest first; `now` is the number of the one whose video stands in videos/,
            and whose `file` is true
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batch.attempt import (
    ELSEWHERE,
    Attempt,
    Discarded,
    Doubt,
    Failed,
    Generated,
    Intended,
    Landed,
    Lost,
    Open,
    TimedOut,
    Unconfirmed,
)
from batch.job import Failure, FailureKind, video_path
from batch.output.poster import DIGITS
from batch.output.row import failure_of
from batch.redact import clean
from batch.report.records import Records, Run, file_of

WORDS = {
    "succeeded": "succeeded",
    "failed": "failed",
    "timed_out": "timed out",
    "unconfirmed": "unconfirmed",
    "generating": "generating",
    "to_download": "to download",
    "missing": "not here",
    "stored": "in the bucket",
    "discarded": "discarded",
    "not_made": "not made yet",
}
_FOLDERS = ("videos/", "versions/", ".kling-batch/former/")  # where the page may link to

Entry = dict[str, Any]


def entries(records: Records, night: Run | None) -> list[Entry]:
    """Return the entries in the manifest's order; jobs that it does not list come last.

    Args:
        records: what was read.
        night: the run whose doings are marked as the last night's.
    """
    tags = dict(records.listed)
    others = sorted(records.attempts.keys() - tags.keys(), key=lambda job: _begun(records, job))
    found = [_entry(records, job_id, night) for job_id in (*tags, *others)]
    for entry in found:
        if tags.get(entry["id"]):
            entry["tags"] = list(tags[entry["id"]])
        if tags and entry["id"] not in tags:
            entry["orphan"] = True
    return found


def _begun(records: Records, job_id: str) -> tuple[float, str]:
    first = records.attempts[job_id][0]
    since: float = getattr(first.state, "since", 0.0)
    return sent_at(first) or since, job_id


def _entry(records: Records, job_id: str, night: Run | None) -> Entry:
    attempts = records.attempts.get(job_id, [])
    if not attempts:
        return {"id": job_id, "status": "not_made", "tries": []}
    newest = attempts[::-1]
    entry: Entry = {
        "id": job_id,
        "status": status_of(newest[0], records),
        "tries": [_try(attempt, newest[0], records) for attempt in newest],
    }
    if job_id in records.rests:
        entry["rests"] = records.rests[job_id]
    now = next((n for n, a in enumerate(newest) if stands(a, records)), None)
    if now is not None:
        entry["now"] = now
    if night is not None and any(
        night.covers(at) for attempt in attempts for at in moments(attempt)
    ):
        entry["night"] = True
        if now is not None and night.covers(landed_at(newest[now])):
            entry["flag"] = "changed" if _was_made(newest[now + 1 :]) else "new"
    if now is not None and getattr(newest[now].state, "pin", None) is not None:
        entry["flag"] = "pinned"
    return entry


def status_of(latest: Attempt, records: Records) -> str:
    """Return the status of a job whose latest attempt is this; `WORDS` has all of them."""
    match latest.state:
        case Landed(file=file):
            return "succeeded" if file in records.present else "missing"
        case Discarded():
            return "discarded"
        case Failed():
            return "failed"
        case TimedOut():
            return "timed_out"
        case Generated():
            return "to_download"
        case Open():
            return "generating" if records.is_running else "timed_out"
        case Intended() | Lost() if records.is_running:
            return "generating"
        case Unconfirmed() | Intended() | Lost():
            return "unconfirmed"


def stands(attempt: Attempt, records: Records) -> bool:
    """Return whether the video in videos/ is this attempt's."""
    return file_of(attempt) == video_path(attempt.job_id) in records.present


def sent_at(attempt: Attempt) -> float | None:
    """Return when the task was created."""
    return None if attempt.task is None else attempt.task.submitted_at


def landed_at(attempt: Attempt) -> float | None:
    """Return when the video came to the disk."""
    return attempt.state.landed_at if isinstance(attempt.state, Landed) else None


def moments(attempt: Attempt) -> list[float]:
    """Return when something happened to the attempt, as far as its state still knows."""
    names = ("landed_at", "failed_at", "timed_out_at", "generated_at", "since")
    known = [attempt.sent_at, *(getattr(attempt.state, name, None) for name in names)]
    return [moment for moment in known if moment is not None]


def _was_made(former: Sequence[Attempt]) -> bool:
    return any(isinstance(attempt.state, Landed | Discarded) for attempt in former)


def _try(attempt: Attempt, latest: Attempt, records: Records) -> dict[str, Any]:
    """Return an attempt; its request only where it differs from the latest one's."""
    state, task = attempt.state, attempt.task
    found: dict[str, Any] = {"status": status_of(attempt, records), "ext": attempt.external_task_id}
    if attempt is latest or attempt.request != latest.request:
        options = attempt.body()
        found |= {"prompt": options.pop("prompt", ""), "options": options}
    if task is not None:
        found |= {
            "task": task.task_id,
            "request": task.request_id,
            "sent": round(task.submitted_at),
        }
        found["usd"] = attempt.cost_usd
    for key, name in (
        ("generated", "generated_at"),
        ("landed", "landed_at"),
        ("failed", "failed_at"),
    ):
        if getattr(state, name, None) is not None:
            found[key] = round(getattr(state, name))
    if isinstance(state, Landed):
        video = state.video
        found |= {
            "landed": round(state.came_at),  # by which `restore` knows a version
            "bytes": state.bytes,
            "sha": state.sha256[:DIGITS],
            "video": [video.width, video.height, round(video.duration_s, 2)],
            "marks": ", ".join(video.credentials) or None,
            "warnings": [clean(warning) for warning in state.warnings],
        }
        found |= _place(state.file, attempt.job_id, records)
    error = _failure_of(attempt)
    if error is not None:
        found["error"] = {"kind": error.kind.value, "message": clean(error.message)}
        if error.is_unexplained:
            found["error"]["unexplained"] = True
    if found["status"] == "succeeded":
        del found["status"]  # of most
    return {key: value for key, value in found.items() if value not in (None, [])}


def _place(file: str, job_id: str, records: Records) -> dict[str, Any]:
    """Return where a video is, if it is anywhere: in a file that the page may link to, or the bucket."""
    if file in records.stored:
        return {"status": "stored"}
    if file in records.present and file.startswith(_FOLDERS):
        return {"file": True if file == video_path(job_id) else file}
    return {}


def _failure_of(attempt: Attempt) -> Failure | None:
    """Return why the attempt has not come to a video."""
    match attempt.state:
        case Lost(doubt=Doubt(failure)):
            return failure
        case TimedOut(said=said) if said == ELSEWHERE:
            return Failure(FailureKind.TIMEOUT, said)
        case TimedOut(said=said):
            told = f'; the provider says "{said}"' if said else ""
            return Failure(FailureKind.TIMEOUT, f"the task was still open at the end{told}")
        case _:
            return failure_of(attempt)
