"""The Python API: load a manifest, plan it, run it, and iterate over the results as they come.

    import batch

    manifest = batch.load_manifest("jobs/demo.yaml")
    print(batch.plan_run(manifest, sandbox=True).counts)

    async with batch.open_run(manifest, sandbox=True) as run:
        async for row in run:
            print(row["job_id"], row["status"], row["file"])
    print(run.summary.cost_usd)

The lock, the state and the money rule are those of the command. Nothing is printed, and no signal
handler is installed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

from batch import events
from batch.clock import SystemClock
from batch.events import Event, Observer
from batch.manifest.model import Manifest
from batch.manifest.reader import load
from batch.plan import Plan
from batch.run.execute import execute
from batch.run.feeder import first_of
from batch.run.planner import open_planned_run, plan_only
from batch.run.stop import Stop, StopReason
from batch.run.summary import Summary
from batch.settings import Options, resolve

ASKED_TO_STOP = "asked to stop; open tasks are left to the next run"


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Return the manifest at *path*, read and checked.

    Raises:
        ManifestError: it cannot be used; `problems` holds every fault with its place.
    """
    return load(Path(path))


def plan_run(manifest: Manifest, **options: Unpack[Options]) -> Plan:
    """Return what a run would do and cost now. Sends nothing, writes nothing.

    Args:
        manifest: from `load_manifest`.
        options: those of `open_run`.

    Raises:
        UsageError: an option cannot be used.
        StateError: the state cannot be read.
    """
    return plan_only(manifest, resolve(manifest, options, os.environ))


class Run:
    """A run under way: an asynchronous iterator over its rows of results.jsonl."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._rows: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._summary: Summary | None = None

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> dict[str, Any]:
        row = await self._rows.get()
        if row is None:
            self._rows.put_nowait(None)  # the next call ends, too
            raise StopAsyncIteration
        return row

    @property
    def summary(self) -> Summary:
        """The summary of the run.

        Raises:
            RuntimeError: the run has not ended yet.
        """
        if self._summary is None:
            raise RuntimeError("the run has not ended yet; leave the `async with` block first")
        return self._summary

    def stop(self) -> None:
        """Stop softly: submit nothing more, finish downloads, leave open tasks to the next run."""
        self._stop.ask(StopReason.INTERRUPTED, ASKED_TO_STOP)

    def notify(self, event: Event) -> None:
        """Queue the row that *event* brings."""
        if isinstance(event, events.JobEnded):
            self._rows.put_nowait(event.row)

    def end(self, summary: Summary | None) -> None:
        """Keep *summary*, and end the iteration."""
        self._summary = summary
        self._rows.put_nowait(None)


@asynccontextmanager
async def open_run(
    manifest: Manifest, *, observers: Sequence[Observer] = (), **options: Unpack[Options]
) -> AsyncIterator[Run]:
    """Run a manifest while the block lasts.

    Leaving the block before the last row stops the run softly; the next run collects what is paid.

    Args:
        manifest: from `load_manifest`.
        observers: receive every event (see `batch.events`), beside the rows.
        options: the choices of the command line by name, see `batch.settings.Options`. Without one
            the manifest decides; the key then comes from `COMETAPI_KEY`.

    Raises:
        UsageError: an option cannot be used, or there is no key.
        LockedError: another run holds the output folder.
        StateError: the state cannot be read or written.
    """
    clock = SystemClock()
    settings = resolve(manifest, options, os.environ)
    stop = Stop()
    run = Run(stop)
    with open_planned_run(manifest, settings, clock) as planned:

        async def drive() -> None:
            summary = None
            try:
                if planned.plan.decisions:
                    summary = await execute(planned, [run, *observers], clock, stop=stop)
                else:
                    summary = planned.end_quietly(clock)
            finally:
                run.end(summary)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(drive(), name="run")
                try:
                    yield run
                finally:
                    if run._summary is None:  # noqa: SLF001 - both are of this file
                        run.stop()
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
