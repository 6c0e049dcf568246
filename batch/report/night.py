"""The picture of a run: its tasks, packed into as many lanes as slots were in use."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

from batch.attempt import Attempt, Discarded, Failed, Generated, Landed, Open, TimedOut
from batch.errors import ExitCode
from batch.library.accounts import figures
from batch.report.entries import Entry, moments, sent_at
from batch.report.records import Records, Run

NIGHTS = 14  # runs that can be chosen; older ones are totals
TASKS = 6_000  # of all nights together, so that the page stays small
SENTENCES = {
    ExitCode.OK: "everything is done",
    ExitCode.JOBS_FAILED: "went through; not everything is done",
    ExitCode.USAGE: "wrong usage; nothing was sent",
    ExitCode.LIMIT: "stopped early by a limit of your own",
    ExitCode.ACCOUNT: "the provider refuses the account, or the base URL is wrong",
    ExitCode.BUG: "a bug of kling-batch",
    ExitCode.INTERRUPTED: "interrupted; the next run goes on",
    ExitCode.TERMINATED: "terminated; the next run goes on",
}


class Task(NamedTuple):
    """A task within a run; times in seconds from its start. `GENERATED` and so on are *outcome*."""

    job: int
    begin: float
    end: float
    outcome: int
    landed: float | None = None


GENERATED, FAILED, TIMED_OUT, OPEN = range(4)


def sentence(run: Run, *, is_running: bool) -> str:
    """Return how a run ended, in words."""
    if run.exit_code is None:
        return "under way" if is_running else "did not end properly; run again to go on"
    try:
        return SENTENCES[ExitCode(run.exit_code)]
    except (KeyError, ValueError):
        return f"ended with exit code {run.exit_code}"


def touched(records: Records) -> dict[str, list[Attempt]]:
    """Return the attempts that something happened to in a run, by the id of the run."""
    runs = sorted(records.runs, key=lambda run: run.started_at)
    begins = [run.started_at for run in runs]
    found: dict[str, list[Attempt]] = {}
    for attempt in itertools.chain.from_iterable(records.attempts.values()):
        pairs = ((runs[bisect_right(begins, moment) - 1], moment) for moment in moments(attempt))
        for run_id in {run.run_id for run, moment in pairs if run.covers(moment)} if runs else ():
            found.setdefault(run_id, []).append(attempt)
    return found


def nights(records: Records, found: list[Entry]) -> list[dict[str, Any]]:
    """Return the runs that did something, the latest first; up to `NIGHTS` have their lanes."""
    numbers = {entry["id"]: number for number, entry in enumerate(found)}
    attempts = touched(records)
    shown: list[dict[str, Any]] = []
    room = TASKS
    for run in reversed(records.runs):
        if run.run_id not in attempts:
            continue
        night = _totals(records, run, attempts[run.run_id])
        tasks = sorted(_tasks(attempts[run.run_id], run, numbers), key=lambda task: task.begin)
        if len(shown) < NIGHTS and len(tasks) <= room:
            room -= len(tasks)
            night["tasks"] = _packed(tasks)
        shown.append(night)
    return shown


def _totals(records: Records, run: Run, attempts: list[Attempt]) -> dict[str, Any]:
    spent = figures(attempt for attempt in attempts if run.covers(attempt.sent_at))
    is_running = records.is_running and run is records.runs[-1]
    found = {
        "id": run.run_id,
        "begin": round(run.started_at),
        "end": round(run.until),
        "exit": run.exit_code,
        "sentence": sentence(run, is_running=is_running),
        "made": sum(run.covers(getattr(a.state, "landed_at", None)) for a in attempts),
        "paid": spent.tasks,
        "usd": spent.cost_usd,
        "perhaps_usd": spent.perhaps_usd or None,
        "stopped": run.summary.get("stopped"),
        "refused": run.summary.get("refused") or None,
        "limits": run.limits or (records.limits if is_running else None),
    }
    return {key: value for key, value in found.items() if value is not None}


def _tasks(attempts: Iterable[Attempt], run: Run, numbers: dict[str, int]) -> Iterable[Task]:
    """Yield the tasks that were in the making during *run*; fetching a file again makes none."""
    for attempt in attempts:
        begun = sent_at(attempt)
        landed: float | None = None
        match attempt.state:
            case Landed() | Discarded():
                ended, landed = attempt.state.generated_at, attempt.state.landed_at
                outcome = GENERATED
            case Generated(generated_at=ended):
                outcome = GENERATED
            case Failed(failed_at=ended):
                outcome = FAILED
            case TimedOut(timed_out_at=ended):
                outcome = TIMED_OUT
            case Open():
                ended, outcome = run.until, OPEN
            case _:
                continue
        if begun is None or ended < run.started_at or begun > run.until:
            continue
        until = landed if run.covers(landed) else None
        begin = max(begun, run.started_at)
        yield Task(
            numbers[attempt.job_id],
            begin - run.started_at,
            max(min(ended, run.until), begin) - run.started_at,  # the clock may have been set back
            outcome if ended <= run.until else OPEN,
            None if until is None else until - run.started_at,
        )


def _packed(tasks: Iterable[Task]) -> list[list[Any]]:
    """Return [job, lane, begin, end, outcome, landed], each task in the first lane that is free.

    Args:
        tasks: in the order of their beginnings.
    """
    free: list[int] = []  # lanes
    busy: list[tuple[float, int]] = []  # when a lane will be free
    lanes = 0
    packed: list[list[Any]] = []
    for task in tasks:
        while busy and busy[0][0] <= task.begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, lanes = lanes, lanes + 1
        heapq.heappush(busy, (task.end, lane))
        row: list[Any] = [task.job, lane, round(task.begin, 1), round(task.end, 1), task.outcome]
        packed.append(row if task.landed is None else [*row, round(task.landed, 1)])
    return packed
