"""The life of a job as a state machine: job, store and plan against a provider, step by step.

Each rule is one transition of one attempt: decision, provider's answer and commit. The process may
die before or after the commit. Hypothesis chooses the order and shrinks a story that breaks a rule
of money. The look-up is the package's own, in virtual time; `tests/simulation` plays whole runs.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from virtual_time import EPOCH, VirtualClock, VirtualLoop

from batch.attempt import (
    Account,
    Attempt,
    Failed,
    Generated,
    Intended,
    Landed,
    Lost,
    Open,
    PaidTask,
    TimedOut,
    Unconfirmed,
)
from batch.callbacks.hints import Hint
from batch.job import Failure, FailureKind, Job, Video, canonical_request, fingerprint
from batch.manifest.limits import Limits
from batch.output.results import ResultsFile
from batch.output.row import make_row, to_line
from batch.output.sqlite import Database
from batch.output.state import AddRow, Change, Proof, Put, Withdraw
from batch.plan import PAYING, Decision, Policy, make_plan
from batch.provider.answers import Found, NotFound, QueryAnswer, Task, TaskStatus
from batch.run.context import RunContext
from batch.run.lookup import LookUp
from batch.run.proof import Past
from batch.run.stop import Stop

ACCOUNT = Account("https://model.example", "0a1b2c3d")
MAX_ATTEMPTS = 3
JOBS = ("a", "b")
LOST_ANSWER = Failure(FailureKind.NETWORK, "the connection was reset")
TOLD_FAILED = Failure(FailureKind.GENERATION, "generation error")
REFUSED = Failure(FailureKind.MODERATION, "policy")
AGAIN = Failure(FailureKind.NETWORK, "asked again")
fates = st.sampled_from(
    ["created"] * 3 + ["fails", "fails", "lost before", "lost after", "refused", "too fast"]
)
rarely = st.sampled_from([False, False, False, True])
ends = st.sampled_from(["lives", "lives", "lives", "dies before", "dies after"])


@dataclass
class Paid:
    """A task at the provider."""

    task_id: str
    external_task_id: str
    request: str
    status: TaskStatus = TaskStatus.PROCESSING


class _Index:
    """The provider's look-up, as `LookUp` asks it."""

    def __init__(self, tasks: list[Paid], *, works: bool) -> None:
        self._tasks, self._works = tasks, works

    async def query(self, identifier: str) -> QueryAnswer:
        for task in self._tasks:
            if self._works and identifier == task.external_task_id:
                return Found(Task(task.task_id, task.status))
        return NotFound(Failure(FailureKind.PROVIDER, "task not exist", "1203", 404))


class _State:
    """The state as `LookUp` uses it; it commits at once."""

    def __init__(self, machine: LifeOfAJob) -> None:
        self._machine = machine

    async def commit(self, *changes: Change) -> None:
        self._machine.store.write(changes)

    async def owner_of(self, task_id: str) -> str | None:
        return self._machine.store.owner_of(task_id)

    async def proved_at(self, account: Account) -> float | None:
        return self._machine.store.proved_at(account)


class LifeOfAJob(RuleBasedStateMachine):
    """One output folder, one provider, and processes one after another."""

    def __init__(self) -> None:
        super().__init__()
        where = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="life-", dir=where))
        self.tasks: list[Paid] = []
        self.versions = dict.fromkeys(JOBS, 1)
        self.files: dict[str, str] = {}  # final name → task id of its content
        self.index_works = True
        self.ids = self.ticks = 0
        self._start()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    # -- a process begins and ends

    def _start(self) -> None:
        self.store = Database.open(self.root / "state.db")
        self.store._db.execute("PRAGMA synchronous=OFF")
        self.results = ResultsFile(self.root / "results.jsonl")
        self.results.repair(self.store)
        self.mine: dict[str, Attempt] = {}  # what this process holds in memory
        self.may_go_out: set[str] = set()  # intents of this process
        self.doubted: set[str] = set()  # looked up by this process; once is enough

    @rule(
        what=st.sampled_from(["crash", "edit", "tear", "delete"]),
        job_id=st.sampled_from(JOBS),
        number=st.integers(1, 400),
    )
    def meanwhile(self, what: str, job_id: str, number: int) -> None:
        """End the process; before the next one starts, the folder or manifest may change.

        An edit changes a prompt, perhaps back. A tear leaves a half-written line in the results. A
        video may be deleted.
        """
        self.store.close()
        results = self.root / "results.jsonl"
        if what == "edit":
            self.versions[job_id] = 1 + number % 2
        elif what == "tear" and results.exists():
            data = results.read_bytes()
            results.write_bytes(data[: max(0, len(data) - number)])
        elif what == "delete":
            self.files.pop(f"videos/{job_id}.mp4", None)
        self._start()

    def _die(self) -> None:
        self.store.close()
        self._start()

    def _commit(self, attempt: Attempt, end: str, *more: Change) -> bool:
        """Commit the new state; return False if the process died meanwhile."""
        if end == "dies before":
            self._die()
            return False
        self.store.write([Put(attempt), *more])
        rows = [change.line for change in more if isinstance(change, AddRow)]
        if end == "dies after":
            self._die()
            return False
        self.results.append(rows)
        self.mine[attempt.external_task_id] = attempt
        return True

    # -- steps

    def _job(self, job_id: str) -> Job:
        request = canonical_request({"prompt": f"{job_id} {self.versions[job_id]}"})
        return Job(job_id, request, fingerprint(request, None))

    def _decision(self, job_id: str) -> Decision | None:
        plan = make_plan(
            [self._job(job_id)],
            self.store.known(),
            policy=Policy(max_attempts=MAX_ATTEMPTS),
            is_present=lambda item: item.file in self.files,
            price=lambda _job: (0.1, True),
        )
        return next((d for d in plan.decisions if d.job_id == job_id), None)

    def _next(self, job_id: str) -> Attempt | Decision | None:
        """Return the attempt to resume, former versions first, or the job to pay for."""
        decision = self._decision(job_id)
        if decision is None:
            return None
        for external_task_id in (*decision.former, decision.attempt):
            if external_task_id is not None:
                stored = self.store.attempt(external_task_id)
                return self.mine.setdefault(external_task_id, stored)
        return decision if decision.action in PAYING else None

    # A single rule for all steps: Hypothesis switches off half of many rules in each example, and
    # no story would reach its end.
    @rule(job_id=st.sampled_from(JOBS), fate=fates, is_slow=rarely, end=ends)
    def step(self, job_id: str, fate: str, is_slow: bool, end: str) -> None:
        """Advance a job by one step; *fate* is the provider's part."""
        attempt = self._next(job_id)
        match attempt:
            case None:
                return
            case Decision():
                self._intend(attempt, end)
                return
        name = attempt.external_task_id
        match attempt.state:
            case Intended() if name in self.may_go_out:
                self._send(attempt, fate, end)
            case Intended() | Unconfirmed():
                if name not in self.doubted:
                    self._doubt(attempt, end)
            case Lost():
                self._look_up(attempt, end)
            case Open() | TimedOut() if is_slow:
                self._time_out(attempt, end)
            case Open() | TimedOut():
                self._poll(attempt, end, fails=fate == "fails")
            case Generated() | Landed():
                self._land(attempt, end)

    def _intend(self, decision: Decision, end: str) -> None:
        """Commit the intent of a paying decision."""
        self.ids += 1
        job = self._job(decision.job_id)
        name, number = f"kb-{self.ids}", decision.number
        intended = Attempt(name, job.id, job.fingerprint, number, job.request, Intended(1.0))
        attempt = replace(intended, account=ACCOUNT)
        if self._commit(attempt, end):
            self.may_go_out.add(name)

    def _send(self, attempt: Attempt, fate: str, end: str) -> None:
        """Send the request of an intent of this process."""
        external_task_id = attempt.external_task_id
        self.may_go_out.discard(external_task_id)
        task_id = str(8_000_000 + len(self.tasks))
        if fate in {"created", "fails", "lost after"}:
            self.tasks.append(Paid(task_id, external_task_id, attempt.request))
        match fate:
            case "created" | "fails":
                self._commit(attempt.to(Open(PaidTask(task_id, 1.0))), end)
            case "lost before" | "lost after":
                self._commit(attempt.doubted(1.0, LOST_ANSWER), end)
            case "refused":
                self._conclude(attempt.to(Failed(REFUSED, 1.0)), end)
            case "too fast":
                self.store.write([Withdraw(external_task_id)])
                self.mine.pop(external_task_id)

    # -- look up

    @initialize(works=st.booleans())
    def the_provider_has_an_index_or_not(self, works: bool) -> None:
        """Switch look-up by external id on or off."""
        self.index_works = works

    def _doubt(self, attempt: Attempt, end: str) -> None:
        """Mark an earlier process's intent, or an unconfirmed attempt, as lost."""
        self.doubted.add(attempt.external_task_id)
        self._commit(attempt.doubted(1.0, AGAIN), end)

    def _look_up(self, attempt: Attempt, end: str) -> None:
        """Have the package's own look-up decide a lost attempt."""
        found = self._find(attempt)
        match found.state:
            case Open():
                self.mine[found.external_task_id] = found
            case Intended():  # proved absent: the same request under the same id
                if self._commit(found, end):
                    self.may_go_out.add(found.external_task_id)
            case Unconfirmed():
                self._conclude(found, end)

    def _find(self, attempt: Attempt) -> Attempt:
        loop = VirtualLoop()
        clock = VirtualClock(loop)
        context = RunContext(
            account=ACCOUNT,
            limits=Limits(settle_time_s=10.0, task_timeout_s=60.0),
            policy=Policy(),
            clock=clock,
            dice=random.Random(1),
            stop=Stop(),
            notify=lambda _event: None,
        )
        lookup = LookUp(
            context,
            api=_Index(self.tasks, works=self.index_works),  # type: ignore[arg-type]
            state=_State(self),  # type: ignore[arg-type]
            past=Past(proved_at=self.store.proved_at(ACCOUNT)),
        )
        try:
            return loop.run_until_complete(lookup.find(attempt, Hint()))
        finally:
            loop.close()

    # -- poll, land

    def _poll(self, attempt: Attempt, end: str, *, fails: bool) -> None:
        """Poll a decided task; with look-up it is also found by its external id."""
        if self.index_works:
            self.store.write([Proof(ACCOUNT, EPOCH)])
        state = attempt.state
        assert isinstance(state, Open | TimedOut)
        task = next(task for task in self.tasks if task.task_id == attempt.task_id)
        if task.status is TaskStatus.PROCESSING:
            task.status = TaskStatus.FAILED if fails else TaskStatus.SUCCEEDED
        if task.status is TaskStatus.FAILED:
            self._conclude(attempt.failed(2.0, TOLD_FAILED), end)
        else:
            self._commit(attempt.generated(2.0), end)

    def _time_out(self, attempt: Attempt, end: str) -> None:
        """Stop waiting for a task; that is no verdict."""
        self._conclude(attempt.to(TimedOut(attempt.paid_task, 3.0)), end)

    def _land(self, attempt: Attempt, end: str) -> None:
        """Land a video, also one that is missed; the file is written before the state."""
        state, job = attempt.state, self._job(attempt.job_id)
        assert isinstance(state, Generated | Landed)
        is_current = attempt.fingerprint == job.fingerprint
        file = job.video_path if is_current else f"former/{attempt.external_task_id}"
        moved = []
        for holder in self.store.holders_of(file):
            if holder.external_task_id != attempt.external_task_id:
                kept = f"former/{holder.external_task_id}"
                assert isinstance(holder.state, Landed)
                if file in self.files:
                    self.files[kept] = self.files[file]
                moved.append(Put(holder.to(replace(holder.state, file=kept))))
        # The former video's new path is recorded before the new video takes its place.
        self.store.write(moved)
        self.files[file] = state.task.task_id
        landed = Landed(state.task, 2.0, 3.0, file, 9, "00", Video(5.0, 16, 9))
        self._conclude(attempt.to(landed), end)

    def _conclude(self, attempt: Attempt, end: str) -> None:
        self.ticks += 1
        row = make_row(attempt, run_id=f"r{self.ticks}", tasks=1, now=1.0)
        self._commit(attempt, end, AddRow(to_line(row)))

    # -- invariants

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        by_request: dict[str, list[Paid]] = defaultdict(list)
        for task in self.tasks:
            by_request[task.request].append(task)
        for request, tasks in by_request.items():
            for earlier in tasks[:-1]:
                assert earlier.status is TaskStatus.FAILED, f"{request} was paid for twice"
            failed = [task for task in tasks if task.status is TaskStatus.FAILED]
            assert len(failed) <= MAX_ATTEMPTS
        externals = [task.external_task_id for task in self.tasks]
        assert len(externals) == len(set(externals)), "one external id was sent twice"

    @invariant()
    def no_task_is_forgotten(self) -> None:
        for task in self.tasks:
            attempt = self.store.attempt(task.external_task_id)
            is_doubtful = isinstance(attempt.state, Intended | Lost | Unconfirmed)
            assert is_doubtful or attempt.task_id == task.task_id

    @invariant()
    def a_job_has_at_most_one_open_attempt_of_a_version(self) -> None:
        for items in self.store.known().values():
            for wanted in {item.fingerprint for item in items}:
                of_version = [item for item in items if item.fingerprint == wanted]
                unfinished = [i for i in of_version if not i.phase.is_finished]
                assert len(unfinished) <= 1
                assert not unfinished or unfinished[0] is of_version[-1]

    @invariant()
    def no_row_is_without_its_file(self) -> None:
        for attempt in self.store.attempts():
            if isinstance(attempt.state, Landed) and attempt.state.file in self.files:
                assert self.files[attempt.state.file] == attempt.task_id

    @invariant()
    def the_results_are_what_the_state_says(self) -> None:
        path = self.root / "results.jsonl"
        written = path.read_text().splitlines() if path.exists() else []
        assert written == list(self.store.result_lines())
        for line in written:
            json.loads(line)

    @precondition(lambda self: self.tasks)
    @invariant()
    def the_plan_never_pays_beside_an_open_task(self) -> None:
        for job_id in JOBS:
            decision, request = self._decision(job_id), self._job(job_id).request
            if decision is not None and decision.action in PAYING:
                mine = [task for task in self.tasks if task.request == request]
                assert all(task.status is TaskStatus.FAILED for task in mine)


LifeOfAJob.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestLifeOfAJob = LifeOfAJob.TestCase
