"""A night of a year on Postgres: planned by the product, handed over, carried out by its workers.

The tables, transactions and functions are the product's, in a real Postgres (`virtual_postgres`); so are
gate, claims, burials and the end of a run. Only the queue, the provider and the time are simulated.
The process that plans may die until the run is handed over; workers die and fall asleep after that.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import purse
import rules
from fake_api import FakeApi
from fake_provider import Rates
from fleet_workers import MachineWorker
from machines import Machine, RemoteDesk, RemoteFleet, RemoteState
from memory_engine import MemoryEngine, MemoryQueue
from mortal import Died, Life, MortalDisk
from night import LONGEST_RUN_S, Night, Report, RunPlan, bury, folder
from virtual_postgres import InlineConnections, VirtualPostgres
from virtual_time import VirtualClock, VirtualLoop

from batch.attempt import Account, external_id
from batch.callbacks.hints import Hints, News
from batch.engines.carry import Opened, presence
from batch.engines.clock import FleetClock
from batch.engines.ending import Ending
from batch.engines.handover import hand_over
from batch.engines.house import SharedNames
from batch.engines.stop import SharedStop
from batch.engines.terms import Terms
from batch.errors import ExitCode
from batch.events import Event
from batch.key import ENGINE_VARIABLE, Secret
from batch.manifest.model import Manifest
from batch.output.fleet import BEAT_S, OpenRun, Outcome
from batch.output.layout import Layout
from batch.output.marker import library_at
from batch.output.postgres.connection import place_of
from batch.output.postgres.database import PostgresDatabase
from batch.output.postgres.fleet import PostgresFleet
from batch.output.postgres.state import PostgresState
from batch.output.store import Store
from batch.output.videos import Videos
from batch.run.context import RunContext
from batch.run.doorkeeper import FleetGate
from batch.run.gate_postgres import PostgresDesk, Whose
from batch.run.planner import PlannedRun, open_planned_run
from batch.run.stop import StopReason
from batch.run.wiring import World, assemble
from batch.settings import Settings
from batch.waker import Waker

LOOKS_S = 20.0
DRAINS_WITHIN_S = 600.0


class PostgresHome:
    """The library in Postgres; the folder says which one it is."""

    def __init__(self, postgres: VirtualPostgres) -> None:
        self.postgres = postgres
        self._dump = ""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the commands find the library here, and nothing in it at first."""
        self.postgres.empty()
        os.environ[ENGINE_VARIABLE] = self.postgres.url
        try:
            with self.postgres.kept.in_use():
                yield
        finally:
            del os.environ[ENGINE_VARIABLE]

    def has_state(self, root: Path) -> bool:
        return library_at(Layout(root).library) is not None

    @contextmanager
    def reading(self, root: Path) -> Iterator[Store]:
        path, place = Layout(root).library, place_of(self.postgres.engine)
        library = library_at(path)
        assert library is not None
        yield PostgresDatabase(self.postgres.connection, library, path=path, place=place)

    def back_up(self) -> None:
        self._dump = self.postgres.dump()

    def bring_back(self) -> None:
        self.postgres.restore(self._dump)


class PostgresNight(Night):
    """A seed being played, its library in Postgres."""

    is_fleet = True
    home: PostgresHome

    def settings(self, run: RunPlan) -> Settings:
        return replace(super().settings(run), api_key=Secret(run.account.replace(" ", "-")))

    def _life(self, run: RunPlan, loop: VirtualLoop) -> Machine:
        rng = random.Random(self.rng.random())
        return Machine("planner", loop, rng, dies_at=run.dies_at)

    def _carry_out(
        self,
        run: RunPlan,
        manifest: Manifest,
        settings: Settings,
        loop: VirtualLoop,
        clock: VirtualClock,
        life: Life,
    ) -> ExitCode | None:
        assert isinstance(life, Machine)
        postgres = self.home.postgres
        postgres.set_time(loop.time())
        fleet, planned = FleetRun(self, run, loop, InlineConnections(postgres, loop)), None
        try:
            with open_planned_run(manifest, settings, clock) as planned:
                self.note_round(planned)
                if not planned.plan.decisions:
                    return planned.end_quietly(clock).exit_code
                life.loop = loop
                loop.run_until_complete(fleet.begin(planned, life, clock))
        except (Died, RuntimeError):
            if not life.is_dead or planned is None:
                raise
        life.loop = None
        try:
            exit_code = loop.run_until_complete(fleet.carry_out(planned.run_id, life))
        finally:
            bury(loop)  # dead machines, before anybody forgets them
        fleet.count_deaths()
        self.violate(rules.of_the_budget(self, run, planned))
        return exit_code


class FleetRun:
    """One run of a night, from its handover to its end."""

    def __init__(
        self, night: PostgresNight, run: RunPlan, loop: VirtualLoop, connections: InlineConnections
    ) -> None:
        self.night, self.run, self.loop, self.connections = night, run, loop, connections
        self.engine = night.home.postgres.engine
        self.fleet = PostgresFleet(self.engine, connections)
        self.rng = random.Random(night.rng.random())
        self.queue = MemoryQueue(
            random.Random(self.rng.random()), twice=self.rng.choice((0.0, 0.1))
        )
        self.rates = Rates() if run.is_calm else night.rates
        self.workers: list[YearWorker] = []
        self.hints = _ToAll()

    async def begin(self, planned: PlannedRun, life: Machine, clock: VirtualClock) -> None:
        """Hand the run over."""
        fleet: Any = RemoteFleet(life, self.fleet)
        enqueue = MemoryEngine(self.queue, life).enqueue
        await hand_over(planned, fleet, clock, [_Teller(self)], enqueue)

    async def carry_out(self, run_id: str, planner: Machine) -> ExitCode | None:
        """Have workers carry out the run, if it was handed over; return how it ended."""
        handed, begun = await self.fleet.run_of(run_id), self.loop.time()
        if handed is None:
            return None
        if not planner.is_dead and self.run.dies_at is not None:
            self.run.dies_at = max(self.run.dies_at - planner.count, 1)
        self._schedule(run_id)
        for _ in range(self.rng.choice((1, 2, 2))):
            self._start_worker(handed.account, has_planned=planner.is_dead)
        while await self.fleet.run_of(run_id) is not None:
            await asyncio.sleep(LOOKS_S)
            if all(worker.is_gone for worker in self.workers):
                self._start_worker(handed.account)
            if self.loop.time() > begun + LONGEST_RUN_S:
                self.night.violate(["the run does not end"])
                break
        await self._drain()
        progress = await self.fleet.progress(run_id)
        has_ended = progress is not None and progress.exit_code is not None
        return ExitCode(progress.exit_code) if has_ended else None

    def count_deaths(self) -> None:
        """Add what became of the workers to the report."""
        report = self.night.report
        for worker in self.workers:
            machine = worker.machine
            report.died_at.update([machine.died_of] if machine.died_of else [])
            report.steps += machine.steps
            self.night.may_leave_copies |= machine.is_dead or machine.napped_of is not None

    async def _drain(self) -> None:
        until = self.loop.time() + DRAINS_WITHIN_S
        for worker in self.workers:
            worker.ending.set()
        while not all(worker.is_gone for worker in self.workers) and self.loop.time() < until:
            await asyncio.sleep(1.0)

    def _schedule(self, run_id: str) -> None:
        run, later = self.run, self.loop.call_later
        if run.interrupt_after_s is not None:
            later(run.interrupt_after_s, self._interrupt, run_id)
        if run.no_credit_after_s is not None:
            configure = self.night.provider.configure
            later(run.no_credit_after_s, partial(configure, has_credit=False))

    def _interrupt(self, run_id: str) -> None:
        stop = self.fleet.stop(run_id, StopReason.INTERRUPTED.value, "Ctrl-C")
        self._stopping = self.loop.create_task(stop)

    def _start_worker(self, account: Account, *, has_planned: bool = False) -> None:
        rng, night, run = self.rng, self.night, self.run
        name = f"w{run.number}-{len(self.workers)}"
        machine = Machine(name, self.loop, random.Random(rng.random()))
        if not run.is_calm:
            steps = 10 + 40 * night.count
            if run.dies_at is not None and not has_planned:
                machine.dies_at, run.dies_at = 1 + rng.randrange(steps), None
            if run.naps or rng.random() < 0.1:
                machine.naps_at, run.naps = 1 + rng.randrange(steps), []
                machine.nap_s = rng.choice((5.0, 35.0, 300.0, 3600.0))
            if rng.random() < 0.05:
                begins = self.loop.time() + rng.random() * 100.0
                machine.cut = (begins, begins + rng.choice((5.0, 60.0)))
            machine.loses = rng.choice((0.0, 0.0, 0.0, 0.05))
        self.workers.append(YearWorker(self, machine, account))

    def say(self, sentence: str) -> None:
        """Tell something of this run."""
        self.night.say(self.loop, sentence)


class _ToAll(Hints):
    """Tells all workers of a callback, whichever of them has received it."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Hints] = []

    def record(self, external_task_id: str, news: News) -> bool:
        return sum(hints.record(external_task_id, news) for hints in self.runs) > 0


class _Teller:
    """Observes the process that plans."""

    def __init__(self, run: FleetRun) -> None:
        self._run = run

    def notify(self, event: Event) -> None:
        self._run.say(f"planner: {event}")


class YearWorker(MachineWorker):
    """A worker of a run whose records are in Postgres."""

    def __init__(self, of: FleetRun, machine: Machine, account: Account) -> None:
        self.of = of
        mine = VirtualClock(of.loop, offset=of.night.offset, boot=of.rng.random() * 1e6)
        if of.run.clock_jump is not None:
            after_s, by_s = of.run.clock_jump
            of.loop.call_later(after_s, setattr, mine, "offset", mine.offset + by_s)
        clock = FleetClock(mine)
        super().__init__(
            machine, account, clock=clock, fleet=of.fleet, queue=of.queue, beat_s=BEAT_S
        )

    def say(self, sentence: str) -> None:
        self.of.say(sentence)

    def violate(self, rule: str) -> None:
        self.of.night.violate([rule])

    # -- the house

    @asynccontextmanager
    async def open(self, run: OpenRun, terms: Terms, stop: SharedStop) -> AsyncIterator[Opened]:
        of, night, machine = self.of, self.of.night, self.machine
        limits = terms.limits
        if run.deadline_at is not None:
            left_s = max(run.deadline_at - self.clock.now(), 0.001)
            limits = limits._replace(deadline_s=left_s, deadline_at=None)
        context = RunContext(
            account=run.account,
            limits=limits,
            policy=terms.policy,
            clock=self.clock,
            dice=random.Random(of.rng.random()),
            stop=stop,
            notify=self.notify,
        )
        api = FakeApi(
            night.provider,
            run=of.run.number,
            loop=of.loop,
            clock=self.clock,
            life=machine,
            rates=of.rates,
            rng=random.Random(of.rng.random()),
            request_timeout_s=limits.request_timeout_s,
            late_s=limits.settle_time_s * 0.3,
            offline=of.run.offline,
            account=run.account.key_hash,
            page=of.run.page,
        )
        disk = MortalDisk(of.loop, machine, random.Random(of.rng.random()), of.rates.disk)
        layout, hints = Layout(Path(run.root), f"{run.run_id}-{machine.name}"), Hints()
        with Videos(layout, pool=disk) as videos:
            world = World(
                api=api,
                state=RemoteState(machine, PostgresState(of.connections, run.library)),  # type: ignore[arg-type]
                videos=videos,
                guard=nullcontext(),
                hints=hints,
                callback_url=night.callback_url,
                new_id=partial(external_id, f"library {night.report.seed}"),
                forgot_at=terms.forgot_at,
                gate_of=partial(self._gate, run),
                given=SharedNames(self.fleet),
            )
            stages = await assemble(run.run_id, context, world)
            if not of.hints.runs:  # for all workers, those to come included
                api.call_back(of.hints)
            of.hints.runs.append(hints)
            api.on_post = partial(self._check_slots, run.account)
            yield Opened(run, terms, stop, stages, presence(videos))

    async def conclude(self, opened: Opened, outcome: Outcome) -> tuple[ExitCode, str]:
        await self.machine.reach("conclude: before")
        write, last_call = Ending(self.of.engine, self.clock).write, opened.run.last_call
        found = await asyncio.to_thread(write, opened.handed, opened.terms, outcome, last_call)
        await self.machine.reach("conclude: after")
        return found

    def _gate(
        self, run: OpenRun, context: RunContext, is_too_late: Callable[[str], bool]
    ) -> FleetGate:
        whose = Whose(run.library, run.run_id, run.account)
        desk: Any = PostgresDesk(self.of.connections, whose, self.clock.now)
        return FleetGate(context, RemoteDesk(self.machine, desk), Waker(), is_too_late)

    def _check_slots(self, account: Account) -> None:
        """The cap of a fleet is the account's."""
        night = self.of.night
        with night.home.reading(night.root) as database:
            night.violate(rules.at_a_post(night, database, self.of.loop.time(), account))


def play(
    seed: int, *, postgres: VirtualPostgres, tell: Callable[[str], None] | None = None
) -> Report:
    """Play a year in a folder of its own, and in *postgres*."""
    home = PostgresHome(postgres)
    with folder() as root, purse.in_a_zone(), home.in_use():
        report = PostgresNight(seed, root, tell=tell, is_year=True, home=home).play()
    gc.collect(0)
    return report
