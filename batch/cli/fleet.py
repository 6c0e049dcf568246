"""Carry out a planned run by the workers of a fleet: hand it over, and follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from batch.clock import Clock
from batch.engines.clock import FleetClock
from batch.engines.ending import Ending
from batch.engines.follow import Follower
from batch.engines.handover import hand_over
from batch.errors import ExitCode, UsageError
from batch.events import Observer, Warned, to_all
from batch.output.fleet import OpenRun
from batch.output.layout import Layout
from batch.output.marker import library_at
from batch.output.postgres.connection import of_worker, process_name
from batch.output.postgres.fleet import PostgresFleet
from batch.output.postgres.pool import Connections
from batch.output.store import last_run
from batch.output.stores import current_engine, open_to_read
from batch.run.planner import PlannedRun
from batch.run.summary import Summary


async def carry_out(
    planned: PlannedRun,
    observers: Sequence[Observer],
    clock: Clock,
    *,
    release: Callable[[], None],
    is_detached: bool,
) -> Summary | None:
    """Hand a run over, *release* its folder, and follow the run to its end; None if detached."""
    engine, root = current_engine(), planned.settings.output_dir
    async with Connections(engine, on_wait=_waits(observers)) as connections:
        fleet = PostgresFleet(engine, connections)
        run = await hand_over(planned, fleet, clock, observers)
        release()
        if is_detached:
            return None
        summary = await _follow(run, root, fleet, observers, clock)
    if summary.exit_code not in {ExitCode.INTERRUPTED, ExitCode.TERMINATED}:  # or it may go on
        planned.folder.seen.note(run.run_id, has_ended=True)
    return summary


async def join(
    root: Path, observers: Callable[[OpenRun], Sequence[Observer]], clock: Clock
) -> Summary:
    """Follow the latest run of a folder; one that has ended meanwhile is reported all the same.

    *observers* are asked for when it is known.

    Raises:
        UsageError: the folder's latest run, if there is one, was not handed over.
    """
    engine = current_engine()
    if not engine or library_at(Layout(root).library) is None:
        raise UsageError(f"{root} has no run of a fleet to join")
    with open_to_read(root) as store:
        last = last_run(store)
    told: list[Observer] = []
    async with Connections(engine, on_wait=_waits(told)) as connections:
        fleet = PostgresFleet(engine, connections)
        run = None if last is None else await fleet.handed_over(last[0])
        if run is None:
            raise UsageError(
                f"the last run of {root} was not one of the workers; `kling-batch status` has it"
            )
        moved_to = await asyncio.to_thread(root.resolve)  # since it was handed over
        run = replace(run, root=str(moved_to))
        told += observers(run)
        return await _follow(run, root, fleet, told, clock)


def _waits(observers: Sequence[Observer]) -> Callable[[str], None]:
    """Return what tells *observers* that the database is waited for."""
    notify = to_all(observers)
    return lambda trouble: notify(Warned(f"{trouble}; this command waits for it"))


async def _follow(
    run: OpenRun, root: Path, fleet: PostgresFleet, observers: Sequence[Observer], clock: Clock
) -> Summary:
    name = process_name("run")
    ending = Ending(of_worker(current_engine(), name), FleetClock(clock))
    follower = Follower(run, fleet, ending, name, clock, to_all(observers))
    return await follower.follow(lambda: open_to_read(root), handle_signals=True)
