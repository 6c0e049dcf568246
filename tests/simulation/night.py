"""One seed: a handful of nights on one output folder, with everything that can happen to it.

A scenario is drawn (manifest, limits, provider, rates of faults), then runs follow on the same
folder: some die at a random step, some are stopped, and between runs the manifest is edited (prompts
change and come back, jobs are renamed, swapped, sorted and spelled otherwise), files are deleted, and
the disk of the videos is away for a night. At last the faults stop, and everything has to settle. The
rules are in `rules`.

A *year* is the same with fewer jobs, fewer faults of the provider and many more nights.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import keeper
import purse
import rules
from fake_api import FakeApi
from fake_provider import (
    ABSENT,
    FAILS,
    FORBIDDEN,
    INVALID,
    MODERATED,
    RELAY,
    REWORDED,
    SILENT,
    UNKNOWN,
    WORKS,
    Provider,
    Rates,
    Ways,
)
from homes import FolderHome, Home
from mortal import Died, InlineState, Life, MortalDisk, mortal_path
from sheets import Sheets
from virtual_time import EPOCH, DeadlockError, VirtualClock, VirtualLoop, VirtualWindow

from batch.attempt import RETENTION_S, Account, Attempt, Landed, Phase, external_id
from batch.callbacks.hints import Hints
from batch.errors import ExitCode, StateError
from batch.events import Adopted, Event, Submitted
from batch.job import Job, canonical_request, fingerprint, folded
from batch.manifest.limits import Limits, Rate
from batch.manifest.model import Manifest
from batch.output.checked import KEEPS_TIME_S
from batch.output.sqlite import Database
from batch.output.videos import Videos
from batch.plan import Action, Plan, Policy
from batch.run.context import RunContext
from batch.run.counts import Counts
from batch.run.feeder import Feeder
from batch.run.planner import PlannedRun, open_planned_run
from batch.run.stop import Stop, StopReason
from batch.run.wiring import World, assemble
from batch.sandbox.config import SandboxConfig
from batch.sandbox.shapes import LINK_PLACES
from batch.settings import Settings

BASE_URL, WRONG_URL = "https://simulated.example", "https://simulated.example/v1"
PAGES = ("404-html", "405-html", "html-2xx")
SETTLED = frozenset({Action.UNCHANGED, Action.RESTING, Action.ORPHANED})
YEAR = (25, 40, 60)  # nights; the others are quiet
CALM_RUNS = 16  # everything settles within so many runs without faults
LONGEST_RUN_S = 5 * 86_400.0
TRAITS = (
    "",
    "",
    "",
    "",
    "",
    f"{FAILS}1",
    f"{FAILS}2",
    f"{FAILS}9",
    f"sandbox:{MODERATED}",
    f"sandbox:{REWORDED}",
    UNKNOWN,
    INVALID,
    FORBIDDEN,
)


@dataclass
class RunPlan:
    """The events of one run."""

    number: int
    begins: float
    is_calm: bool = False
    force: bool = False
    retry_failed: bool = False
    resubmit: bool = False
    dies_at: int | None = None
    interrupt_after_s: float | None = None
    insist_after_s: float | None = None
    no_credit_after_s: float | None = None
    offline: tuple[float, float] = (0.0, 0.0)
    naps: list[tuple[float, float]] = field(default_factory=list)
    clock_jump: tuple[float, float] | None = None
    account: str = "somebody"
    page: str | None = None  # answers every request at a wrong address
    plan: Path | None = None  # a saved one

    @property
    def base_url(self) -> str:
        return BASE_URL if self.page is None else WRONG_URL


@dataclass
class Report:
    """The outcome of a seed."""

    seed: int
    runs: int = 0
    died_at: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    posts: int = 0
    jobs: int = 0
    exits: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    known: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


class Night:
    """A seed being played. *is_fleet*: its runs are carried out by several processes."""

    is_fleet = False

    def __init__(
        self,
        seed: int,
        root: Path,
        *,
        tell: Callable[[str], None] | None = None,
        is_year: bool = False,
        home: Home | None = None,
    ) -> None:
        self.rng = rng = random.Random(seed)
        self.root, self._tell = root, tell
        self.home = home or FolderHome()
        self.is_year = is_year
        self.report = Report(seed)
        self.limits = Limits(
            submit_rate=rng.choice([Rate(1, 1.0), Rate(30, 60.0), Rate(60, 60.0), Rate(20, 1.0)]),
            max_in_flight=rng.choice([1, 2, 3, 5, 10, 30]),
            max_downloads=rng.randint(1, 4),
            poll_interval_s=rng.choice([1.0, 5.0, 10.0]),
            request_timeout_s=rng.choice([5.0, 30.0]),
            task_timeout_s=rng.choice([120.0, 600.0, 1800.0]),
            max_attempts=rng.randint(1, 4),
            settle_time_s=rng.choice([1.0, 10.0, 30.0, 60.0]),
            deadline_s=rng.choice([None, None, None, 120.0, 3600.0]),
            budget_usd=rng.choice([None, None, None, 1.0, 3.0]),
        )
        self.purse = purse.Purse(seed, is_year=is_year)
        self.limits = self.purse.laid_over(self.limits)
        self.ways = Ways(look_up=rng.choice([WORKS, WORKS, WORKS, WORKS, SILENT, ABSENT, RELAY]))
        sandbox = SandboxConfig(
            seed=seed,
            unique_external_ids=rng.random() < 0.7,
            checks_duplicates_first=rng.random() < 0.5,
            tells_external_id=rng.random() < 0.5 or self.ways.look_up == RELAY,
            max_parallel=rng.choice([1, 2, 5, None, None]),
            invisible_s=rng.choice([0.0, 0.5]) * self.limits.settle_time_s,
            median_s=rng.choice([10.0, 60.0, 200.0, 900.0]),
            sigma=0.6,
            link_ttl_s=rng.choice([20.0, 600.0]),
            kept_s=math.inf,
            other_keys=rng.choice(["everything", "task-ids"]),
        )
        self.ways.shape = rng.choice([1, 1, 2, 3, 4, 5, 0])
        # Most answers with a link elsewhere name no external id, which alone gives a relay away.
        link = rng.choice(["", "", *LINK_PLACES])
        self.ways.link = "" if self.ways.look_up == RELAY else link
        self.ways.resumes = rng.random() < 0.8
        self.ways.calls_back = rng.choice([None, None, 0.0, 0.5, 1.0])
        levels = (0.0, 0.0, 0.05, 0.3)
        self.rates = Rates(
            submit=rng.choice(levels),
            query=rng.choice(levels),
            fetch=rng.choice((*levels, 0.6)),
            throttle=rng.choice(levels),
            disk=rng.choice((0.0, 0.0, 0.02)),
            store=rng.choice((0.0, 0.0, 0.002)),
        )
        # Without these a provider cannot tell what a restored backup has forgotten. One that takes an
        # id twice is asked before, by which a query without an answer proves nothing.
        has_whole_state = not (self.purse.has_budgets or self.purse.is_tidy)
        self.has_backups = (
            is_year
            and has_whole_state
            and (sandbox.unique_external_ids or not self.rates.query)
            and self.ways.look_up == WORKS
        )
        self.is_mortal = rng.random() < 0.75
        self.fickle = rng.choice((0.05, 0.05, 0.05, 0.4))  # how much of the manifest is edited
        self.provider = Provider(self.ways, sandbox, random.Random(rng.random()))
        self.count = rng.choice((3, 4, 6) if is_year else (3, 3, 5, 8, 12, 20, 30))
        self.versions = dict.fromkeys((f"j{n}" for n in range(self.count)), 1)
        self.names = {key: key for key in self.versions}  # the ids of the jobs, as they are now
        self.spelling: dict[str, str] = {}  # options that are spelled out at their defaults
        self.sheets = Sheets(seed, self.versions, is_year=is_year)
        self.traits: dict[tuple[str, int], str] = {}
        self.has_traits = rng.random() < 0.6
        self.now = 1000.0
        self.offset = 0.0
        self.forced: Counter[str] = Counter()  # forced prompts, and how often
        self.edited_at = -math.inf  # when a person edited a video last
        self.discarded: Counter[str] = Counter()  # videos that a person has pruned, by prompt
        self.retried: Counter[str] = Counter()
        self.resubmitted: Counter[str] = Counter()
        self.tampered: set[str] = set()  # files (relative) that were tampered with
        self.tampered_ids: set[str] = set()  # and the external ids of their tasks
        self.forgotten: set[str] = set()  # external ids that a restored backup does not know
        self.came_back_at = math.inf  # when a backup was first restored
        self.takes_ids_twice = not sandbox.unique_external_ids
        self.may_leave_copies = self.rates.disk > 0.0
        self.ages: set[int] = set()  # times of files, as this clock has them
        self.opened: dict[tuple[int, str], float] = {}  # by run and task id: known since
        self._graves: list[tuple[VirtualLoop, InlineState | None]] = []

    # -- the story

    def play(self) -> Report:
        """Play all runs; report the broken rules."""
        try:
            nights = self.rng.choice(YEAR if self.is_year else (1, 2, 3, 4, 6))
            for number in range(1, nights + 1):
                self._edit(number)
                self.sheets.draw()
                self._run(self._draw(number))
                self.now += self.rng.choice((1.0, 5.0, 60.0, 3600.0, 20_000.0, 700_000.0))
                if self.report.violations:
                    return self.report
                # For thirty days it is looked up; then a real provider does not know it either.
                if self.takes_ids_twice and self.now - self.came_back_at > RETENTION_S / 2:
                    break
            self._settle(number)
        finally:
            self._bury()
            self.report.tasks = len(self.provider.tasks)
            self.report.posts = len(self.provider.posts)
            self.report.jobs = self.count
        return self.report

    def _settle(self, number: int) -> None:
        """Run without faults until nothing is left to do, in a few runs at most."""
        self.limits = self.limits.with_given(deadline_s=None, budget_usd=None)
        self.limits = self.limits.with_given(budget_per_day_usd=None, budget_per_month_usd=None)
        self.ways.look_up = WORKS
        self.provider.configure(max_parallel=None, other_keys="everything")
        sheets, settled = self.sheets.count, 0
        for calm in range(1, CALM_RUNS * sheets + 1):
            self.sheets.now = calm % sheets
            run = RunPlan(number + calm, self.now, is_calm=True, resubmit=calm > 4 * sheets)
            exit_code = self._run(run)
            self.now += 3600.0
            if self.report.violations:
                return
            is_settled = exit_code is not None and self._is_settled()
            settled = settled + 1 if is_settled else 0
            if settled == sheets:  # a run of each manifest in a row has found and left it so
                self.violate(rules.at_the_end(self))
                return
        self.violate([f"not settled after {calm} quiet runs: {self._open_states()}"])

    def _draw(self, number: int) -> RunPlan:
        rng = self.rng
        run = RunPlan(number, self.now)
        if self.is_mortal and rng.random() < (0.15 if self.is_year else 0.7):
            # Mostly anywhere; sometimes in the first steps, while a run opens its folder.
            most = 100 * self.count
            early = int(math.exp(rng.random() * math.log(most)))
            run.dies_at = 1 + (early if rng.random() < 0.3 else rng.randrange(most))
        if rng.random() < 0.15:
            run.interrupt_after_s = rng.expovariate(1 / 60)
            if rng.random() < 0.5:
                run.insist_after_s = run.interrupt_after_s + rng.choice((0.0, 0.1, 5.0))
        if rng.random() < 0.08:
            run.no_credit_after_s = rng.expovariate(1 / 30)
        if rng.random() < 0.1:
            begin = self.now + rng.expovariate(1 / 60)
            run.offline = (begin, begin + 600.0)
        if rng.random() < 0.1:
            run.naps = [(self.now + rng.expovariate(1 / 60), 3600.0)]
        if rng.random() < 0.15:
            run.clock_jump = (rng.expovariate(1 / 60), rng.choice((-3600.0, 3600.0)))
        if self.purse.has_budgets:  # what is adopted counts by the provider's clock
            run.clock_jump = None
        if rng.random() < 0.15 and not self.has_backups:  # a duplicate is one for the same key
            run.account = "somebody else"
        if rng.random() < 0.1:
            run.page = rng.choice(PAGES)
        if number > 1:
            run.force = rng.random() < 0.05
            run.retry_failed = rng.random() < 0.1
            run.resubmit = rng.random() < 0.1
        run.plan = self.purse.plan_of(self, run)
        return run

    def _edit(self, number: int) -> None:
        """Edit the manifest and the folder between two runs."""
        rng = self.rng
        if number == 1:
            return
        # What is edited on a disk that has just come back is taken for an edit of the video meant to
        # be there: nobody could tell. Nor later on, while no run has had a reason to look at it.
        may_tamper = not (self._mount() or self.purse.is_tidy)
        for key in self.names:
            luck = rng.random()
            if luck < self.fickle:
                self.versions[key] = rng.randint(1, 3)
            elif luck < self.fickle + 0.02:
                self.versions.pop(key, None)
            job_id = self.names[key]
            file = self.root / f"videos/{job_id}.mp4"
            if rng.random() < 0.05 and file.exists() and may_tamper:
                self._note_tampering(job_id, f"videos/{job_id}.mp4")
                how = rng.random()
                if how < 0.4:
                    file.unlink()
                elif how < 0.7:
                    file.write_bytes(file.read_bytes()[:100])
                elif not self._is_anothers(file):
                    file.write_bytes(file.read_bytes() + rules.TITLE)
                    self.edited_at = self.now
        self._age()
        self._rename()
        if self.has_backups and rng.random() < 0.1:
            self._back_up_or_restore()
        if self.is_year and rng.random() < 0.15:
            self.violate(keeper.keep(self))
            self._age()
        # What was edited in the minute before its disk goes away is taken for an edit of what lands
        # meanwhile: nobody could tell that either.
        has_fresh_edit = self.now - self.edited_at <= KEEPS_TIME_S
        if rng.random() < 0.05 and not (self.purse.is_tidy or has_fresh_edit):
            self._unmount()

    def _back_up_or_restore(self) -> None:
        """Copy the whole folder, or bring the copy back."""
        backup = self.root.with_name(f"{self.root.name}-backup")
        if not backup.exists():
            if self.home.has_state(self.root):
                shutil.copytree(self.root, backup, symlinks=True)
                self.home.back_up()
            return
        shutil.rmtree(self.root)
        backup.rename(self.root)
        self.home.bring_back()
        self.came_back_at = min(self.came_back_at, self.now)
        self.forgotten |= set(self.provider.by_external) - self._known_ids()
        self._note_return()

    def _known_ids(self) -> set[str]:
        with self.home.reading(self.root) as database:
            return {
                attempt.external_task_id
                for attempt in database.attempts()
                if attempt.phase is not Phase.FAILED or attempt.task is not None
            }

    def _rename(self) -> None:
        """Rename, swap and sort jobs, or spell out a default."""
        rng = self.rng
        if rng.random() < 0.25:
            keys = rng.sample(sorted(self.names), k=rng.randint(1, min(3, self.count)))
            ids = [self.names[key] for key in keys]
            match rng.randrange(3):
                case 0:
                    ids = [f"r{rng.randrange(1000)}-{key}" for key in keys]
                case 1:  # in a circle
                    ids = ids[1:] + ids[:1]
                case 2:
                    ids = [job_id.swapcase() for job_id in ids]
            names = self.names | dict(zip(keys, ids, strict=True))
            if len(set(map(folded, names.values()))) == len(names):  # or the manifest is not valid
                self.names = names
        if rng.random() < 0.1:
            self.versions = dict(sorted(self.versions.items(), key=lambda _item: rng.random()))
        if rng.random() < 0.1:
            self.spelling = rng.choice([{}, {"sound": "off"}])

    def _unmount(self) -> None:
        """Take the videos' disk away until the next night; a run sees an empty mount point."""
        videos = self.root / "videos"
        if not videos.exists():
            return
        self._note_all()
        videos.rename(self.root / "away")
        videos.mkdir()

    def _mount(self) -> bool:
        """Bring the videos' disk back, if it was away; it hides what has landed in its mount point."""
        away = self.root / "away"
        if not away.exists():
            return False
        shutil.rmtree(self.root / "videos")
        away.rename(self.root / "videos")
        self._note_return()
        return True

    def _note_return(self) -> None:
        """Note that files are back as they were: also what a person had done to some of them."""
        self._note_all()
        self.tampered |= {str(p.relative_to(self.root)) for p in self.root.glob("videos/**/*")}

    def _note_all(self) -> None:
        if self.home.has_state(self.root):
            with self.home.reading(self.root) as database:
                landed = [a for a in database.attempts() if isinstance(a.state, Landed)]
            self.tampered_ids |= {attempt.external_task_id for attempt in landed}

    def _note_tampering(self, job_id: str, file: str) -> None:
        # A death in the middle of a move leaves a second name of the same file.
        there = self.root / file
        names = [path for path in self.root.glob("videos/**/*.mp4") if path.samefile(there)]
        self.tampered |= {str(path.relative_to(self.root)) for path in names}
        with self.home.reading(self.root) as database:
            self.tampered_ids |= {
                attempt.external_task_id
                for attempt in database.attempts()
                if attempt.job_id == job_id and self._is_same_file(attempt, file)
            }

    def _is_anothers(self, file: Path) -> bool:
        """Return whether a file is a video that is not recorded there: a disk brought it back."""
        with self.home.reading(self.root) as database:
            holders = database.holders_of(str(file.relative_to(self.root)))
        content = file.read_bytes().split(rules.TITLE)[0]
        makers = {t.task_id for t in self.provider.tasks.values() if t.content == content}
        return bool(makers) and not any(a.task_id in makers for a in holders)

    def _is_same_file(self, attempt: Attempt, file: str) -> bool:
        """A former video may also keep its old name until the new one takes it."""
        recorded = attempt.state.file if isinstance(attempt.state, Landed) else None
        if recorded is None or recorded == file:
            return recorded == file
        home = self.root / recorded
        return home.exists() and home.samefile(self.root / file)

    def plan(self) -> Plan:
        """Return the plan of a run started now; of everything where nothing was made yet."""
        if not self.home.has_state(self.root):
            return rules.plan_of(self, None)
        with self.home.reading(self.root) as database:
            return rules.plan_of(self, database)

    def jobs(self) -> tuple[Job, ...]:
        """Return the jobs of tonight's manifest as it is now."""
        return tuple(
            self._job(name, self.versions[name]) for name in self.sheets.listed(self.versions)
        )

    def all_jobs(self) -> tuple[Job, ...]:
        """Return the jobs of all manifests of the library."""
        return tuple(self._job(name, version) for name, version in self.versions.items())

    def _job(self, name: str, version: int) -> Job:
        key = (name, version)
        if key not in self.traits:
            self.traits[key] = self.rng.choice(TRAITS) if self.has_traits else ""
        body = {
            "prompt": self.prompt(*key),
            "model_name": "kling-v2-6",
            "mode": "std",
            "duration": "5",
            "aspect_ratio": "1:1",
            **self.spelling,
        }
        request = canonical_request(body)
        return Job(self.names[name], request, fingerprint(request, None))

    def prompt(self, name: str, version: int) -> str:
        """Return the prompt of a version of a job; the rules read all they need from it."""
        return f"{name} v{version} {self.traits.get((name, version), '')}"

    def manifest(self, jobs: tuple[Job, ...] | None = None) -> Manifest:
        """Return the manifest as it is now."""
        name = "night" if self.sheets.now == 0 else "second night"
        return Manifest(Path(f"{name}.yaml"), name, jobs or self.jobs(), self.limits)

    def limits_of(self, run: RunPlan) -> Limits:
        """Return the limits of a run: by a saved plan it pays for each job once."""
        return self.limits if run.plan is None else self.limits._replace(max_attempts_per_run=1)

    def settings(self, run: RunPlan) -> Settings:
        """Return the settings of a run."""
        return Settings(
            output_dir=self.root,
            base_url=run.base_url,
            sandbox=False,
            limits=self.limits_of(run),
            new=True,
            policy=Policy(
                force=run.force,
                retry_failed=run.retry_failed,
                resubmit_unconfirmed=run.resubmit,
                max_attempts=self.limits.max_attempts,
            ),
            plan=run.plan,
        )

    # -- one run

    def _run(self, run: RunPlan) -> ExitCode | None:
        """Run once; return None if the process died or could not write its state."""
        self.report.runs += 1
        jobs = self.jobs()
        for job in jobs:
            prompt = job.body()["prompt"]
            self.retried[prompt] += run.retry_failed
            self.resubmitted[prompt] += run.resubmit
        loop = VirtualLoop(self.now)
        life = self._life(run, loop)
        loop.naps = list(run.naps)
        clock = VirtualClock(loop, offset=self.offset, boot=self.rng.random() * 1e6)
        mortal = mortal_path(self.root, life, random.Random(self.rng.random()))
        home = mortal_path(self.root.with_name(f"{self.root.name}-home"), life, random.Random(0))
        settings = replace(self.settings(run), output_dir=mortal, state_folder=home)
        manifest = self.manifest(jobs)
        self.say(loop, f"run {run}")
        exit_code = self._guarded(run, manifest, settings, loop, clock, life)
        self.provider.configure(has_credit=True)
        self.now, self.offset = loop.time(), clock.offset
        self.report.steps += life.steps
        if life.is_dead:
            self.report.died_at[life.died_of or ""] += 1
        self.may_leave_copies |= life.is_dead or run.insist_after_s is not None
        how = f"died: {life.died_of}" if life.is_dead else str(exit_code)
        self.report.exits[how.split(":")[0]] += 1
        self.say(loop, f"end of run {run.number}: {how}, {life.count} steps")
        if not self.report.violations:
            self.violate(rules.after_a_run(self, run, is_whole=exit_code is not None))
        self._age()
        return exit_code

    def _age(self) -> None:
        """Give the files that were written since the last time their age on the virtual clock."""
        landed: dict[str, Landed] = {}
        if self.home.has_state(self.root):
            with self.home.reading(self.root) as database:
                states = [attempt.state for attempt in database.attempts()]
            landed = {state.file: state for state in states if isinstance(state, Landed)}
        for path in (*self.root.glob("videos/**/*.mp4"), *self.root.glob("versions/**/*.mp4")):
            status = path.stat()
            if status.st_mtime_ns in self.ages:
                continue
            state = landed.get(str(path.relative_to(self.root)))
            is_as_landed = state is not None and state.bytes == status.st_size
            at = state.landed_at if state and is_as_landed else EPOCH + self.now + self.offset
            os.utime(path, (at, at))
            self.ages.add(path.stat().st_mtime_ns)

    def _life(self, run: RunPlan, _loop: VirtualLoop) -> Life:
        """Return the process of a run."""
        return Life(run.dies_at)

    def _guarded(
        self,
        run: RunPlan,
        manifest: Manifest,
        settings: Settings,
        loop: VirtualLoop,
        clock: VirtualClock,
        life: Life,
    ) -> ExitCode | None:
        asyncio.set_event_loop(loop)
        try:
            return self._carry_out(run, manifest, settings, loop, clock, life)
        except Died:
            return None
        except StateError as error:
            self.say(loop, f"StateError: {error}")
            return None
        except DeadlockError:
            if not life.is_dead:
                self.violate(["the run waits for ever"])
            return None
        except RuntimeError:
            if not life.is_dead:
                raise
            return None
        finally:
            asyncio.set_event_loop(None)
            self._graves.append((loop, None))

    def _carry_out(
        self,
        run: RunPlan,
        manifest: Manifest,
        settings: Settings,
        loop: VirtualLoop,
        clock: VirtualClock,
        life: Life,
    ) -> ExitCode | None:
        with open_planned_run(manifest, settings, clock) as planned:
            assert isinstance(planned.folder.database, Database)
            planned.folder.database._db.execute("PRAGMA synchronous=OFF")
            self.note_round(planned)
            if not planned.plan.decisions:
                return planned.end_quietly(clock).exit_code
            life.loop = loop
            return loop.run_until_complete(self._execute(run, planned, loop, clock, life))

    def note_round(self, planned: PlannedRun) -> None:
        """Note what a new round of `--force` makes once more; nothing is suspected without a reason."""
        if planned.folder.is_older and math.isinf(self.came_back_at):
            self.violate(["the state is said to be older than what was seen of it"])
        if planned.plan.round is not None and planned.plan.round.is_new:
            self.forced.update(job.body()["prompt"] for job in planned.manifest.jobs)

    async def _execute(
        self, run: RunPlan, planned: PlannedRun, loop: VirtualLoop, clock: VirtualClock, life: Life
    ) -> ExitCode:
        """Assemble a run over the fakes, and execute it."""
        planned.begin()
        limits, rng = planned.settings.limits, random.Random(self.rng.random())
        rates = Rates() if run.is_calm else self.rates
        counts, main = Counts(), asyncio.current_task()
        assert main is not None

        def notify(event: Event) -> None:
            counts.notify(event)
            self.say(loop, str(event))
            if isinstance(event, Submitted | Adopted):
                self.opened[run.number, event.task_id] = loop.time()

        stop = Stop(notify)
        with ExitStack() as exits:
            api = FakeApi(
                self.provider,
                run=run.number,
                loop=loop,
                clock=clock,
                life=life,
                rates=rates,
                rng=random.Random(rng.random()),
                request_timeout_s=limits.request_timeout_s,
                late_s=limits.settle_time_s * 0.3,
                offline=run.offline,
                account=run.account,
                page=run.page,
            )
            disk = MortalDisk(loop, life, random.Random(rng.random()), rates.disk)
            state = InlineState(
                planned.folder.database,
                planned.folder.results,
                life=life,
                rng=random.Random(rng.random()),
                fault_rate=rates.store,
            )
            self._graves.append((loop, state))
            rate, hints = limits.submit_rate, Hints()
            world = World(
                api=api,
                state=exits.enter_context(state),
                videos=exits.enter_context(Videos(planned.folder.layout, pool=disk)),
                guard=VirtualWindow(clock, rate.count, rate.per_second),
                hints=hints,
                callback_url=self.callback_url,
                new_id=partial(external_id, f"library {self.report.seed}"),
                forgot_at=planned.folder.forgot_at,
            )
            context = RunContext(
                account=Account(run.base_url, run.account),
                limits=limits,
                policy=planned.settings.policy,
                clock=clock,
                dice=rng,
                stop=stop,
                notify=notify,
            )
            wired = await assemble(planned.run_id, context, world)
            api.call_back(hints)
            api.on_post = lambda: self.violate(rules.at_a_post(self, state.database, loop.time()))
            self._schedule(run, loop, clock, stop, main)
            try:
                await Feeder(wired).feed(planned.plan.decisions)
                exit_code = counts.exit_code(planned.plan, stop)
            except asyncio.CancelledError:
                if stop.reason is not StopReason.INTERRUPTED:
                    self.violate(["told twice to stop, after another reason to stop"])
                exit_code = counts.exit_code(planned.plan, stop)
            self.violate([f"a bug: {bug}" for bug in counts.bugs])
            self.violate(rules.of_the_pace(self, api.calls, loop.napped))
            self.violate(rules.of_the_budget(self, run, planned))
        planned.end(
            planned.summary(exit_code, counts.sent, counts.taken_over, **counts.found()), clock
        )
        return exit_code

    def _schedule(
        self,
        run: RunPlan,
        loop: VirtualLoop,
        clock: VirtualClock,
        stop: Stop,
        main: asyncio.Task[object],
    ) -> None:
        """Schedule the events of this run."""
        if run.interrupt_after_s is not None:
            loop.call_later(run.interrupt_after_s, stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        if run.insist_after_s is not None:
            loop.call_later(run.insist_after_s, main.cancel)
        if run.no_credit_after_s is not None:
            no_credit = partial(self.provider.configure, has_credit=False)
            loop.call_later(run.no_credit_after_s, no_credit)
        if run.clock_jump is not None:
            after_s, by_s = run.clock_jump
            loop.call_later(after_s, setattr, clock, "offset", clock.offset + by_s)
        loop.call_later(LONGEST_RUN_S, self.violate, ["the run does not end"])
        loop.call_later(LONGEST_RUN_S, main.cancel)

    # -- helpers

    def callback_url(self, external_task_id: str) -> tuple[str, str] | None:
        """Return where a task is to call back, if the year has callbacks."""
        is_called = self.ways.calls_back is not None
        return (f"https://cb/{external_task_id}", "00") if is_called else None

    def _is_settled(self) -> bool:
        """Nothing is left to do, by any manifest, but look-ups that can never prove absence."""
        with self.home.reading(self.root) as database:
            for number in range(self.sheets.count):
                self.sheets.now = number
                if not self._has_settled(rules.plan_of(self, database)):
                    return False
        return True

    def _has_settled(self, plan: Plan) -> bool:
        waiting = [d for d in plan.decisions if d.action is Action.RESUME]
        is_quiet = set(plan.counts) <= {Action.RESUME, *SETTLED} and all(
            self.is_beyond_proof(self._prompt_of(decision.job)) for decision in waiting
        )
        return is_quiet and not any(
            external_task_id in self.provider.by_external
            for decision in plan.decisions
            for external_task_id in decision.former
        )

    def is_beyond_proof(self, prompt: str) -> bool:
        """The answer was lost and the resent request refused: no proof is possible."""
        made = {task.prompt for task in self.provider.tasks.values()}
        return (INVALID in prompt or FORBIDDEN in prompt) and prompt not in made

    @staticmethod
    def _prompt_of(job: Job | None) -> str:
        return "" if job is None else str(job.body()["prompt"])

    def _open_states(self) -> str:
        with self.home.reading(self.root) as database:
            plan = rules.plan_of(self, database)
        return "; ".join(f"{d.job_id}: {d.action}, {d.reason}" for d in plan.decisions)

    def violate(self, broken: list[str]) -> None:
        for sentence in broken:
            known = next((name for name, mark in rules.KNOWN.items() if mark in sentence), None)
            if known is not None:
                self.report.known[known] += 1
            elif sentence not in self.report.violations:
                self.report.violations.append(sentence)
                if self._tell is not None:
                    self._tell(f"*** {sentence}")

    def say(self, loop: VirtualLoop, text: str) -> None:
        line = f"{loop.time():12.3f} {text}"
        self.report.trace.append(line)
        if self._tell is not None:
            self._tell(line)

    def _bury(self) -> None:
        """End the coroutines of dead processes."""
        for loop, state in self._graves:
            if state is not None:
                state.close()
            bury(loop)


def bury(loop: VirtualLoop) -> None:
    """End what still waits in a loop, and the loop."""
    loop.set_exception_handler(lambda *_: None)
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False
        coroutine = task.get_coro()
        for _ in range(50):
            try:
                coroutine.close()  # type: ignore[union-attr]
                break
            except (RuntimeError, Died):
                continue
    if not loop.is_closed():
        loop.close()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for one seed, in memory where there is one."""
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    root = Path(tempfile.mkdtemp(prefix="night-", dir=where))
    try:
        yield root
    finally:
        for left in (root, root.with_name(f"{root.name}-backup")):
            shutil.rmtree(left, ignore_errors=True)
        root.with_name(f"{root.name}-plan.json").unlink(missing_ok=True)


def play(seed: int, *, tell: Callable[[str], None] | None = None, is_year: bool = False) -> Report:
    """Play the seed in a folder of its own."""
    with folder() as root, purse.in_a_zone() if is_year else contextlib.nullcontext():
        report = Night(seed, root, tell=tell, is_year=is_year).play()
    gc.collect(0)
    return report
