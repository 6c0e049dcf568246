"""Carry out a planned run, from its first event to its summary."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, suppress

from batch import events
from batch.clock import Clock
from batch.errors import BatchError, ExitCode, StateError
from batch.events import Observer, to_all
from batch.library.uploading import settle
from batch.output.probe import try_places
from batch.output.uploaded import Found
from batch.plan import COSTING
from batch.plan.saved import told_held
from batch.run.budget import DUST_USD
from batch.run.counts import Counts
from batch.run.feeder import Feeder
from batch.run.landing import NOTHING_TO_MAKE, files_of
from batch.run.planner import PlannedRun
from batch.run.refusals import Refusals
from batch.run.signals import on_stop
from batch.run.stop import EXIT_CODES, Stop, StopReason
from batch.run.summary import Summary
from batch.run.uploader import uploading
from batch.run.wiring import open_run

INTERRUPTING = frozenset({StopReason.INTERRUPTED, StopReason.TERMINATED})


async def execute(
    planned: PlannedRun,
    observers: Sequence[Observer],
    clock: Clock,
    *,
    stop: Stop | None = None,
    handle_signals: bool = False,
) -> Summary:
    """Do what the plan says.

    With *handle_signals*, SIGINT and SIGTERM stop it softly; so does a caller that holds *stop*.

    Raises:
        UsageError: a real run without a key. Nothing was sent.
        StateError: the videos cannot be written, and nothing was sent; or the state could not be
            written any more.
    """
    try_places(planned.settings.output_dir, files_of(planned.plan.decisions))
    planned.begin()
    stop = stop or Stop()
    begun, counts = clock.monotonic(), Counts(planned.books.doubts)
    refusals = Refusals(clock)
    exit_code = EXIT_CODES[StopReason.INTERRUPTED]
    insisted: list[signal.Signals] = []

    told: list[Observer] = [counts, refusals, *observers]
    target = planned.settings.target
    found = None if target is None else Found(target.url)

    stop.notify = notify = to_all(told)
    try:
        async with AsyncExitStack() as exits:
            if handle_signals:
                exits.enter_context(_stop_on_signals(stop, insisted))
            try:
                run = await exits.enter_async_context(open_run(planned, stop, notify, clock))
            except BatchError as error:
                _end_unopened(planned, error, clock)
                raise
            announce(planned, stop, ends_at(planned, clock.now()))
            async with uploading(planned, run, found, told):
                await Feeder(run).feed(planned.plan.decisions)
            exit_code = counts.exit_code(planned.plan, stop)
    except asyncio.CancelledError:
        if not insisted:
            raise
        exit_code = ExitCode.TERMINATED if insisted[0] is signal.SIGTERM else ExitCode.INTERRUPTED
        counts.recount(planned.rows(), _to_make(planned))
    warnings = () if insisted else planned.derive()
    if target is not None and found is not None and stop.reason not in INTERRUPTING:
        await settle(planned.folder, target, clock, found)
        warnings = (*warnings, *found.warnings())
        exit_code = found.exit_code(exit_code)
    summary = planned.summary(
        exit_code,
        counts.sent,
        counts.taken_over,
        **counts.found(),
        seconds=round(clock.monotonic() - begun, 3),
        stopped=_why_stopped(stop, counts, insisted),
        warnings=warnings,
        uploads=None if found is None else found.to_json(),
    )
    planned.end(summary, clock, refusals.marks)
    return summary


def _end_unopened(planned: PlannedRun, error: BatchError, clock: Clock) -> None:
    """Record the end of a run that could not be opened (a port is taken, say): nothing was sent."""
    with suppress(StateError):
        planned.end(planned.summary(error.exit_code, stopped=str(error)), clock)


def ends_at(planned: PlannedRun, now: float) -> float | None:
    """Return the deadline of a run that begins *now*, if it has one."""
    left_s = planned.settings.limits.seconds_left(now)
    return None if left_s is None else now + left_s


def announce(planned: PlannedRun, stop: Stop, deadline: float | None) -> None:
    """Tell that a run begins, and what of its plan is not to be paid for.

    Args:
        planned: the run.
        stop: by which it is stopped, and told.
        deadline: when it ends at the latest, if that is said.
    """
    folder, costs = str(planned.settings.output_dir), planned.plan.cost_usd
    stop.notify(events.RunStarted(planned.run_id, folder, planned.counts, costs, deadline))
    _check_plan_cost(planned, stop)
    _check_saved_plan(planned, stop)
    for warning in planned.folder.warnings:
        stop.notify(events.Warned(warning))


def _check_plan_cost(planned: PlannedRun, stop: Stop) -> None:
    """Stop a run whose plan is dearer than a person allows; what is paid for is collected."""
    limit_usd, cost_usd = planned.settings.limits.max_plan_cost_usd, planned.plan.cost_usd
    if limit_usd is not None and cost_usd > limit_usd + DUST_USD:
        stop.ask(
            StopReason.PLAN_COST,
            f"the plan costs about ${cost_usd:.2f}, more than max_plan_cost allows"
            f" (${limit_usd:.2f}): nothing is submitted. Look at it with `kling-batch plan`; if it is"
            " right, raise max_plan_cost",
        )


def _check_saved_plan(planned: PlannedRun, stop: Stop) -> None:
    """Say which jobs the saved plan does not cover; they are left."""
    left = told_held(item for _, item in planned.plan.decisions.kept() if item.action in COSTING)
    if left:
        stop.ask(StopReason.SAVED_PLAN, left)


def _why_stopped(stop: Stop, counts: Counts, insisted: Sequence[signal.Signals]) -> str | None:
    """Return why the run ended early, in a sentence."""
    if insisted:
        return f"left at once at the second {insisted[0].name}; run again to go on"
    if stop.reason in INTERRUPTING:
        return f"{stop.sentence.partition(':')[0]}; run again to go on"
    if stop.reason is StopReason.DEADLINE and counts.unreachable is not None:
        message = counts.unreachable.message
        return f"{stop.sentence}; the provider could not be reached ({message})"
    return stop.sentence or None


def _to_make(planned: PlannedRun) -> Iterator[str]:
    """Iterate over the jobs that the run was to bring to an outcome."""
    for decision in planned.plan.decisions:
        if decision.job is not None and decision.action not in NOTHING_TO_MAKE:
            yield decision.job_id


def _stop_on_signals(stop: Stop, insisted: list[signal.Signals]) -> AbstractContextManager[None]:
    """Stop softly at the first signal; cancel the run, and record the signal, at the next."""
    main = asyncio.current_task()

    def ask(number: signal.Signals) -> None:
        reason = StopReason.INTERRUPTED if number is signal.SIGINT else StopReason.TERMINATED
        stop.ask(
            reason,
            f"{number.name}: nothing more is submitted, open tasks are left to the next run,"
            " downloads under way finish; once more to leave at once",
        )

    def insist(number: signal.Signals) -> None:
        insisted.append(number)
        if main is not None:
            main.cancel()

    return on_stop(ask, insist)
