"""A saved plan is an upper bound: what is not in it is collected, and never paid for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sample_jobs import job, planned, tried
from scripted import NOT_FOUND, SAID, Stages, play
from virtual_time import EPOCH

from batch.attempt import Doubt, Lost
from batch.errors import ExitCode
from batch.output.state import Put
from batch.plan import Action, Decision, Decisions, Plan, Round
from batch.plan.saved import SavedJob, SavedPlan, hold, told_held

JOB = job()


def plan_of(*decisions: Decision, begun: Round | None = None) -> Plan:
    plan = Plan(Decisions(decisions), round=begun)
    plan.counts.update(item.action for item in decisions)
    return plan


def decision(action: Action = Action.NEW, cost_usd: float | None = 0.21, paid: int = 0) -> Decision:
    return Decision(action, JOB.id, "", JOB, cost_usd=cost_usd, paid=paid)


def saved(
    cost_usd: float = 0.21, *, paid: int = 0, fingerprint: str = JOB.fingerprint
) -> SavedPlan:
    one = SavedJob(JOB.id, fingerprint, "new", paid, cost_usd)
    return SavedPlan("2026-11-28T01:00:00Z", "loops", "/outputs/loops", None, False, (one,))


def test_saved_plan_reads_back_as_it_was() -> None:
    plan = saved(0.123456)
    assert SavedPlan.from_json(plan.to_json().encode()) == plan


def test_fields_of_a_later_release_are_ignored() -> None:
    text = saved().to_json().replace('"paid"', '"more": [], "paid"')
    assert SavedPlan.from_json(text.encode()) == saved()


@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        (decision(), saved()),
        (decision(cost_usd=0.20), saved()),
        (decision(Action.RETRY, paid=1), saved(paid=1)),
        (decision(Action.RESUBMIT), saved()),
    ],
)
def test_what_is_as_it_was_is_paid_for(found: Decision, allowed: SavedPlan) -> None:
    plan = plan_of(found)
    hold(plan, allowed)
    assert plan.decisions == [found]
    assert told_held(plan.decisions) == ""


@pytest.mark.parametrize(
    ("found", "allowed", "why"),
    [
        (decision(), replace(saved(), jobs=()), "is not in the saved plan"),
        (decision(), saved(fingerprint="v2:0"), "was changed after the plan was saved"),
        (decision(Action.RETRY, paid=1), saved(), "was paid for after the plan was saved"),
        (decision(cost_usd=0.22), saved(), "costs $0.22 by now, and $0.21 in the saved plan"),
        (decision(), saved(float("nan")), "costs $0.21 by now"),
    ],
)
def test_what_is_not_as_it_was_is_held(found: Decision, allowed: SavedPlan, why: str) -> None:
    plan = plan_of(found)
    hold(plan, allowed)
    assert plan.cost_usd == 0.0
    assert plan.counts == {found.action: 1}
    assert f"1 job is left by the saved plan: 'a' {why}" in told_held(plan.decisions)


def test_many_held_jobs_are_counted() -> None:
    held = [decision()._replace(job_id=f"j{number}", held="is new") for number in range(25)]
    told = told_held(held)
    assert told.startswith("25 jobs are left by the saved plan: 'j0' is new; 'j1' is new")
    assert "'j19' is new; and 5 more; plan again" in told


def test_held_jobs_are_in_no_round() -> None:
    """A round of --force that begins now would leave them unfinished."""
    begun = Round(frozenset({JOB.id}), {JOB.fingerprint: 1})
    plan = plan_of(decision(Action.FORCED, paid=1), begun=begun)
    hold(plan, replace(saved(), jobs=()))
    assert plan.round == Round(frozenset())


def test_forced_job_that_was_made_since_is_done() -> None:
    begun = Round(frozenset({JOB.id}), {JOB.fingerprint: 2})
    plan = plan_of(decision(Action.FORCED, paid=2), begun=begun)
    hold(plan, saved(paid=1))
    assert plan.decisions == []
    assert plan.counts == {Action.UNCHANGED: 1}
    assert plan.round == Round(frozenset())


def test_lost_request_outside_the_plan_is_not_sent_again(tmp_path: Path) -> None:
    """It is looked up; absent, it stays in doubt for a run without the plan."""

    async def story(stages: Stages) -> tuple[int, ExitCode, str | None, str]:
        await stages.state.commit(Put(tried(Lost(1.0, Doubt(SAID)), JOB, "kb-0")))
        stages.api.queries = [NOT_FOUND]
        plan = await planned(stages, [JOB])
        hold(plan, replace(saved(), jobs=()))
        await stages.feeder.feed(plan.decisions)
        code = stages.counts.exit_code(plan, stages.stop)
        return stages.api.count("submit"), code, stages.phase_of("kb-0"), stages.stop.sentence

    sent, code, phase, told = play(tmp_path, story, proved_at=EPOCH)
    assert (sent, code, phase) == (0, ExitCode.LIMIT, "Lost")
    assert "'a' is not in the saved plan" in told
