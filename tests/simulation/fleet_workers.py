"""The product's own worker on a simulated machine: its records, engine, clock and provider are in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_api import FakeApi
from machines import Machine, MachineDisk, RemoteDesk, RemoteFleet, RemoteState
from memory_engine import MemoryEngine, MemoryQueue
from virtual_time import VirtualClock, VirtualWindow

from batch.attempt import Account, external_id
from batch.callbacks.hints import Hints
from batch.engines.carry import Opened
from batch.engines.clock import FleetClock
from batch.engines.leave import Times
from batch.engines.stop import SharedStop
from batch.engines.terms import Terms
from batch.engines.worker import Worker
from batch.errors import ExitCode
from batch.events import BugFound, Event
from batch.output.fleet import CLAIM, OpenRun, Outcome
from batch.output.layout import Layout
from batch.output.videos import Videos
from batch.run.context import RunContext
from batch.run.doorkeeper import FleetGate
from batch.run.wiring import World, assemble
from batch.waker import Waker

if TYPE_CHECKING:
    from fleet_night import FleetNight

TAKEN_OVER = "workers have died over it"  # so often that the job is left to the next night
ACCOUNT = Account("https://simulated.example", "somebody")


class PartsOf(Layout):
    """The layout of a library for one worker, whose parts are its own."""

    worker = ""

    @property
    def parts(self) -> Path:
        return super().parts / self.worker


class OwnClock(FleetClock):
    """A clock that believes its machine: what a worker must not have."""

    def set(self, _now: float) -> None:
        return None


class MachineWorker:
    """The product's worker on *machine*; it works from now on. A subclass is its house.

    Args:
        machine: that it lives on.
        account: whose key it has.
        clock: its own.
        fleet: the shared records.
        queue: what is to be delivered.
        beat_s: between two beats.
    """

    def __init__(
        self,
        machine: Machine,
        account: Account,
        *,
        clock: FleetClock,
        fleet: Any,
        queue: MemoryQueue,
        beat_s: float,
    ) -> None:
        self.machine, self.clock = machine, clock
        self.fleet: Any = RemoteFleet(machine, fleet)
        self.ending = Waker()
        house: Any = self
        worker = Worker(
            machine.name,
            [account],
            fleet=self.fleet,
            engine=MemoryEngine(queue, machine),
            house=house,
            clock=clock,
            notify=self.notify,
            times=Times(beat_s=beat_s, drain_s=20.0),
        )
        self.main = asyncio.create_task(worker.work(self.ending), name=machine.name)

    @property
    def is_gone(self) -> bool:
        """Whether it does nothing any more."""
        return self.machine.is_dead or self.main.done()

    def notify(self, event: Event) -> None:
        """Tell an event of this worker; a bug breaks a rule, unless it is that of a dead machine."""
        self.say(f"{self.machine.name}: {event}")
        is_bug = isinstance(event, BugFound) and TAKEN_OVER not in event.report
        if is_bug and not self.machine.is_dead:
            self.violate(f"a bug: {event.report.strip().splitlines()[-1]}")

    def say(self, sentence: str) -> None:
        """Tell something of the night."""
        raise NotImplementedError

    def violate(self, rule: str) -> None:
        """Report a broken rule."""
        raise NotImplementedError


class SimulatedWorker(MachineWorker):
    """A worker of a night whose records are in memory."""

    def __init__(self, night: FleetNight, machine: Machine) -> None:
        self.night = night
        offset = 0.0 if night.walls.one_clock else night.rng.choice((-45.0, 0.0, 45.0))
        mine = VirtualClock(night.loop, offset=offset, boot=night.rng.random() * 1e6)
        layout = PartsOf(night.root)
        object.__setattr__(layout, "worker", machine.name)
        self.videos = Videos(layout, pool=MachineDisk(machine)).__enter__()
        super().__init__(
            machine,
            ACCOUNT,
            clock=FleetClock(mine) if night.walls.one_clock else OwnClock(mine),
            fleet=night.fleet,
            queue=night.queue,
            beat_s=night.dead_after_s / 6,
        )

    def say(self, sentence: str) -> None:
        self.night.say(sentence)

    def violate(self, rule: str) -> None:
        self.night.violate(rule)

    # -- the house

    @asynccontextmanager
    async def open(self, run: OpenRun, terms: Terms, stop: SharedStop) -> AsyncIterator[Opened]:
        night, machine, limits = self.night, self.machine, terms.limits
        context = RunContext(
            account=ACCOUNT,
            limits=limits,
            policy=terms.policy,
            clock=self.clock,
            dice=random.Random(night.rng.random()),
            stop=stop,
            notify=self.notify,
        )
        api = FakeApi(
            night.provider,
            run=night.report.runs,
            loop=night.loop,
            clock=self.clock,
            life=machine,
            rates=night.rates,
            rng=random.Random(night.rng.random()),
            request_timeout_s=limits.request_timeout_s,
            late_s=limits.settle_time_s * 0.3,
            account=ACCOUNT.key_hash,
        )
        rate = limits.submit_rate
        world = World(
            api=_Sender(api, has_deadline=night.walls.send_deadline),
            state=RemoteState(machine, night.fleet.state(run.library)),
            videos=self.videos,
            guard=VirtualWindow(VirtualClock(night.loop), rate.count, rate.per_second),
            hints=Hints(),
            callback_url=lambda _external_task_id: None,
            new_id=partial(external_id, run.library),
            gate_of=partial(self._gate, run),
            given=_Given(self.fleet),
        )
        stages = await assemble(run.run_id, context, world)
        yield Opened(run, terms, stop, stages, night.is_present)

    async def conclude(self, _opened: Opened, _outcome: Outcome) -> tuple[ExitCode, str]:
        await self.machine.reach("conclude")
        return ExitCode.OK, "{}"

    def _gate(
        self, run: OpenRun, context: RunContext, is_too_late: Callable[[str], bool]
    ) -> FleetGate:
        gate = self.night.fleet.gate(run.library, run.run_id, context, is_too_late)
        desk: Any = gate.desk
        if not self.night.walls.one_clock:
            desk.clock = self.clock.now
        gate.desk = RemoteDesk(self.machine, desk)
        return gate


class _Given:
    """The ids of a run's attempts, as a worker takes them."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet

    async def take(self, external_task_id: str, job_id: str) -> bool:
        claim = CLAIM.get()
        assert claim is not None
        assert claim.job_id == job_id
        return bool(await self._fleet.name(claim, external_task_id))


class _Sender:
    """The API; without the deadline of sending, if that wall is down."""

    def __init__(self, api: FakeApi, *, has_deadline: bool) -> None:
        self._api, self._has_deadline = api, has_deadline
        self.query, self.fetch = api.query, api.fetch

    async def submit(self, body: dict[str, Any], *, not_after: float, resent: bool) -> Any:
        until = not_after if self._has_deadline else float("inf")
        return await self._api.submit(body, not_after=until, resent=resent)
