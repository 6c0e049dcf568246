"""Pinned and discarded versions in a plan: what stands, what is fetched, what is paid for again."""

from __future__ import annotations

from typing import Any

from batch.attempt import RETENTION_S, Phase
from batch.job import Job, canonical_request, fingerprint
from batch.plan import Action, Decision, Known, Plan, Policy, make_plan

VERSION = "versions/a/20261120T023108Z.mp4"
VERSION_AT = 1_795_141_868.0  # 2026-11-20
GENERATED_AT = 1_795_141_800.0


def job(prompt: str = "a cat", job_id: str = "a") -> Job:
    request = canonical_request({"prompt": prompt})
    return Job(job_id, request, fingerprint(request, None))


CAT, DOG = job().fingerprint, job("a dog").fingerprint


def landed(of: str, number: int, file: str = VERSION, **what: Any) -> Known:
    name, task = f"kb-{number}", f"8{number}"
    return Known(name, "a", number, of, Phase.LANDED, task, None, file, 9, 0.21, 1.0, **what)


def discarded(of: str, number: int) -> Known:
    known = landed(of, number)
    return known._replace(phase=Phase.DISCARDED, file=None, generated_at=GENERATED_AT)


def restored(of: str, number: int, stands_for: str) -> Known:
    return landed(of, number, "videos/a.mp4", pinned_for=stands_for, version_at=VERSION_AT)


def planned(
    *attempts: Known, jobs: list[Job] | None = None, now: float = 0.0, **policy: Any
) -> Plan:
    return make_plan(
        [job()] if jobs is None else jobs,
        {"a": list(attempts)},
        policy=Policy(**policy),
        is_present=lambda _item: True,
        price=lambda _job: (0.21, True),
        now=now,
    )


def decided(*attempts: Known, **how: Any) -> Decision:
    (decision,) = planned(*attempts, **how).decisions
    return decision


# -- pins


def test_restored_version_is_unchanged() -> None:
    plan = planned(restored(DOG, 1, CAT), landed(CAT, 2))
    assert plan.decisions == []
    assert plan.counts == {Action.UNCHANGED: 1}
    (pinned,) = plan.pinned
    assert pinned.reason == "up to date, pinned to the version of 2026-11-20"


def test_changed_job_ends_the_pin() -> None:
    decision = decided(restored(DOG, 1, CAT), landed(CAT, 2), jobs=[job("a fox")])
    assert (decision.action, decision.cost_usd) == (Action.CHANGED, 0.21)
    assert decision.unpins == ("kb-1",)


def test_former_request_ends_the_pin_unpaid() -> None:
    fox = job("a fox")
    attempts = restored(DOG, 1, CAT), landed(CAT, 2), landed(fox.fingerprint, 3)
    decision = decided(*attempts, jobs=[fox])
    assert (decision.action, decision.attempt) == (Action.FETCH, "kb-3")
    assert decision.unpins == ("kb-1",)


def test_round_of_force_ends_the_pin() -> None:
    decision = decided(restored(CAT, 1, CAT), landed(CAT, 2), force=True)
    assert decision.action is Action.FORCED
    assert decision.unpins == ("kb-1",)


def test_task_open_beside_a_pin_is_collected_as_a_version() -> None:
    opened = landed(CAT, 2)._replace(phase=Phase.OPEN, file=None)
    decision = decided(restored(DOG, 1, CAT), opened)
    assert (decision.action, decision.former) == (Action.UNCHANGED, ("kb-2",))


def test_missing_restored_video_is_fetched() -> None:
    """And it stays pinned."""
    plan = make_plan(
        [job()],
        {"a": [restored(DOG, 1, CAT), landed(CAT, 2)]},
        policy=Policy(),
        is_present=lambda _item: False,
        price=lambda _job: (0.21, True),
    )
    (decision,) = plan.decisions
    assert (decision.action, decision.attempt) == (Action.FETCH, "kb-1")
    assert decision.unpins == ()


def test_pin_moves_with_its_job() -> None:
    """The video that stands goes along, not the manifest's version."""
    plan = planned(restored(DOG, 1, CAT), landed(CAT, 2), jobs=[job(job_id="b")])
    (move,) = plan.moves
    assert [item.external_task_id for item in move.attempts] == ["kb-1", "kb-2"]
    assert move.takes_place("kb-1", DOG)
    assert not move.takes_place("kb-2", CAT)
    assert plan.counts == {Action.MOVED: 1}


def test_restored_version_stays_where_its_request_is_wanted() -> None:
    """And what it was pinned for goes alone, so that neither is paid for again."""
    jobs = [job("a dog"), job(job_id="b")]
    plan = planned(restored(DOG, 1, CAT), landed(CAT, 2), jobs=jobs)
    (move,) = plan.moves
    assert [item.external_task_id for item in move.attempts] == ["kb-2"]
    assert plan.counts == {Action.UNCHANGED: 1, Action.MOVED: 1}


# -- discarded


def test_discarded_video_is_fetched_while_the_provider_keeps_it() -> None:
    decision = decided(discarded(CAT, 1), now=GENERATED_AT + RETENTION_S - 1.0)
    assert (decision.action, decision.attempt) == (Action.FETCH, "kb-1")
    assert decision.cost_usd is None


def test_discarded_video_is_paid_for_once_it_is_too_old() -> None:
    decision = decided(discarded(CAT, 1), now=GENERATED_AT + RETENTION_S)
    assert (decision.action, decision.cost_usd) == (Action.CHANGED, 0.21)
    assert "discarded" in decision.reason


def test_earlier_video_comes_before_a_discarded_one() -> None:
    """It is here, and was paid for."""
    decision = decided(landed(CAT, 1), discarded(CAT, 2), now=GENERATED_AT + RETENTION_S)
    assert (decision.action, decision.attempt) == (Action.FETCH, "kb-1")


def test_discarded_video_counts_in_a_round_of_force() -> None:
    """A round is not begun anew since its videos were pruned."""
    forced = {CAT: 1}
    plan = make_plan(
        [job()],
        {"a": [discarded(CAT, 1), landed(CAT, 2, "videos/a.mp4")]},
        policy=Policy(),
        is_present=lambda _item: True,
        price=lambda _job: (0.21, True),
        forced=forced,
    )
    assert plan.unfinished == 0
