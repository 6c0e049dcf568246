"""Another program holds the state's lock for good, or for a while, just after the POSTs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from batch.errors import ExitCode, StateError
from batch.events import TaskRescued, Warned
from batch.output.layout import Layout
from batch.sandbox import FaultPlan


@asynccontextmanager
async def held_after(desk: Any, box: Any, tasks: int) -> AsyncIterator[sqlite3.Connection]:
    """Hold the lock of the state as soon as so many tasks were created."""
    while box.stats.created < tasks:
        await asyncio.sleep(0.005)
    database = Layout(desk.root).database
    with closing(sqlite3.connect(database, isolation_level=None, timeout=5)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


@pytest.mark.parametrize("look_up", [(), ("lookup:404",)], ids=["look-up", "none"])
async def test_lock_held_for_good_pays_once(
    desk: Any, monkeypatch: pytest.MonkeyPatch, look_up: tuple[str, ...]
) -> None:
    """The answers are awaited and rescued; the next run takes them in and makes the rest."""
    monkeypatch.setattr("batch.run.wiring.LOCK_PATIENCE_S", 0.1)
    witness = desk.witness()
    limits = {"request_timeout": "4s", "max_in_flight": 10}
    async with desk.sandbox("submit:slow:seconds=1.5", *look_up) as box:
        run = asyncio.create_task(desk.run(box, 20, limits=limits, observers=[witness]))
        async with held_after(desk, box, 10):
            with pytest.raises(StateError, match="locked by another program"):
                await run
        rescued = witness.of(TaskRescued)
        assert len(rescued) == box.stats.created == 10
        assert all(str(event.file) == str(Layout(desk.root).rescue) for event in rescued)
        box.set_faults(FaultPlan.from_strings(look_up))
        summary = await desk.run(box, 20, limits=limits)
        assert summary.exit_code is ExitCode.OK
        assert box.stats.created == 20
        assert not Layout(desk.root).rescue.exists()


async def test_lock_held_for_a_while_is_waited_for(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence says why nothing happens."""
    monkeypatch.setattr("batch.output.writer.SLOW_S", 0.3)
    witness = desk.witness()
    limits = {"request_timeout": "4s", "max_in_flight": 10}
    async with desk.sandbox("submit:slow:seconds=1.5") as box:
        run = asyncio.create_task(desk.run(box, 10, limits=limits, observers=[witness]))
        async with held_after(desk, box, 10):
            while not witness.of(Warned):
                await asyncio.sleep(0.01)
        summary = await run
    assert summary.exit_code is ExitCode.OK
    assert box.stats.created == 10
    (told,) = witness.of(Warned)
    assert "does another program have it open?" in told.message
