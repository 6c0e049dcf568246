"""What a run hands over to the workers, beside its jobs: its terms, and each job's decision."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import field

from batch.engines.codec import UnknownValueError, from_json, to_json
from batch.errors import UsageError
from batch.frozen import frozen
from batch.job import Job
from batch.library.accounts import Figures
from batch.manifest.limits import Limits
from batch.manifest.model import Derived
from batch.output.fleet import OpenRun, Work
from batch.plan import Decision, Policy
from batch.settings import Receiver
from batch.target import Target

NEWER = "was handed over by another release of kling-batch; upgrade this worker"


@frozen
class Terms:
    """What the workers go by.

    *manifest* is its path where the run was planned; *target* the bucket that videos are uploaded to; *listed* its jobs, where files are derived from
    them; *planned* counts the jobs of the plan by action; *moved* and *resting* are what the summary
    says of jobs for which nothing is to be done; *before* are the library's figures when the run began;
    *forgot_at* is when the state was found to have forgotten tasks.
    """

    name: str
    manifest: str
    limits: Limits
    policy: Policy
    callback: Receiver | None = None
    target: Target | None = None
    derived: Derived = field(default_factory=Derived)
    listed: tuple[Job, ...] = ()
    planned: dict[str, int] = field(default_factory=dict)
    planned_cost_usd: float = 0.0
    moved: int = 0
    resting: tuple[tuple[str, str], ...] = ()
    before: Figures = field(default_factory=Figures)
    forgot_at: float | None = None

    @classmethod
    def of(cls, run: OpenRun) -> Terms:
        """Return the terms of a run.

        Raises:
            UsageError: it was handed over by a release that says more than this one knows.
        """
        try:
            return from_json(cls, json.loads(run.terms))
        except UnknownValueError as error:
            raise UsageError(f"the run {run.run_id} {NEWER} ({error})") from error

    def written(self) -> str:
        """Return them as JSON."""
        return json.dumps(to_json(self), ensure_ascii=False)


def works(decisions: Iterable[tuple[int, Decision]]) -> list[Work]:
    """Return decisions, each with its place, as they are handed over."""
    return [Work(order, decision.job_id, _written(decision)) for order, decision in decisions]


def _written(decision: Decision) -> str:
    return json.dumps(to_json(decision, is_sparse=True), ensure_ascii=False)


def decision_of(work: Work) -> Decision:
    """Return what was planned for a job.

    Raises:
        UsageError: it was handed over by a release that says more than this one knows.
    """
    try:
        return from_json(Decision, json.loads(work.work))
    except UnknownValueError as error:
        raise UsageError(f"the job {work.job_id} {NEWER} ({error})") from error
