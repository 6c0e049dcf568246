"""Which failed jobs no run retries by itself: the rule of a plan, for those who tell without a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from batch.attempt import Phase
from batch.days import parse_time
from batch.job import Job
from batch.output.store import Store, recorded
from batch.plan import HEALS_BY_ITSELF, Action, Known, Policy, decide

RECENT = 20  # runs; one that was killed has recorded no limits


class Rest(StrEnum):
    """Why a job is not retried although the kind of its failure passes, or may do so."""

    SPENT = "spent"  # it has failed as often as `max_attempts` allows
    RESTING = "resting"  # it was tried again, or on as many days as `give_up_after` allows


def policy_of(database: Store) -> Policy:
    """Return what the latest run that has recorded it says of failures; the defaults without one."""
    for *_, summary in database.runs(RECENT):
        limits = recorded(summary).get("limits") or {}
        if "max_attempts" in limits:
            return Policy(
                max_attempts=limits["max_attempts"],
                give_up_after=limits.get("give_up_after"),
                day_starts=parse_time(limits.get("day_starts", "00:00")),
            )
    return Policy()


def rest_of(job: Sequence[Known], policy: Policy) -> Rest | None:
    """Return why a job rests, all of whose attempts are given; None if it does not, or by its kind."""
    latest = job[-1]
    if latest.phase is not Phase.FAILED:
        return None
    asked = Job(latest.job_id, "", latest.fingerprint)
    decision = decide(asked, job, policy, lambda _: True)
    if decision.action is not Action.RESTING:
        return None
    if decision.failed_paid >= policy.max_attempts:
        return Rest.SPENT
    return Rest.RESTING if latest.failure_kind in HEALS_BY_ITSELF else None
