"""Gates of several workers on one database, each over connections of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fleets import Opened, opened_fleet
from scripted import ACCOUNT, attempt

from batch.attempt import Attempt
from batch.clock import SystemClock
from batch.events import Event
from batch.manifest.limits import Limits, Rate
from batch.output.fleet import CLAIM, Claim, OpenRun, Work
from batch.output.postgres.notices import SLOTS, Notices
from batch.output.postgres.state import PostgresState
from batch.plan import Policy
from batch.run.context import RunContext
from batch.run.doorkeeper import FleetGate, FleetTicket
from batch.run.gate_postgres import PostgresGates
from batch.run.stop import Stop

FAST = Rate(1000, 1.0)
ASKS = "asks"  # name of the tasks that end with the test


@dataclass
class Door:
    """The gate of one worker."""

    worker: Opened
    gate: FleetGate
    state: PostgresState
    stop: Stop
    events: list[Event]
    library: str
    run_id: str
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    @contextmanager
    def under(self, claim: Claim | None) -> Any:
        token = CLAIM.set(claim)
        try:
            yield
        finally:
            CLAIM.reset(token)

    async def enter(self, number: int, **values: Any) -> tuple[FleetTicket, Attempt | None]:
        """Claim job *number*, and ask for its admission."""
        found = await self.worker.fleet.claim(self.run_id, str(number), "w")
        assert found is not None
        with self.under(found.claim):
            ticket = await self.gate.enter(number)
            return ticket, await ticket.intend(planned(number, **values))

    async def commit(self, *changes: Any) -> None:
        """Commit as the process that plans."""
        await self.state.commit(*changes)


def planned(number: int, **values: Any) -> Attempt:
    """Return an attempt of job *number* that is to be sent."""
    one = attempt(name=f"kb-{number}", job_id=str(number))
    return replace(one, **{"cost_usd": 0.21, **values})


@asynccontextmanager
async def doors(
    url: str,
    count: int = 2,
    *,
    jobs: int = 40,
    run_id: str = "r",
    library: str = "library",
    deadline_in_s: float | None = None,
    **limits: Any,
) -> AsyncIterator[list[Door]]:
    """Open a run's gates at *count* workers; *limits* are fields of `Limits`."""
    its = Limits(**{"max_in_flight": 5, "submit_rate": FAST, **limits})
    async with AsyncExitStack() as exits:
        workers = [await exits.enter_async_context(opened_fleet(url)) for _ in range(count)]
        deadline_at = None if deadline_in_s is None else time.time() + deadline_in_s
        run = OpenRun(run_id, library, "/", ACCOUNT, "{}", 1.0, deadline_at, its.budget_usd)
        works = [Work(number, str(number), "{}") for number in range(jobs)]
        await workers[0].fleet.hand_over(run, works, lambda _transaction: None)
        made = []
        for worker in workers:
            gates = PostgresGates(worker.connections)
            await exits.enter_async_context(Notices(worker.engine, {SLOTS: gates.wake}))
            events: list[Event] = []
            stop = Stop(events.append)
            context = RunContext(
                account=ACCOUNT,
                limits=its,
                policy=Policy(),
                clock=SystemClock(),
                dice=random.Random(1),
                stop=stop,
                notify=events.append,
            )
            gate = gates.gate(library, run_id, context, lambda _request: False)
            state = worker.state(library)
            made.append(Door(worker, gate, state, stop, events, library, run_id))
        try:
            yield made
        finally:
            asks = [task for task in asyncio.all_tasks() if task.get_name() == ASKS]
            for task in asks:
                task.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
