"""Decide about every job of a manifest."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from batch.job import Job
from batch.plan.decision import COSTING, Action, Decision, History, IsPresent, Known, Move, Policy
from batch.plan.decisions import Decisions, Plan, Price
from batch.plan.judge import decide, is_left_to_force, is_up_to_date, orphan
from batch.plan.moves import after_moves, find_moves, with_room
from batch.plan.rounds import due_jobs, round_of, videos_of
from batch.plan.select import state_of

NO_ROUND: Mapping[str, int] = {}


def make_plan(
    jobs: Sequence[Job],
    known: Mapping[str, Sequence[Known]],
    *,
    policy: Policy,
    is_present: IsPresent,
    price: Price,
    forced: Mapping[str, int] = NO_ROUND,
    now: float = 0.0,
) -> Plan:
    """Decide about every job.

    Args:
        jobs: what the manifest asks for.
        known: attempts by job id, each job's in the order of their numbers.
        policy: what the person asked for.
        is_present: tells whether the video of an attempt that has landed is here.
        price: estimates a job in USD, and tells whether the price is known.
        forced: the requests of the rounds of `--force` so far, see `batch.plan.rounds`.
        now: the time; the provider keeps a discarded video only for so long.
    """
    plan = Plan(Decisions(jobs=jobs, price=price))
    places = None  # in the manifest, of the jobs to decide about: all
    if known and policy.selection.is_all and not (policy.force or forced):
        places = _not_up_to_date(jobs, known, is_present)
    up_to_date = 0 if places is None else len(jobs) - len(places)
    if up_to_date == len(jobs) == len(known):  # on most nights
        plan.counts[Action.UNCHANGED] = up_to_date
        return plan
    # What moves takes nothing from those: their attempts are wanted where they are.
    found = [] if policy.no_move else find_moves(jobs, known, places)
    settled = after_moves(known, found)  # as it is once all jobs have moved
    selected = partial(_selected, jobs, settled, policy, places)
    found = with_room(_movable(found, selected()), known)
    moves = {move.new_id: move for move in found}
    known = after_moves(known, found)
    if policy.force or forced:
        _go_on_with_round(plan, selected, known, policy, forced)
    due = plan.round.due if plan.round is not None else frozenset()
    for place, job in selected():
        attempts = known.get(job.id, ())
        move, force = moves.get(job.id), job.id in due
        if move is None and not force and is_up_to_date(job, attempts, is_present):
            up_to_date += 1
            continue
        if not attempts:
            plan.counts[Action.NEW] += 1
            plan.decisions.append_new(place, job)
            continue
        decision = decide(job, attempts, policy, is_present, force=force, move=move, now=now)
        if decision.action in COSTING:
            cost_usd, price_known = price(job)
            decision = decision._replace(cost_usd=cost_usd, price_known=price_known)
        if move is not None:
            plan.moves.append(move)
        _add(plan, decision)
    if up_to_date:
        plan.counts[Action.UNCHANGED] += up_to_date
    _add_orphans(plan, jobs, settled, policy)
    return plan


def _not_up_to_date(jobs: Sequence[Job], known: History, is_present: IsPresent) -> Sequence[int]:
    """Return the places of all other jobs than those that are up to date, whatever these need."""
    return array(
        "q",
        (
            place
            for place, job in enumerate(jobs)
            if not is_up_to_date(job, known.get(job.id, ()), is_present)
        ),
    )


def _selected(
    jobs: Sequence[Job], settled: History, policy: Policy, places: Sequence[int] | None
) -> Iterator[tuple[int, Job]]:
    """Iterate over the jobs that are selected, each with its place; only those at *places*, if given."""
    asked = enumerate(jobs) if places is None else ((place, jobs[place]) for place in places)
    if policy.selection.is_all:
        return asked
    return (
        (place, job)
        for place, job in asked
        if _is_selected(policy, job.id, job.tags, settled.get(job.id, ()))
    )


def _movable(moves: Sequence[Move], selected: Iterable[tuple[int, Job]]) -> Sequence[Move]:
    """Return the moves of the jobs that are selected."""
    if not moves:
        return moves
    ids = {move.new_id for move in moves}
    ids.intersection_update([job.id for _, job in selected if job.id in ids])
    return [move for move in moves if move.new_id in ids]


def _go_on_with_round(
    plan: Plan,
    selected: Callable[[], Iterator[tuple[int, Job]]],
    known: History,
    policy: Policy,
    forced: Mapping[str, int],
) -> None:
    videos = videos_of(known)
    left = [job for _, job in selected() if is_left_to_force(_same(job, known), policy)]
    due = due_jobs(left, forced, videos)
    if policy.force:
        plan.round = round_of([job for _, job in selected()], due, videos)
    else:
        plan.unfinished = len(due)


def _add_orphans(plan: Plan, jobs: Sequence[Job], settled: History, policy: Policy) -> None:
    if not settled or sum(job.id in settled for job in jobs) == len(settled):
        return
    gone = dict.fromkeys(settled)
    for job in jobs:
        gone.pop(job.id, None)
    for job_id in gone:
        attempts = settled[job_id]
        if _is_selected(policy, job_id, (), attempts):
            _add(plan, orphan(job_id, attempts))


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
