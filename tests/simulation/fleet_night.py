"""One seed of a fleet: a few nights of one library on two or three machines that die, sleep and are cut off.

All machines live in one virtual loop, over the records of a fleet in memory (`memory_fleet`). At last the
faults stop, and every job must have its one video.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake_provider import FAILS, Provider, Rates, Ways
from fleet_workers import ACCOUNT, SimulatedWorker
from machines import Machine
from memory_engine import Delivery, MemoryQueue
from memory_fleet import MemoryFleet
from night import Report, folder
from virtual_time import DeadlockError, VirtualClock, VirtualLoop

from batch.attempt import Phase
from batch.engines.terms import Terms, works
from batch.job import Job, canonical_request, fingerprint
from batch.manifest.limits import Limits, Rate
from batch.output.fleet import DEAD_AFTER_S, OpenRun
from batch.plan import Action, Decision, Known, Plan, Policy, make_plan
from batch.sandbox.config import SandboxConfig

LIBRARY, PRICE_USD = "library", 0.21
LONGEST_NIGHT_S = 2 * 86_400.0
CALM_NIGHTS = 12


@dataclass(frozen=True)
class Walls:
    """What keeps a task from being paid for twice; tests of the tests take one away."""

    claims: bool = True
    indexes: bool = True
    send_deadline: bool = True
    one_clock: bool = True


ALL = Walls()


@dataclass
class FleetReport(Report):
    """The outcome of a seed; *paid_twice* are the requests that were paid for once more."""

    workers: int = 0
    lost_claims: int = 0
    napped_at: Counter[str] = field(default_factory=Counter)
    paid_twice: list[str] = field(default_factory=list)


class FleetNight:
    """A seed being played; in a storm, more is lost on the way to a provider that takes duplicates."""

    def __init__(
        self,
        seed: int,
        root: Path,
        *,
        walls: Walls = ALL,
        is_stormy: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.rng = rng = random.Random(seed)
        self.root, self.walls, self.is_stormy, self._tell = root, walls, is_stormy, tell
        self.report = FleetReport(seed)
        self.loop = VirtualLoop(1000.0)
        self.clock = VirtualClock(self.loop)
        self.limits = Limits(
            submit_rate=rng.choice([Rate(60, 60.0), Rate(5, 1.0), Rate(20, 1.0)]),
            max_in_flight=rng.choice([1, 2, 3, 5, 10]),
            poll_interval_s=rng.choice([1.0, 5.0]),
            request_timeout_s=rng.choice([5.0, 30.0]),
            task_timeout_s=rng.choice([600.0, 1800.0]),
            max_attempts=rng.randint(1, 3),
            settle_time_s=1.0 if is_stormy else rng.choice([1.0, 10.0, 30.0]),
            budget_usd=rng.choice([None, None, 0.7, 2.0]),
        )
        ways = Ways(shape=1)
        config = SandboxConfig(
            seed=seed,
            unique_external_ids=rng.random() < 0.5 and not is_stormy,
            max_parallel=rng.choice([None, None, 2, 5]),
            invisible_s=rng.choice([0.0, 0.5]) * self.limits.settle_time_s,
            median_s=rng.choice([5.0, 20.0, 60.0]),
            sigma=0.6,
            link_ttl_s=600.0,
        )
        self.provider = Provider(ways, config, random.Random(rng.random()))
        levels = (0.0, 0.0, 0.05)
        self.rates = Rates(
            submit=rng.choice(levels), query=rng.choice(levels), throttle=rng.choice(levels)
        )
        self.dead_after_s = rng.choice((2.0, DEAD_AFTER_S))  # the first is wrong more often
        if is_stormy:
            self.rates.submit = 0.3
            self.dead_after_s = 2.0
        self.fleet = MemoryFleet(self.clock.now, dead_after_s=self.dead_after_s)
        self.fleet.fences = walls.claims
        self.fleet.state(LIBRARY).has_indexes = walls.indexes
        self.queue = MemoryQueue(random.Random(rng.random()), twice=rng.choice((0.0, 0.1)))
        self.jobs = tuple(_job(n, rng) for n in range(rng.choice((2, 4, 8, 16))))
        self.workers: list[SimulatedWorker] = []
        self._names = 0
        self.is_calm = False
        self.report.jobs = len(self.jobs)

    # -- the story

    def play(self) -> FleetReport:
        """Play all nights; report the broken rules."""
        self.provider.on_created = self._check_cap
        try:
            self.loop.run_until_complete(self._play())
        except DeadlockError:
            self.violate("the workers wait for ever")
        finally:
            self._bury()
        self.report.tasks, self.report.posts = len(self.provider.tasks), len(self.provider.posts)
        self._check_money()
        self.report.lost_claims = self.fleet.lost_claims
        for worker in self.workers:
            machine = worker.machine
            self.report.died_at.update([machine.died_of] if machine.died_of else [])
            self.report.napped_at.update([machine.napped_of] if machine.napped_of else [])
        return self.report

    async def _play(self) -> None:
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            await self._night()
            if self.report.violations:
                return
            await asyncio.sleep(self.rng.choice((1.0, 30.0, 100.0)))
        if self.is_stormy:  # what look-up could not prove in it is left to a person
            return
        self._calm_down()
        for _ in range(CALM_NIGHTS):
            if all(self._is_for_a_person(item) for item in (await self._plan()).decisions):
                await self._check_videos()
                return
            await self._night()
            if self.report.violations:
                return
            await asyncio.sleep(60.0)
        decisions = (await self._plan()).decisions
        left = "; ".join(f"{d.job_id}: {d.action}, {d.reason}" for d in decisions)
        self.violate(f"not settled after {CALM_NIGHTS} quiet nights: {left}")

    def _calm_down(self) -> None:
        self.is_calm = True
        self.limits = self.limits._replace(budget_usd=None)
        self.rates.submit = self.rates.query = self.rates.throttle = 0.0
        self.provider.set_rates(self.rates)
        self.provider.configure(max_parallel=None)
        self.queue.twice = 0.0
        for worker in self.workers:
            worker.machine.dies_at = worker.machine.naps_at = None
            worker.machine.loses, worker.machine.cut = 0.0, (0.0, 0.0)

    async def _night(self) -> None:
        """Plan, hand over, and wait until the workers have ended the run."""
        self.report.runs += 1
        run_id, begun = f"r{self.report.runs}", self.loop.time()
        plan = await self._plan()
        budget_usd = self.limits.budget_usd
        terms = Terms("night", "night.yaml", self.limits, Policy()).written()
        run = OpenRun(run_id, LIBRARY, "/", ACCOUNT, terms, begun, None, budget_usd)
        jobs = works(enumerate(plan.decisions))
        queued = [Delivery(1, job.order, run_id, job.job_id) for job in jobs]
        await self.fleet.hand_over(run, jobs, lambda _transaction: self.queue.put(queued))
        for _ in range(self.rng.choice((2, 2, 3))):
            self._start_worker()
        while await self.fleet.run_of(run_id) is not None and not self.report.violations:
            await asyncio.sleep(10.0)
            if all(worker.is_gone for worker in self.workers):
                self._start_worker()
            if self.loop.time() > begun + LONGEST_NIGHT_S:
                self.violate("the run does not end")
        made = [task for task in self.provider.tasks.values() if task.created >= begun]
        if budget_usd is not None and len(made) * PRICE_USD > budget_usd + 1e-6:
            self.violate(f"{len(made)} tasks with a budget of {budget_usd}")

    def _start_worker(self) -> None:
        rng, count = self.rng, len(self.jobs)
        self._names += 1
        machine = Machine(f"w{self._names}", self.loop, random.Random(rng.random()))
        if not self.is_calm:
            steps = 10 + 40 * count
            if rng.random() < 0.3:
                machine.dies_at = 1 + rng.randrange(steps)
            if rng.random() < 0.5:
                machine.naps_at = 1 + rng.randrange(steps)
                machine.nap_s = rng.choice((5.0, 35.0, 60.0, 300.0))
            if rng.random() < 0.2:
                begins = self.loop.time() + rng.random() * 100.0
                machine.cut = (begins, begins + rng.choice((5.0, 60.0)))
            machine.loses = rng.choice((0.0, 0.0, 0.05))
            if self.is_stormy and rng.random() < 0.5:
                machine.naps_at, machine.nap_s = (
                    "submit: before connecting",
                    rng.choice((7.0, 60.0)),
                )
        worker = SimulatedWorker(self, machine)
        self.workers.append(worker)
        self.report.workers += 1
        if not self.is_calm and rng.random() < (0.7 if self.is_stormy else 0.2):
            lives_s = rng.expovariate(1 / (8.0 if self.is_stormy else 40.0))
            self.loop.call_later(lives_s, worker.ending.set)

    async def _plan(self) -> Plan:
        return make_plan(
            self.jobs,
            await self.fleet.state(LIBRARY).known(),
            policy=Policy(max_attempts=self.limits.max_attempts, resubmit_unconfirmed=False),
            is_present=self.is_present,
            price=lambda _job: (PRICE_USD, True),
            now=self.clock.now(),
        )

    def _is_for_a_person(self, decision: Decision) -> bool:
        """Return whether a plan leaves a job to a person, since nothing can tell of its task."""
        is_unconfirmed = decision.reason.startswith("unconfirmed")
        is_waiting = decision.action is Action.RESUME and is_unconfirmed
        return is_waiting and self._cannot_be_told(decision.attempt or "")

    def _cannot_be_told(self, external_task_id: str) -> bool:
        """Return whether no look-up can prove that there is no task: none has ever found one."""
        is_absent = external_task_id not in self.provider.by_external
        return is_absent and not self.fleet.state(LIBRARY).proofs

    def is_present(self, item: Known) -> bool:
        """Return whether the video of an attempt is there in its size."""
        with suppress(OSError):
            return (self.root / str(item.file)).stat().st_size == item.bytes
        return False

    # -- the rules

    def _check_cap(self, _task: Any) -> None:
        """No more tasks are open than the cap, of those that anybody knows."""
        now, state = self.loop.time(), self.fleet.state(LIBRARY)
        open_now = 0
        for task in self.provider.by_external.values():
            attempt = state.attempts.get(task.external_task_id)
            mark = state.marks.get(task.external_task_id)
            is_free = mark is None or (mark.slot_until or math.inf) < self.clock.now()
            is_known = attempt is not None and attempt.phase.keeps_slot
            open_now += task.ends > now and is_known and not is_free
        if open_now > self.limits.max_in_flight:
            self.violate(f"{open_now} tasks are open, and {self.limits.max_in_flight} may be")

    def _check_money(self) -> None:
        """A task is paid for only where every earlier one of its request had failed."""
        for job in self.jobs:
            prompt = job.body()["prompt"]
            tasks = [task for task in self.provider.tasks.values() if task.prompt == prompt]
            for i, task in enumerate(tasks):
                if any(not e.fails or e.ends > task.created for e in tasks[:i]):
                    self.report.paid_twice.append(f"{prompt!r} at {task.created:.0f}")
                    self.violate(f"{prompt!r} was paid for {len(tasks)} times")

    async def _check_videos(self) -> None:
        known = await self.fleet.state(LIBRARY).known()
        for job in self.jobs:
            latest = known[job.id][-1]
            task = self.provider.tasks.get(latest.task_id or "")
            if latest.file is None:
                is_unconfirmed = latest.phase is Phase.UNCONFIRMED
                is_open_question = is_unconfirmed and self._cannot_be_told(latest.external_task_id)
                has_failed = task is not None and task.fails
                if not (is_open_question or has_failed):
                    self.violate(f"{job.id} ends as {latest.phase}")
            elif task is None or (self.root / latest.file).read_bytes() != task.content:
                self.violate(f"{latest.file} is not the video of {latest.task_id}")

    # -- helpers

    def violate(self, sentence: str) -> None:
        """Report a broken rule."""
        if sentence not in self.report.violations:
            self.report.violations.append(sentence)
            self.say(f"*** {sentence}")

    def say(self, text: str) -> None:
        """Tell what happens."""
        line = f"{self.loop.time():12.3f} {text}"
        self.report.trace.append(line)
        if self._tell is not None:
            self._tell(line)

    def _bury(self) -> None:
        """End the coroutines of all machines."""
        self.loop.set_exception_handler(lambda *_: None)
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            for _ in range(50):
                try:
                    coroutine.close()
                    break
                except RuntimeError:
                    continue
        self.loop.close()


def _job(number: int, rng: random.Random) -> Job:
    trait = rng.choice(("", "", "", f"{FAILS}1"))
    body = {
        "prompt": f"j{number} {trait}",
        "model_name": "kling-v2-6",
        "mode": "std",
        "duration": "5",
        "aspect_ratio": "1:1",
    }
    request = canonical_request(body)
    return Job(f"j{number}", request, fingerprint(request, None))


def play(
    seed: int,
    *,
    walls: Walls = ALL,
    is_stormy: bool = False,
    tell: Callable[[str], None] | None = None,
) -> FleetReport:
    """Play the seed in a folder of its own."""
    with folder() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what a dead machine has not begun
        report = FleetNight(seed, root, walls=walls, is_stormy=is_stormy, tell=tell).play()
        gc.collect()
    return report
