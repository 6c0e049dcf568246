"""Rounds of `--force`: each job of one is regenerated once, whatever cuts the runs short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batch.attempt import Phase
from batch.job import Job
from batch.plan.decision import Known, Round


def is_due(after_number: int, attempts: Sequence[Known]) -> bool:
    """Return whether a job of a round still has no video of an attempt after *after_number*."""
    return not any(item.number > after_number and item.phase is Phase.LANDED for item in attempts)


def round_of(
    jobs: Sequence[Job], forced: Mapping[str, int], known: Mapping[str, Sequence[Known]]
) -> Round:
    """Return the round that `--force` goes on with for these jobs; a new one if none is left.

    Args:
        jobs: the jobs selected.
        forced: the jobs of the rounds so far, with the number of their last attempt at its beginning.
        known: attempts by job id.
    """
    due = {
        job.id: forced[job.id]
        for job in jobs
        if job.id in forced and is_due(forced[job.id], known.get(job.id, ()))
    }
    if due:
        return Round(due)
    begin = {job.id: attempts[-1].number for job in jobs if (attempts := known.get(job.id))}
    return Round({job.id: begin.get(job.id, 0) for job in jobs}, is_new=True)
