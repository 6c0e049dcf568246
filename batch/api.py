"""The same from a notebook or a service: load a manifest, plan it, run it, take results as they come.

    import batch

    manifest = batch.load_manifest("jobs/demo.yaml")
    print(batch.plan_run(manifest, sandbox=True).counts)

    async with batch.open_run(manifest, sandbox=True) as run:
        async for row in run:
            print(row["job_id"], row["status"], row["file"])
    print(run.summary.cost_usd)

Everything that holds for the command holds here: the lock, the state, the money rule. Nothing is
printed, no signal handler is installed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from batch import events
from batch.clock import SystemClock
from batch.events import Event, Observer
from batch.manifest.reader import Manifest, Rate, load
from batch.plan import Plan
from batch.run.execute import execute, first_of
from batch.run.planner import open_planned_run, plan_only
from batch.run.stop import Stop, StopReason
from batch.run.summary import Summary
from batch.settings import Given, Secret, resolve

ASKED_TO_STOP = "asked to stop; open tasks are left to the next run"


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest. Sends nothing, writes nothing.

    Raises:
        ManifestError: it cannot be used; `problems` holds every fault, each with its place.
    """
    return load(Path(path))


def plan_run(manifest: Manifest, **options: Any) -> Plan:
    """Say what a run would do and cost now; takes the options of `open_run`.

    Raises:
        UsageError: an option cannot be used.
        StateError: there is a state, and it cannot be read.
    """
    return plan_only(manifest, resolve(manifest, _given(**options), os.environ))


class Run:
    """A run under way: an asynchronous iterator over the rows of results.jsonl as they are made."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._rows: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._summary: Summary | None = None

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> dict[str, Any]:
        row = await self._rows.get()
        if row is None:
            self._rows.put_nowait(None)  # whoever asks again gets the same answer
            raise StopAsyncIteration
        return row

    @property
    def summary(self) -> Summary:
        """What the run came to.

        Raises:
            RuntimeError: it has not ended yet.
        """
        if self._summary is None:
            raise RuntimeError("the run has not ended yet; leave the `async with` block first")
        return self._summary

    def stop(self) -> None:
        """Submit nothing more and leave open tasks to the next run; downloads under way finish."""
        self._stop.ask(StopReason.INTERRUPTED, ASKED_TO_STOP)

    def notify(self, event: Event) -> None:
        """Take note of an event of the run."""
        if isinstance(event, events.JobEnded):
            self._rows.put_nowait(event.row)

    def end(self, summary: Summary | None) -> None:
        """Let the iteration end."""
        self._summary = summary
        self._rows.put_nowait(None)


@asynccontextmanager
async def open_run(
    manifest: Manifest, *, observers: Sequence[Observer] = (), **options: Any
) -> AsyncIterator[Run]:
    """Run a manifest while the block lasts.

    Leaving the block before the last row stops the run softly; what is paid for is collected by
    the next one.

    Args:
        manifest: from `load_manifest`.
        observers: are told of every event (see `batch.events`) beside the rows.
        options: those of the command, by name: `output_dir`, `base_url`, `sandbox`, `submit_rate`
            (a `Rate`), `max_in_flight`, `deadline_s`, `budget_usd`, `select`, `force`,
            `retry_failed`, `resubmit_unconfirmed`, `api_key`. What is not given comes from the
            manifest; the key from `COMETAPI_KEY`.

    Raises:
        UsageError: an option cannot be used, or there is no key.
        LockedError: another run holds the output folder.
        StateError: the state cannot be read or written.
    """
    clock = SystemClock()
    settings = resolve(manifest, _given(**options), os.environ)
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
                    if run._summary is None:  # noqa: SLF001 - the two belong together
                        run.stop()
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors


def _given(
    *,
    output_dir: str | os.PathLike[str] | None = None,
    base_url: str | None = None,
    sandbox: bool = False,
    submit_rate: Rate | None = None,
    max_in_flight: int | None = None,
    deadline_s: float | None = None,
    budget_usd: float | None = None,
    select: Sequence[str] = (),
    force: bool = False,
    retry_failed: bool = False,
    resubmit_unconfirmed: bool = False,
    api_key: str | None = None,
) -> Given:
    return Given(
        output_dir=None if output_dir is None else Path(output_dir),
        base_url=base_url,
        sandbox=sandbox,
        submit_rate=submit_rate,
        max_in_flight=max_in_flight,
        deadline_s=deadline_s,
        budget_usd=budget_usd,
        select=tuple(select),
        force=force,
        retry_failed=retry_failed,
        resubmit_unconfirmed=resubmit_unconfirmed,
        api_key=None if api_key is None else Secret(api_key),
    )
