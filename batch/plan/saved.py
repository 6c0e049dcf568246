"""A saved plan: what a person has seen, and lets a run pay for.

    {"kind": "kling-batch plan", "schema": 1, "saved_at": "2026-11-28T01:00:00Z", "name": "loops",
     "output_dir": "/srv/outputs/loops", "library": "0f…", "sandbox": false, "cost_usd": 0.35,
     "jobs": [{"job_id": "fox", "fingerprint": "v2:…", "action": "new", "paid": 0, "cost_usd": 0.35}]}

A run by it pays once for each of these jobs, as long as it asks for the same request (*fingerprint*),
costs no more than it did, and was not paid for since: *paid* counts the tasks made for that request so
far. *library* is null where there was none yet; then *output_dir* names it. Later schemas only add.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from batch.frozen import frozen
from batch.plan.decision import COSTING, Action, Decision, Round
from batch.plan.decisions import Decisions, Plan

KIND = "kling-batch plan"
SCHEMA = 1
NAMED = 20  # jobs in a sentence
_DUST_USD = 1e-6  # prices are saved with six digits


@frozen
class SavedJob:
    """A job that may be paid for once."""

    job_id: str
    fingerprint: str
    action: str
    paid: int
    cost_usd: float


@frozen
class SavedPlan:
    """What was to be paid for, and in which library."""

    saved_at: str
    name: str
    output_dir: str
    library: str | None
    sandbox: bool
    jobs: tuple[SavedJob, ...]

    def to_json(self) -> str:
        """Return it as the text of a file."""
        cost_usd = round(sum(job.cost_usd for job in self.jobs), 6)
        values = {**asdict(self), "jobs": [asdict(job) for job in self.jobs]}
        found = {"kind": KIND, "schema": SCHEMA, **values, "cost_usd": cost_usd}
        return json.dumps(found, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> SavedPlan:
        """Return the plan that a file holds.

        Raises:
            ValueError: it holds none, or one of a later release.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or found.get("kind") != KIND:
            raise ValueError("it is not a saved plan; `kling-batch plan --out` writes one")
        if found.get("schema") != SCHEMA:
            raise ValueError(
                f"it has schema {found.get('schema')}, and this release reads {SCHEMA}"
            )
        try:
            return cls(
                saved_at=str(found["saved_at"]),
                name=str(found["name"]),
                output_dir=str(found["output_dir"]),
                library=None if found["library"] is None else str(found["library"]),
                sandbox=bool(found["sandbox"]),
                jobs=tuple(map(_job, found["jobs"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("it lacks something that a saved plan has; save it again") from error


def _job(found: dict[str, Any]) -> SavedJob:
    return SavedJob(
        job_id=str(found["job_id"]),
        fingerprint=str(found["fingerprint"]),
        action=str(found["action"]),
        paid=int(found["paid"]),
        cost_usd=float(found["cost_usd"]),
    )


def saved_jobs(plan: Plan) -> tuple[SavedJob, ...]:
    """Return the jobs of a plan that are to be paid for."""
    return tuple(
        SavedJob(
            item.job_id,
            item.job.fingerprint,
            item.action.value,
            item.paid,
            round(item.cost_usd or 0.0, 6),
        )
        for item in plan.decisions
        if item.job is not None and item.action in COSTING and item.held is None
    )


def hold(plan: Plan, saved: SavedPlan) -> None:
    """Hold back what *plan* would pay for and *saved* does not allow."""
    allowed = {job.job_id: job for job in saved.jobs}
    decisions = [_judged(item, allowed.get(item.job_id)) for item in plan.decisions]
    done = [item for item in decisions if item.action is Action.UNCHANGED]
    plan.counts += Counter(item.action for item in decisions)
    plan.counts -= Counter(item.action for item in plan.decisions)
    plan.decisions = Decisions(item for item in decisions if item not in done or item.former)
    if plan.round is not None:
        plan.round = _rest_of(plan.round, plan.decisions)


def told_held(decisions: Iterable[Decision]) -> str:
    """Return which jobs are held back and why, in a sentence; empty if there are none."""
    held = [f"{item.job_id!r} {item.held}" for item in decisions if item.held is not None]
    if not held:
        return ""
    more = [f"and {len(held) - NAMED} more"] if len(held) > NAMED else []
    count = "1 job is" if len(held) == 1 else f"{len(held)} jobs are"
    return (
        f"{count} left by the saved plan: {'; '.join([*held[:NAMED], *more])}; plan again to go on"
    )


def _judged(item: Decision, saved: SavedJob | None) -> Decision:
    """Return a decision, held where it would pay for what is not allowed."""
    if item.job is None:
        return item
    is_same = saved is not None and saved.fingerprint == item.job.fingerprint
    if item.action is Action.FORCED and is_same and saved is not None and item.paid > saved.paid:
        reason = "up to date, regenerated since the plan was saved"
        return item._replace(action=Action.UNCHANGED, reason=reason, cost_usd=None)
    held = None
    if saved is None:
        held = "is not in the saved plan"
    elif not is_same:
        held = "was changed after the plan was saved"
    elif item.paid > saved.paid:
        held = "was paid for after the plan was saved, and failed"
    elif not (item.cost_usd or 0.0) <= saved.cost_usd + _DUST_USD:
        held = f"costs ${item.cost_usd:.2f} by now, and ${saved.cost_usd:.2f} in the saved plan"
    return item if held is None else item._replace(held=held, cost_usd=None)


def _rest_of(begun: Round, decisions: Iterable[Decision]) -> Round:
    """Return a round of --force without the jobs that are not regenerated now."""
    forced = [item for item in decisions if item.action is Action.FORCED and item.held is None]
    requests = {item.job.fingerprint for item in forced if item.job is not None}
    return Round(
        frozenset(item.job_id for item in forced),
        {name: videos for name, videos in begun.begun.items() if name in requests},
    )
