"""Rounds of `--force`: each request of one is generated once more, whatever cuts the runs short.

A round counts videos, so that renamed jobs and clocks that jump change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from batch.job import Job
from batch.plan.decision import Known, Round


def videos_of(known: Mapping[str, Sequence[Known]]) -> Counter[str]:
    """Count the videos that have landed, by fingerprint."""
    return Counter(
        item.fingerprint
        for attempts in known.values()
        for item in attempts
        if item.phase.has_landed
    )


def due_jobs(
    jobs: Sequence[Job], forced: Mapping[str, int], videos: Counter[str]
) -> frozenset[str]:
    """Return the ids of the jobs that a round has left.

    Of jobs with the same request the last ones are left: a run is cut short at its end.

    Args:
        jobs: the jobs in question that have a video.
        forced: how many videos each request of a round had when that began.
        videos: how many each has now.
    """
    wanted = Counter(job.fingerprint for job in jobs if job.fingerprint in forced)
    left = {name: forced[name] + number - videos[name] for name, number in wanted.items()}
    due: set[str] = set()
    for job in reversed(jobs):
        if left.get(job.fingerprint, 0) > 0:
            left[job.fingerprint] -= 1
            due.add(job.id)
    return frozenset(due)


def round_of(jobs: Sequence[Job], due: frozenset[str], videos: Counter[str]) -> Round:
    """Return the round that `--force` goes on with; a new one of all *jobs* if none of them is left."""
    if due:
        return Round(due)
    begun = {job.fingerprint: videos[job.fingerprint] for job in jobs}
    return Round(frozenset(job.id for job in jobs), begun)
