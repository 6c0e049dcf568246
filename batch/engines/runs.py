"""The runs that a worker has open: each is put together once, when its first job comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol, Self

from batch.engines.carry import Opened
from batch.engines.stop import SharedStop, Tell
from batch.engines.terms import Terms
from batch.errors import ExitCode
from batch.events import Event
from batch.output.fleet import Fleet, OpenRun, Outcome
from batch.run.stop import StopReason


class House(Protocol):
    """Where a worker's runs are at home: account, folder, state."""

    def open(
        self, run: OpenRun, terms: Terms, stop: SharedStop
    ) -> AbstractAsyncContextManager[Opened]:
        """Open what a run's jobs need.

        Raises:
            StateError: the state or the folder cannot be used now.
            UsageError: this worker is not meant for it: a wrong mount, a key that it lacks.
        """
        ...

    async def conclude(self, opened: Opened, outcome: Outcome) -> tuple[ExitCode, str]:
        """Write the files that tell what a settled run has come to; return how it ended, and its record.

        May be called by two workers at once.
        """
        ...


class Runs:
    """The open runs of one worker. Use as an async context manager."""

    def __init__(
        self,
        fleet: Fleet,
        house: House,
        tell: Callable[[str], Tell],
        notify: Callable[[Event], None],
    ) -> None:
        self._fleet = fleet
        self._house = house
        self._tell = tell
        self._notify = notify
        self._lock = asyncio.Lock()
        self._open: dict[str, tuple[Opened, AsyncExitStack]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for run_id in list(self._open):
            await self.close(run_id)

    def __iter__(self) -> Iterator[Opened]:
        return (opened for opened, _ in list(self._open.values()))

    def find(self, run_id: str) -> Opened | None:
        """Return a run if it is open here."""
        found = self._open.get(run_id)
        return None if found is None else found[0]

    async def get(self, run_id: str) -> Opened | None:
        """Return a run, opened if it was not yet; None if it has ended.

        Raises:
            StateError: its state or folder cannot be used now.
            UsageError: this worker is not meant for it.
        """
        async with self._lock:
            found = self.find(run_id)
            return found or await self._open_it(run_id)

    async def close(self, run_id: str) -> None:
        """Close a run that has no job here any more."""
        found = self._open.pop(run_id, None)
        if found is not None:
            await found[1].aclose()

    async def _open_it(self, run_id: str) -> Opened | None:
        run = await self._fleet.run_of(run_id)
        if run is None:
            return None
        stop = SharedStop(self._notify, self._tell(run_id))
        async with AsyncExitStack() as exits:
            opened = await exits.enter_async_context(self._house.open(run, Terms.of(run), stop))
            if run.stop is not None:
                reason, sentence = run.stop
                stop.hear(StopReason(reason), sentence)
            self._open[run_id] = opened, exits.pop_all()
        return opened
