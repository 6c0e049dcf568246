"""Decide about every job of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from batch.job import Job
from batch.plan.decision import COSTING, Action, Decision, Known, Plan, Policy
from batch.plan.judge import decide, is_left_to_force, is_up_to_date, never_made, orphan
from batch.plan.moves import after_moves, find_moves, with_room
from batch.plan.rounds import due_jobs, round_of, videos_of
from batch.plan.select import state_of

NO_ROUND: Mapping[str, int] = {}


def make_plan(
    jobs: Sequence[Job],
    known: Mapping[str, Sequence[Known]],
    *,
    policy: Policy,
    is_present: Callable[[str, int], bool],
    price: Callable[[Job], tuple[float, bool]],
    forced: Mapping[str, int] = NO_ROUND,
    now: float = 0.0,
) -> Plan:
    """Decide about every job.

    Args:
        jobs: what the manifest asks for.
        known: attempts by job id, each job's in the order of their numbers.
        policy: what the person asked for.
        is_present: tells whether a file (relative to the output folder) is there in that size.
        price: estimates a job in USD, and tells whether the price is known.
        forced: the requests of the rounds of `--force` so far, see `batch.plan.rounds`.
        now: the time; the provider keeps a discarded video only for so long.
    """
    plan = Plan()
    found = [] if policy.no_move else find_moves(jobs, known)
    settled = after_moves(known, found)  # as it is once all jobs have moved
    selected = [
        job for job in jobs if _is_selected(policy, job.id, job.tags, settled.get(job.id, ()))
    ]
    ids = {job.id for job in selected} if found else set()
    moves = {move.new_id: move for move in with_room([m for m in found if m.new_id in ids], known)}
    known = after_moves(known, list(moves.values()))
    if policy.force or forced:
        left = [job for job in selected if is_left_to_force(_same(job, known), policy)]
        due = due_jobs(left, forced, videos_of(known))
        if policy.force:
            plan.round = round_of(selected, due, videos_of(known))
        plan.unfinished = 0 if policy.force else len(due)
    due = plan.round.due if plan.round is not None else frozenset()
    for job in selected:
        attempts = known.get(job.id, ())
        move, force = moves.get(job.id), job.id in due
        if move is None and not force and is_up_to_date(job, attempts, is_present):
            plan.counts[Action.UNCHANGED] += 1  # on most nights all of them
            continue
        if not attempts:
            cost_usd, price_known = price(job)
            _add(plan, never_made(job, cost_usd, price_known=price_known))
            continue
        decision = decide(job, attempts, policy, is_present, force=force, move=move, now=now)
        if decision.action in COSTING:
            cost_usd, price_known = price(job)
            decision = replace(decision, cost_usd=cost_usd, price_known=price_known)
        if move is not None:
            plan.moves.append(move)
        _add(plan, decision)
    listed = {job.id for job in jobs} if settled else set()
    for job_id, attempts in settled.items():
        if job_id not in listed and _is_selected(policy, job_id, (), attempts):
            _add(plan, orphan(job_id, attempts))
    return plan


def _same(job: Job, known: Mapping[str, Sequence[Known]]) -> list[Known]:
    return [item for item in known.get(job.id, ()) if item.fingerprint == job.fingerprint]


def _is_selected(
    policy: Policy, job_id: str, tags: Sequence[str], attempts: Sequence[Known]
) -> bool:
    if policy.selection.is_all:
        return True
    state = state_of(attempts[-1].phase, attempts[-1].failure_kind) if attempts else state_of(None)
    return policy.selection.takes(job_id, tags, state)


def _add(plan: Plan, decision: Decision) -> None:
    plan.counts[decision.action] += 1
    has_work = bool(decision.former)
    match decision.action:
        case Action.ORPHANED:
            plan.orphans.append(decision)
        case Action.RESTING:
            plan.resting.append(decision)
        case Action.UNCHANGED if decision.is_pinned and not has_work:
            plan.pinned.append(decision)
        case Action.UNCHANGED:
            pass
        case Action.MOVED if decision.attempt is None:
            plan.moved.append(decision)
        case _:
            has_work = True
    if has_work:
        plan.decisions.append(decision)
