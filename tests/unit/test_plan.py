"""The plan: what a run does with each job, for everything that can be known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from batch.job import FailureKind, Job, canonical_request, fingerprint
from batch.plan import (
    PAYING,
    Action,
    Decision,
    Plan,
    Policy,
    is_selected,
    make_plan,
)


@dataclass(frozen=True)
class Tried:
    """An attempt as the store tells of it."""

    external_task_id: str
    fingerprint: str
    state: str
    number: int = 1
    task_id: str | None = None
    failure_kind: str | None = None
    file: str | None = None
    bytes: int | None = None


def job(prompt: str = "a cat", job_id: str = "a", tags: tuple[str, ...] = ()) -> Job:
    request = canonical_request({"prompt": prompt})
    return Job(job_id, request, fingerprint(request, None), tags)


NOW, BEFORE = job().fingerprint, job("a dog").fingerprint
OPEN_STATES = ["Intended", "Lost", "Open", "TimedOut", "Unconfirmed"]


def landed(of: str = NOW, **how: Any) -> Tried:
    return Tried("kb-1", of, "Landed", task_id="8", file="videos/a.mp4", bytes=9, **how)


def failed(kind: FailureKind, *, paid: bool = True, number: int = 1) -> Tried:
    task_id = f"8{number}" if paid else None
    return Tried(f"kb-{number}", NOW, "Failed", number, task_id, kind.value)


def planned(
    *attempts: Tried, present: bool = True, jobs: list[Job] | None = None, **policy: Any
) -> Plan:
    known = {"a": list(attempts)} if attempts else {}
    return make_plan(
        [job()] if jobs is None else jobs,
        known,
        policy=Policy(**policy),
        is_present=lambda _file, _size: present,
        price=lambda _job: (0.21, True),
    )


def decided(*attempts: Tried, **how: Any) -> Decision | None:
    decisions = planned(*attempts, **how).decisions
    assert len(decisions) <= 1
    return decisions[0] if decisions else None


def action(*attempts: Tried, **how: Any) -> Action:
    (only,) = planned(*attempts, **how).counts
    return only


def test_what_was_never_made_is_new() -> None:
    decision = decided()
    assert decision is not None
    assert decision.action is Action.NEW
    assert (decision.number, decision.attempt, decision.cost_usd) == (1, None, 0.21)


def test_what_is_there_is_unchanged() -> None:
    assert action(landed()) is Action.UNCHANGED
    assert decided(landed()) is None


def test_a_missing_file_is_fetched_and_not_paid_for() -> None:
    decision = decided(landed(), present=False)
    assert decision is not None
    assert (decision.action, decision.attempt) == (Action.FETCH, "kb-1")
    assert decision.cost_usd is None


def test_a_video_under_another_name_is_fetched() -> None:
    """It landed as a former version, and is wanted again."""
    former = Tried("kb-1", NOW, "Landed", task_id="8", file=".kling-batch/former/x.mp4", bytes=9)
    assert action(former) is Action.FETCH


def test_force_makes_anew_what_is_there() -> None:
    decision = decided(landed(), force=True)
    assert decision is not None
    assert (decision.action, decision.attempt, decision.number) == (Action.FORCED, None, 2)


@pytest.mark.parametrize("state", [*OPEN_STATES, "Generated"])
@pytest.mark.parametrize("force", [False, True])
def test_what_may_be_paid_for_goes_on(state: str, force: bool) -> None:
    """Never beside an attempt that may have a task; not even with --force."""
    decision = decided(Tried("kb-1", NOW, state), force=force)
    assert decision is not None
    assert decision.action not in PAYING
    assert decision.attempt == "kb-1"


def test_another_prompt_is_a_change() -> None:
    decision = decided(landed(BEFORE))
    assert decision is not None
    assert (decision.action, decision.former) == (Action.CHANGED, ())


@pytest.mark.parametrize("state", [*OPEN_STATES, "Generated"])
def test_a_changed_job_collects_what_was_open(state: str) -> None:
    decision = decided(Tried("kb-1", BEFORE, state))
    assert decision is not None
    assert (decision.action, decision.former) == (Action.CHANGED, ("kb-1",))


def test_an_unchanged_job_still_collects_what_is_open_for_a_former_version() -> None:
    """It is done; only the former version has something left, and nothing is to be paid."""
    former = Tried("kb-0", BEFORE, "TimedOut", task_id="7")
    decision = decided(former, landed(number=2))
    assert decision is not None
    assert (decision.action, decision.former) == (Action.UNCHANGED, ("kb-0",))
    assert decision.cost_usd is None


@pytest.mark.parametrize("state", [*OPEN_STATES, "Generated"])
def test_a_removed_job_collects_what_was_open(state: str) -> None:
    decision = decided(Tried("kb-1", NOW, state), jobs=[])
    assert decision is not None
    assert (decision.action, decision.job, decision.former) == (Action.ORPHANED, None, ("kb-1",))


def test_a_removed_job_with_nothing_open_needs_nothing() -> None:
    plan = planned(landed(), jobs=[])
    assert plan.decisions == []
    assert len(plan.orphans) == 1


HEALING = [
    FailureKind.GENERATION,
    FailureKind.PROVIDER,
    FailureKind.NETWORK,
    FailureKind.RATE_LIMITED,
    FailureKind.TIMEOUT,
]


@pytest.mark.parametrize("kind", list(FailureKind))
def test_only_what_heals_by_itself_is_tried_anew(kind: FailureKind) -> None:
    """Moderation and invalid input are never paid for again unasked."""
    expected = Action.RETRY if kind in HEALING else Action.RESTING
    assert action(failed(kind)) is expected


@pytest.mark.parametrize("kind", list(FailureKind))
def test_retry_failed_tries_everything_anew(kind: FailureKind) -> None:
    assert action(failed(kind), retry_failed=True) is Action.RETRY


@pytest.mark.parametrize("retry_failed", [False, True])
def test_max_attempts_is_the_end(retry_failed: bool) -> None:
    attempts = [failed(FailureKind.GENERATION, number=number) for number in (1, 2, 3)]
    assert action(*attempts, max_attempts=3, retry_failed=retry_failed) is Action.RESTING
    assert action(*attempts, max_attempts=4) is Action.RETRY


def test_only_paid_failures_count() -> None:
    attempts = [failed(FailureKind.NETWORK, paid=False, number=number) for number in range(1, 9)]
    assert action(*attempts, max_attempts=1) is Action.RETRY


def test_failures_before_a_success_do_not_count() -> None:
    attempts = [failed(FailureKind.GENERATION, number=number) for number in (1, 2)]
    made = landed(number=3)
    decision = decided(*attempts, made, force=True)
    assert decision is not None
    assert (decision.paid, decision.failed_paid, decision.number) == (3, 0, 4)


def test_an_attempts_number_goes_on_over_all_versions() -> None:
    decision = decided(landed(BEFORE, number=7))
    assert decision is not None
    assert decision.number == 8
    assert decision.paid == 0, "tasks of another version are not this one's"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), True),
        (("sea/*",), True),
        (("sky/*",), False),
        (("tag:blue",), True),
        (("tag:re*",), False),
        (("sky/*", "tag:b*"), True),
    ],
)
def test_selection_takes_globs_and_tags(patterns: tuple[str, ...], expected: bool) -> None:
    assert is_selected("sea/whale", ("blue",), patterns) is expected


def test_what_is_not_selected_is_not_planned() -> None:
    plan = planned(landed(BEFORE), select=("other",))
    assert plan.decisions == []
    assert not plan.counts


def test_the_cost_is_the_sum_of_what_is_to_be_paid() -> None:
    jobs = [job(job_id=name) for name in "bcd"]
    plan = planned(jobs=jobs)
    assert plan.cost_usd == pytest.approx(0.63)
    assert not plan.has_unknown_price
