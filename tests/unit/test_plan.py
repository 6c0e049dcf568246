"""The plan: what a run does with each job, for everything that can be known of it."""

from __future__ import annotations

from typing import Any

import pytest

from batch.attempt import Phase
from batch.days import local_date
from batch.job import Failure, FailureKind, Job, canonical_request, fingerprint
from batch.plan import (
    PAYING,
    Action,
    Decision,
    Known,
    Plan,
    Policy,
    make_plan,
    passes,
)
from batch.plan.select import STATES, Selection


def job(prompt: str = "a cat", job_id: str = "a", tags: tuple[str, ...] = ()) -> Job:
    request = canonical_request({"prompt": prompt})
    return Job(job_id, request, fingerprint(request, None), tags)


NOW, BEFORE = job().fingerprint, job("a dog").fingerprint
COLLECTABLE = [phase for phase in Phase if not phase.is_finished]


def tried(
    of: str, phase: Phase, *, number: int = 1, task_id: str | None = None, **what: Any
) -> Known:
    fields = dict.fromkeys(("failure_kind", "file", "bytes", "cost_usd", "landed_at"))
    names = (f"kb-{number}", "a", number, of, phase, task_id)
    return Known(*names, **{**fields, **what})


def landed(of: str = NOW, *, file: str = "videos/a.mp4", number: int = 1) -> Known:
    return tried(of, Phase.LANDED, number=number, task_id=f"8{number}", file=file, bytes=9)


def failed(kind: FailureKind, *, paid: bool = True, number: int = 1, **what: Any) -> Known:
    task_id = f"8{number}" if paid else None
    what["failure_kind"] = kind.value
    return tried(NOW, Phase.FAILED, number=number, task_id=task_id, **what)


def planned(
    *attempts: Known, present: bool = True, jobs: list[Job] | None = None, **policy: Any
) -> Plan:
    known = {"a": list(attempts)} if attempts else {}
    return make_plan(
        [job()] if jobs is None else jobs,
        known,
        policy=Policy(**policy),
        is_present=lambda _item: present,
        price=lambda _job: (0.21, True),
    )


def decided(*attempts: Known, **how: Any) -> Decision | None:
    decisions = planned(*attempts, **how).decisions
    assert len(decisions) <= 1
    return decisions[0] if decisions else None


def action(*attempts: Known, **how: Any) -> Action:
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


@pytest.mark.parametrize("changed", [None, 0, 2, 4])
def test_each_video_is_looked_at_once(changed: int | None) -> None:
    """Looking may mean reading a file, and what is found is recorded: also where one job is changed."""
    jobs = [job(f"cat {number}", f"job-{number}") for number in range(5)]
    known = {}
    for each in jobs:
        of = BEFORE if each.id == f"job-{changed}" else each.fingerprint
        video = landed(of, file=each.video_path)
        known[each.id] = [video._replace(job_id=each.id, external_task_id=f"kb-{each.id}")]
    looked_at: list[str] = []

    def is_present(item: Known) -> bool:
        looked_at.append(item.job_id)
        return True

    policy, price = Policy(), lambda _job: (0.21, True)
    plan = make_plan(jobs, known, policy=policy, is_present=is_present, price=price)
    assert looked_at == [each.id for each in jobs if each.id != f"job-{changed}"]
    expected = (
        {Action.UNCHANGED: 5} if changed is None else {Action.UNCHANGED: 4, Action.CHANGED: 1}
    )
    assert plan.counts == expected


def test_a_missing_file_is_fetched_without_payment() -> None:
    decision = decided(landed(), present=False)
    assert decision is not None
    assert (decision.action, decision.attempt) == (Action.FETCH, "kb-1")
    assert decision.cost_usd is None


def test_a_video_under_another_name_is_fetched() -> None:
    """It landed as a former version, and is wanted again."""
    assert action(landed(file=".kling-batch/former/x.mp4")) is Action.FETCH


def test_force_regenerates_an_unchanged_job() -> None:
    decision = decided(landed(), force=True)
    assert decision is not None
    assert (decision.action, decision.attempt, decision.number) == (Action.FORCED, None, 2)


@pytest.mark.parametrize("phase", COLLECTABLE)
@pytest.mark.parametrize("force", [False, True])
def test_what_may_be_paid_for_goes_on(phase: Phase, force: bool) -> None:
    """Never beside an attempt that may have a task; not even with --force."""
    decision = decided(tried(NOW, phase), force=force)
    assert decision is not None
    assert decision.action not in PAYING
    assert decision.attempt == "kb-1"


def test_another_prompt_is_a_change() -> None:
    decision = decided(landed(BEFORE))
    assert decision is not None
    assert (decision.action, decision.former) == (Action.CHANGED, ())


@pytest.mark.parametrize("phase", COLLECTABLE)
def test_a_changed_job_collects_what_was_open(phase: Phase) -> None:
    decision = decided(tried(BEFORE, phase))
    assert decision is not None
    assert (decision.action, decision.former) == (Action.CHANGED, ("kb-1",))


def test_an_unchanged_job_collects_its_former_version() -> None:
    """It is done; only the former version has something left, and nothing is to be paid."""
    former = tried(BEFORE, Phase.TIMED_OUT, number=0, task_id="7")
    decision = decided(former, landed(number=2))
    assert decision is not None
    assert (decision.action, decision.former) == (Action.UNCHANGED, ("kb-0",))
    assert decision.cost_usd is None


@pytest.mark.parametrize("phase", COLLECTABLE)
def test_a_removed_job_collects_what_was_open(phase: Phase) -> None:
    decision = decided(tried(NOW, phase), jobs=[])
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
def test_only_failures_that_pass_are_retried(kind: FailureKind) -> None:
    """Moderation and invalid input are never paid for again unasked."""
    expected = Action.RETRY if kind in HEALING else Action.RESTING
    assert action(failed(kind)) is expected


@pytest.mark.parametrize("kind", list(FailureKind))
def test_retry_failed_retries_every_failure(kind: FailureKind) -> None:
    assert action(failed(kind), retry_failed=True) is Action.RETRY


@pytest.mark.parametrize("retry_failed", [False, True])
def test_max_attempts_is_the_end(retry_failed: bool) -> None:
    attempts = [failed(FailureKind.GENERATION, number=number) for number in (1, 2, 3)]
    assert action(*attempts, max_attempts=3, retry_failed=retry_failed) is Action.RESTING
    assert action(*attempts, max_attempts=4) is Action.RETRY


def test_reached_max_attempts_names_the_way_out() -> None:
    failures = [failed(FailureKind.GENERATION, number=number) for number in (1, 2, 3)]
    (resting,) = planned(*failures, max_attempts=3, retry_failed=True).resting
    assert "change the job, or raise limits.max_attempts" in resting.reason


NOON = 1_795_864_800.0  # 2026-11-28 12:00 in UTC
DAY_S = 86_400.0


def failing(*failed_at: float) -> list[Known]:
    return [
        failed(FailureKind.GENERATION, number=number, failed_at=at)
        for number, at in enumerate(failed_at, 1)
    ]


@pytest.mark.parametrize(
    ("failed_at", "expected"),
    [
        ((NOON, NOON + 1, NOON + 2), Action.RETRY),
        ((NOON, NOON + DAY_S), Action.RETRY),
        ((NOON, NOON + DAY_S, NOON + 2 * DAY_S), Action.RESTING),
        ((NOON, NOON + DAY_S, NOON + 9 * DAY_S, NOON + 9 * DAY_S), Action.RESTING),
    ],
)
def test_job_rests_after_so_many_nights(failed_at: tuple[float, ...], expected: Action) -> None:
    """Several failures of one night count once."""
    attempts = failing(*failed_at)
    policy = {"give_up_after": 3, "max_attempts": 9}
    assert action(*attempts, **policy) is expected
    assert action(*attempts, **policy, retry_failed=True) is Action.RETRY
    assert action(*attempts, max_attempts=9) is Action.RETRY


def test_resting_job_says_since_when() -> None:
    attempts = failing(NOON, NOON + DAY_S, NOON + 2 * DAY_S)
    (resting,) = planned(*attempts, give_up_after=3, max_attempts=9).resting
    assert resting.reason == (
        f"rests since {local_date(NOON + 2 * DAY_S)} (generation); change it, or --retry-failed"
    )


def test_nights_before_a_video_or_without_a_task_do_not_count() -> None:
    """What never reached the provider says nothing about the job."""
    first, second, third = failing(NOON, NOON + DAY_S, NOON + 2 * DAY_S)
    policy = {"give_up_after": 2, "max_attempts": 9}
    made = landed(number=2)
    assert action(first, made, third, **policy, force=True) is Action.RETRY
    assert action(first, made, third, **policy) is Action.UNCHANGED
    unsent = failed(FailureKind.NETWORK, paid=False, number=2, failed_at=NOON + DAY_S)
    assert action(first, unsent, **policy) is Action.RETRY
    assert action(first, unsent, third, **policy) is Action.RESTING


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([True], Action.RETRY),
        ([True, True], Action.RESTING),
        ([False, True], Action.RETRY),
        ([True, False], Action.RETRY),
        ([True, True, False], Action.RETRY),
        ([True, False, True], Action.RETRY),
    ],
)
def test_an_unexplained_failure_is_retried_once(attempts: list[bool], expected: Action) -> None:
    """It may be moderation in other words: a second one in a row rests, until a person asks."""
    failures = [
        failed(FailureKind.GENERATION, number=number, is_unexplained=unexplained)
        for number, unexplained in enumerate(attempts, start=1)
    ]
    assert action(*failures, max_attempts=9) is expected
    assert action(*failures, max_attempts=9, retry_failed=True) is Action.RETRY


def test_unpaid_failures_between_change_no_unexplained_count() -> None:
    """A network that was down said nothing about the prompt."""
    first = failed(FailureKind.GENERATION, number=1, is_unexplained=True)
    unpaid = failed(FailureKind.NETWORK, paid=False, number=2)
    again = failed(FailureKind.GENERATION, number=3, is_unexplained=True)
    assert action(first, unpaid, max_attempts=9) is Action.RETRY
    assert action(first, unpaid, again, max_attempts=9) is Action.RESTING


@pytest.mark.parametrize("kind", list(FailureKind))
def test_no_unexplained_failure_passes_at_once(kind: FailureKind) -> None:
    assert passes(Failure(kind, "no")) is (kind in HEALING)
    assert not passes(Failure(kind, "no", is_unexplained=True))


def test_a_resting_job_reports_the_failure() -> None:
    told = failed(FailureKind.MODERATION, failure_message="not that")
    (resting,) = planned(told).resting
    assert resting.reason == (
        "failed (moderation: not that); change the job, or use --retry-failed"
    )


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


def test_what_is_not_selected_is_not_planned() -> None:
    plan = planned(landed(BEFORE), selection=Selection(("other",)))
    assert plan.decisions == []
    assert not plan.counts


@pytest.mark.parametrize(
    ("attempt", "state"),
    [
        (None, "new"),
        (tried(NOW, Phase.FAILED, failure_kind="moderation"), "failed"),
        (tried(NOW, Phase.GENERATED, failure_kind="download"), "failed"),
        (tried(NOW, Phase.GENERATED), "open"),
        (tried(NOW, Phase.LOST), "open"),
        (landed(BEFORE), "succeeded"),
    ],
)
def test_job_is_planned_by_its_state(attempt: Known | None, state: str) -> None:
    attempts = () if attempt is None else (attempt,)
    counts = [
        planned(*attempts, selection=Selection((f"state:{word}",))).counts.total()
        for word in STATES
    ]
    assert counts == [word == state for word in STATES]


@pytest.mark.parametrize(
    ("resubmit", "expected", "cost_usd"),
    [(True, Action.RESUBMIT, 0.21), (False, Action.RESUME, None)],
)
def test_a_resubmission_has_its_cost(
    resubmit: bool, expected: Action, cost_usd: float | None
) -> None:
    decision = decided(tried(NOW, Phase.UNCONFIRMED), resubmit_unconfirmed=resubmit)
    assert decision is not None
    assert (decision.action, decision.cost_usd) == (expected, cost_usd)


def test_the_cost_sums_what_is_payable() -> None:
    jobs = [job(job_id=name) for name in "bcd"]
    plan = planned(jobs=jobs)
    assert plan.cost_usd == pytest.approx(0.63)
    assert not plan.has_unknown_price
