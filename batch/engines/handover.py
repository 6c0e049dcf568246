"""A planned run is handed over to the workers, in one transaction: from then on it is theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from batch.attempt import Account
from batch.clock import Clock
from batch.engines.queue import enqueue_run
from batch.engines.terms import Terms, works
from batch.events import Observer, to_all
from batch.key import account_of, require_key
from batch.output.fleet import Fleet, OpenRun, Work
from batch.output.probe import try_places
from batch.output.rescue import Rescue
from batch.run.execute import announce, ends_at
from batch.run.feeder import in_order
from batch.run.landing import files_of
from batch.run.planner import PlannedRun
from batch.run.stop import Stop
from batch.run.wiring import open_run

Enqueue = Callable[[Any, str, Account, Sequence[tuple[int, str]]], None]


async def hand_over(
    planned: PlannedRun,
    fleet: Fleet,
    clock: Clock,
    observers: Sequence[Observer],
    enqueue: Enqueue = enqueue_run,
) -> OpenRun:
    """Begin a planned run, and hand it over; *enqueue* queues its jobs.

    Raises:
        StateError: the videos cannot be written, or the state; no worker begins then.
        UsageError: there is no key.
    """
    settings, decisions = planned.settings, planned.plan.decisions
    account = Account(settings.base_url, account_of(require_key(settings.api_key)))
    try_places(settings.output_dir, files_of(decisions))
    planned.begin()
    stop = Stop(to_all(observers))
    run, ranked = _run(planned, account, clock), _ranked(planned)
    announce(planned, stop, run.deadline_at)
    await _take_in_rescued(planned, stop, clock)
    if stop.reason is not None:  # before a worker begins
        await fleet.stop(run.run_id, stop.reason.value, stop.sentence)
    jobs = [(place, work.job_id) for place, work in enumerate(ranked)]

    def queue(transaction: Any) -> None:
        enqueue(transaction, run.run_id, account, jobs)

    await fleet.hand_over(run, ranked, queue)
    return run


def _run(planned: PlannedRun, account: Account, clock: Clock) -> OpenRun:
    return OpenRun(
        run_id=planned.run_id,
        library=planned.folder.library,
        root=str(planned.settings.output_dir.resolve()),
        account=account,
        terms=_terms(planned).written(),
        began_at=planned.started_at,
        deadline_at=ends_at(planned, clock.now()),
        budget_usd=planned.settings.limits.budget_usd,
    )


def _terms(planned: PlannedRun) -> Terms:
    manifest, settings, plan = planned.manifest, planned.settings, planned.plan
    return Terms(
        name=manifest.name,
        manifest=str(manifest.path),
        limits=settings.limits,
        policy=settings.policy,
        callback=settings.callback,
        target=planned.settings.target,
        derived=manifest.derived,
        listed=tuple(manifest.jobs) if manifest.derived else (),
        planned=planned.counts,
        planned_cost_usd=plan.cost_usd,
        moved=len(plan.moved),
        resting=tuple((item.job_id, item.reason) for item in plan.resting),
        before=planned.books.figures,
        forgot_at=planned.folder.forgot_at,
    )


def _ranked(planned: PlannedRun) -> list[Work]:
    """Return the jobs in the order in which they are delivered: first what is paid for already.

    Each keeps its place in the manifest, by which slots are given.
    """
    decisions = planned.plan.decisions
    begun = [(place, item) for place, item in decisions.kept() if not item.is_fresh]
    return works([*begun, *in_order(decisions, planned.settings.limits.order)])


async def _take_in_rescued(planned: PlannedRun, stop: Stop, clock: Clock) -> None:
    """Take in the tasks that earlier runs could not record, before a worker decides about their jobs."""
    rescue = Rescue.of(planned.folder.layout, planned.manifest.path)
    if next(rescue.files(), None) is None:
        return
    silent = replace(planned, settings=replace(planned.settings, callback=None))
    async with open_run(silent, stop, stop.notify, clock) as run:
        await run.rescuer.take_in()
