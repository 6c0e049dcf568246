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
from typing import Unpack, cast

from batch import events
from batch.clock import SystemClock
from batch.errors import UsageError
from batch.events import Event, Observer
from batch.key import require_key
from batch.manifest.model import Manifest
from batch.manifest.reader import load
from batch.output.stores import use_engine
from batch.plan import Plan
from batch.rows import Row
from batch.run.execute import execute
from batch.run.feeder import first_of
from batch.run.planner import open_planned_run, plan_only
from batch.run.stop import Stop, StopReason
from batch.run.summary import Summary
from batch.settings import Options, Settings, resolve

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
    return plan_only(manifest, _settle(manifest, options))


def _settle(manifest: Manifest, options: Options) -> Settings:
    if not isinstance(manifest, Manifest):
        raise UsageError(f"manifest: {manifest!r} is not one; load_manifest(path) returns one")
    settings = resolve(manifest, options, os.environ)
    use_engine(settings.engine)
    return settings


class Run:
    """A run under way: an asynchronous iterator over its rows of results.jsonl."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._rows: asyncio.Queue[Row | None] = asyncio.Queue()
        self._summary: Summary | None = None

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> Row:
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
            self._rows.put_nowait(cast("Row", event.row))

    def end(self, summary: Summary | None) -> None:
        """Keep *summary*, and end the iteration."""
        self._summary = summary
        self._rows.put_nowait(None)


class _Observers:
    """Tells the caller's observers. One that raises stops the run softly and is told no more."""

    def __init__(self, observers: Sequence[Observer], run: Run) -> None:
        self._observers = list(observers)
        self._run = run
        self._error: Exception | None = None

    def notify(self, event: Event) -> None:
        """Tell all that are left. An error must not come between a request and its record."""
        for observer in tuple(self._observers):
            try:
                observer.notify(event)
            except Exception as error:  # noqa: BLE001 - raised by `check`
                self._observers.remove(observer)
                self._error = self._error or error
                self._run.stop()

    def check(self) -> None:
        """Raise what an observer has raised."""
        if self._error is not None:
            raise self._error


@asynccontextmanager
async def open_run(
    manifest: Manifest, *, observers: Sequence[Observer] = (), **options: Unpack[Options]
) -> AsyncIterator[Run]:
    """Run a manifest while the block lasts.

    Leaving the block before the last row stops the run softly; the next run collects what is paid.

    Args:
        manifest: from `load_manifest`.
        observers: receive every event, beside the rows (see `batch.events`). If one raises, the run
            stops softly, and its error is raised at the end of the block.
        options: the choices of the command line by name, see `batch.settings.Options`. Without one
            the manifest decides; the key then comes from `COMETAPI_KEY`.

    Raises:
        UsageError: an option cannot be used, or there is no key.
        LockedError: another run holds the output folder.
        StateError: the state cannot be read or written.
    """
    clock = SystemClock()
    settings = _settle(manifest, options)
    if not settings.sandbox:
        require_key(settings.api_key)
    stop = Stop()
    run = Run(stop)
    told = _Observers(observers, run)
    with open_planned_run(manifest, settings, clock) as planned:

        async def drive() -> None:
            summary = None
            try:
                if planned.is_quiet:
                    summary = planned.end_quietly(clock)
                else:
                    summary = await execute(planned, [run, told], clock, stop=stop)
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
        told.check()
