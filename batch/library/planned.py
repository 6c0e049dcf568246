"""What a run records of its plan when it begins: the rest of the state holds no manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from batch.job import Job
from batch.output.state import Fact
from batch.output.store import Store
from batch.target import FACT as TARGET
from batch.target import Target

LISTED = "listed"  # the manifest's jobs in their order: [[id, [tag, …], fingerprint], …]
PLANNED = "planned"


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of the latest run.

    It began *at*, with *to_pay* jobs to submit; *listed* maps the manifest's jobs to their tags, and
    is None if a release that did not record it ran last. *asked* maps them to their fingerprints.
    """

    at: float = 0.0
    to_pay: int = 0
    listed: dict[str, tuple[str, ...]] | None = None
    asked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, database: Store) -> Planned:
        """Return what the state holds of it."""
        planned, listed = database.fact(PLANNED), database.fact(LISTED)
        begun = {} if planned is None else json.loads(planned)
        jobs = [] if listed is None else json.loads(listed)
        return cls(
            begun.get("at", 0.0),
            begun.get("to_pay", 0),
            None if listed is None else {job[0]: tuple(job[1]) for job in jobs},
            {job[0]: job[2] for job in jobs if len(job) > 2},
        )

    def is_orphan(self, job_id: str) -> bool:
        """Return whether the manifest no longer lists a job, as far as is known."""
        return self.listed is not None and job_id not in self.listed

    def tags_of(self, job_id: str) -> tuple[str, ...]:
        """Return the tags of a job."""
        return (self.listed or {}).get(job_id, ())


def facts_of(
    database: Store, jobs: Iterable[Job], at: float, to_pay: int, target: Target | None
) -> list[Fact]:
    """Return what a run that begins *at* has to record; jobs and bucket only if they have changed."""
    listed = json.dumps([[job.id, job.tags, job.fingerprint] for job in jobs], ensure_ascii=False)
    uploads_to = "" if target is None else target.to_fact()
    facts = [Fact(LISTED, listed), Fact(TARGET, uploads_to)]
    changed = [fact for fact in facts if (database.fact(fact.name) or "") != fact.value]
    return [Fact(PLANNED, json.dumps({"at": at, "to_pay": to_pay})), *changed]
