"""What a run records of its plan when it begins: the rest of the state holds no manifest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from batch.job import Job
from batch.output.state import Fact
from batch.output.store import Store
from batch.target import FACT as TARGET
from batch.target import Target

LISTED = "listed"  # the manifest's jobs in their order: [[id, [tag, …], fingerprint], …]
PLANNED = "planned"
BLOCK = 1_024  # jobs


class Planned:
    """The plan of the latest run: it began *at*, with *to_pay* jobs to submit.

    Its jobs may be a million, and are read when they are asked for.
    """

    def __init__(self, database: Store) -> None:
        begun = json.loads(database.fact(PLANNED) or "{}")
        self.at: float = begun.get("at", 0.0)
        self.to_pay: int = begun.get("to_pay", 0)
        self._database = database

    @cached_property
    def listed(self) -> dict[str, tuple[str, ...]] | None:
        """The manifest's jobs with their tags; None if a release that did not record them ran last."""
        jobs = self._jobs()
        return None if jobs is None else {job[0]: tuple(job[1]) for job in jobs}

    @cached_property
    def asked(self) -> dict[str, str]:
        """The fingerprints of the manifest's jobs, as far as they are recorded."""
        return {job[0]: job[2] for job in self._jobs() or () if len(job) > 2}

    def _jobs(self) -> list[Any] | None:
        listed = self._database.fact(LISTED)
        return None if listed is None else json.loads(listed)

    def is_orphan(self, job_id: str) -> bool:
        """Return whether the manifest no longer lists a job, as far as is known."""
        return self.listed is not None and job_id not in self.listed

    def tags_of(self, job_id: str) -> tuple[str, ...]:
        """Return the tags of a job; those of its last row, where the manifest no longer lists it."""
        if self.is_orphan(job_id):
            return self._last_tags.get(job_id, ())
        return (self.listed or {}).get(job_id, ())

    @cached_property
    def _last_tags(self) -> dict[str, tuple[str, ...]]:
        rows = map(json.loads, self._database.result_lines())
        said = ((str(row["job_id"]), tuple(row.get("tags", ()))) for row in rows)
        return {job_id: tags for job_id, tags in said if self.is_orphan(job_id)}


def facts_of(
    database: Store, jobs: Iterable[Job], at: float, to_pay: int, target: Target | None
) -> list[Fact]:
    """Return what a run that begins *at* has to record; jobs and bucket only if they have changed."""
    listed = f"[{', '.join(_written(jobs))}]"
    uploads_to = "" if target is None else target.to_fact()
    facts = [Fact(LISTED, listed), Fact(TARGET, uploads_to)]
    changed = [fact for fact in facts if (database.fact(fact.name) or "") != fact.value]
    return [Fact(PLANNED, json.dumps({"at": at, "to_pay": to_pay})), *changed]


def _written(jobs: Iterable[Job]) -> Iterator[str]:
    """Yield what is recorded of the jobs, some at a time: there may be a million."""
    left = iter(jobs)
    while block := [[job.id, job.tags, job.fingerprint] for job in itertools.islice(left, BLOCK)]:
        yield json.dumps(block, ensure_ascii=False)[1:-1]
