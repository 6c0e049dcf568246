"""For tests of a run: jobs of a manifest, their attempts and the plan for both."""

from __future__ import annotations

from typing import Any

from fake_provider import video
from scripted import ACCOUNT, Stages

from batch.attempt import Attempt
from batch.job import Job, canonical_request, fingerprint
from batch.plan import Plan, Policy, make_plan

VIDEO = video("8", 5000)


def job(job_id: str = "a", prompt: str = "a cat") -> Job:
    """Return a job."""
    request = canonical_request({"prompt": prompt, "duration": "5", "aspect_ratio": "1:1"})
    return Job(job_id, request, fingerprint(request, None))


def tried(state: Any, of: Job, name: str = "kb-0", number: int = 1) -> Attempt:
    """Return an attempt for a job."""
    return Attempt(name, of.id, of.fingerprint, number, of.request, state, account=ACCOUNT)


async def planned(stages: Stages, jobs: list[Job], **policy: Any) -> Plan:
    """Plan *jobs* by the state of these stages, and by their policy unless one is given."""
    return make_plan(
        jobs,
        await stages.state.known(),
        policy=Policy(**policy) if policy else stages.context.policy,
        is_present=lambda item: _size(stages, str(item.file)) == item.bytes,
        price=lambda _job: (0.21, True),
    )


def _size(stages: Stages, file: str) -> int | None:
    place = stages.videos.layout.root / file
    return place.stat().st_size if place.exists() else None


async def feed(stages: Stages, *jobs: Job) -> Plan:
    """Plan *jobs*, execute the plan and return it."""
    plan = await planned(stages, list(jobs))
    await stages.feeder.feed(plan.decisions)
    return plan
