"""What a fleet shares, in memory: its records, the state under claims, and the desk of its gate.

For the simulation of several workers in one loop. It keeps the same promises as Postgres
(`tests/contract/test_fleet.py`), without a server and in virtual time.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from memory_state import MemoryState, known_of

from batch.attempt import Account, Attempt
from batch.errors import ClaimLostError
from batch.library.allowances import allowances, standings
from batch.manifest.limits import Limits
from batch.output.fleet import (
    CLAIM,
    DEAD_AFTER_S,
    Assignment,
    Claim,
    JobState,
    OpenRun,
    Outcome,
    Progress,
    Pulse,
    Work,
)
from batch.output.row import is_superseded
from batch.output.state import AddRow, Change, Put, Withdraw
from batch.run.account import Traffic
from batch.run.admission import Deny, Seen, Wait, judge
from batch.run.context import RunContext
from batch.run.doorkeeper import Admitted, Answer, FleetGate, Learn, Request
from batch.run.gate import IsTooLate
from batch.run.stop import LEAVES, MILD, StopReason
from batch.waker import Waker

LEFT = float("-inf")
LATE = (StopReason.DEADLINE.value, "the deadline is reached")


@dataclass
class Job:
    """A job of a run, and how far it is."""

    work: Work
    state: JobState = JobState.TODO
    looks: int = 1


@dataclass
class Held:
    """The latest claim of a job."""

    token: int
    run_id: str
    worker: str
    takeovers: int = 0


@dataclass
class Handed:
    """A run that was handed over."""

    run: OpenRun
    jobs: dict[str, Job]
    names: dict[str, str] = field(default_factory=dict)
    limits: Limits | None = None
    reserved_usd: float = 0.0
    exit_code: int | None = None
    summary: str | None = None


@dataclass
class AccountRow:
    """What is known of an account."""

    traffic: Traffic | None = None
    refused: str | None = None


@dataclass
class Mark:
    """The columns of an attempt that only a fleet has."""

    run_id: str | None = None
    sent_in: str | None = None
    slot_until: float | None = None
    reserved_usd: float | None = None


class MemoryFleet:
    """`Fleet` in memory. *now* returns the time of the "database"."""

    def __init__(self, now: Callable[[], float], *, dead_after_s: float = DEAD_AFTER_S) -> None:
        self.now = now
        self.fences = True  # taken down by tests of the tests
        self.lost_claims = 0
        self.runs: dict[str, Handed] = {}
        self.claims: dict[tuple[str, str], Held] = {}
        self.beats: dict[str, float] = {}
        self.keys: dict[str, tuple[Account, ...]] = {}  # of the workers
        self.accounts: dict[Account, AccountRow] = {}
        self.states: dict[str, FencedState] = {}
        self.news: list[Waker] = []
        self._dead_after_s = dead_after_s
        self._tokens = itertools.count(1)
        self._under_way: set[str] = set()  # burials

    def state(self, library: str) -> FencedState:
        """Return the state of a library."""
        return self.states.setdefault(library, FencedState(self, library))

    def gate(
        self, library: str, run_id: str, context: RunContext, is_too_late: IsTooLate
    ) -> FleetGate:
        """Return the gate of a run for one worker."""
        news = Waker()
        self.news.append(news)
        return FleetGate(context, MemoryDesk(self, library, run_id), news, is_too_late)

    def check(self, claim: Claim | None) -> None:
        """Raise ClaimLostError unless a claim is the newest."""
        if claim is None or not self.fences:
            return
        held = self.claims.get((claim.library, claim.job_id))
        if held is None or held.token != claim.token:
            self.lost_claims += 1
            raise ClaimLostError(f"another worker has claimed job {claim.job_id!r}")

    # -- runs

    async def hand_over(
        self, run: OpenRun, jobs: Sequence[Work], enqueue: Callable[[Any], None]
    ) -> None:
        if run.run_id in self.runs:
            return
        enqueue(self)
        self.runs[run.run_id] = Handed(run, {work.job_id: Job(work) for work in jobs})
        self.accounts.setdefault(run.account, AccountRow()).refused = None

    async def run_of(self, run_id: str) -> OpenRun | None:
        handed = self._open(run_id)
        return None if handed is None else handed.run

    async def stop(self, run_id: str, reason: str, sentence: str) -> None:
        handed = self._open(run_id)
        if handed is None:
            return
        stopped = [handed]
        if reason == StopReason.ACCOUNT:
            account = handed.run.account
            self.accounts[account].refused = sentence
            stopped = [item for item in self._all_open() if item.run.account == account]
        for item in stopped:
            if _severity(item.run.stop) < _severity((reason, sentence)):
                item.run = replace(item.run, stop=(reason, sentence))

    async def look_again(self, run_id: str, enqueue: Callable[[Any, Sequence[Work]], None]) -> int:
        handed = self._open(run_id)
        if handed is None:
            return 0
        jobs = handed.jobs.values()
        parked = [job for job in jobs if job.state is JobState.PARKED and job.looks == 1]
        if self._has_to_do(handed):
            return sum(job.state is JobState.TODO for job in jobs)
        if parked:
            parked.sort(key=lambda job: job.work.order)
            enqueue(self, [job.work for job in parked])
        for job in parked:
            job.state, job.looks = JobState.TODO, 2
        return len(parked)

    async def outcome(self, run_id: str) -> Outcome:
        handed = self.runs[run_id]
        state = self.state(handed.run.library)
        jobs = sorted(handed.jobs.values(), key=lambda job: job.work.order)
        to_leave = {JobState.TODO, JobState.LEFT}
        return Outcome(
            left=tuple(job.work for job in jobs if job.state in to_leave),
            bugs=tuple(job.work.job_id for job in jobs if job.state is JobState.BUG),
            rows=tuple(row for row in state.rows if f'"run_id":"{run_id}"' in row),
            sent=frozenset(name for name, mark in state.marks.items() if mark.sent_in == run_id),
        )

    async def end(self, run_id: str, exit_code: int, summary: str) -> bool:
        handed = self._open(run_id)
        if handed is None:
            return False
        handed.exit_code, handed.summary = exit_code, summary
        return True

    async def progress(self, run_id: str) -> Progress | None:
        handed = self.runs.get(run_id)
        if handed is None:
            return None
        self._end_late([handed])
        alive = {worker for worker in self.beats if not self._is_dead(worker)}
        able = sum(handed.run.account in self.keys.get(worker, ()) for worker in alive)
        if _severity(handed.run.stop) >= _severity(LATE):
            held = [
                self.claims.get((handed.run.library, job_id))
                for job_id, job in handed.jobs.items()
                if job.state is JobState.TODO
            ]
            is_held = any(one and one.run_id == run_id and one.worker in alive for one in held)
        else:
            holding = {JobState.TODO, JobState.PARKED}
            holding |= {JobState.LEFT} if handed.run.stop is None else set()
            is_held = any(job.state in holding for job in handed.jobs.values())
        return Progress(able, handed.run.stop, handed.exit_code, is_held=is_held)

    async def is_taken_up(self, run_id: str) -> bool:
        return any(held.run_id == run_id for held in self.claims.values())

    # -- jobs

    async def claim(self, run_id: str, job_id: str, worker: str) -> Assignment | None:
        handed = self._open(run_id)
        job = None if handed is None else handed.jobs.get(job_id)
        if handed is None or job is None or job.state is not JobState.TODO:
            return None
        library = handed.run.library
        before = self.claims.get((library, job_id))
        takeovers = before.takeovers if before is not None and before.run_id == run_id else 0
        held = Held(next(self._tokens), run_id, worker, takeovers)
        self.claims[library, job_id] = held
        self.beats.setdefault(worker, self.now())
        state = self.state(library)
        mine = [item for item in state.attempts.values() if item.job_id == job_id]
        marks = {item.external_task_id: state.mark(item.external_task_id) for item in mine}
        has_begun = any(mark.run_id == run_id for mark in marks.values())
        known = known_of(mine) if has_begun or job.looks > 1 else ()
        return Assignment(
            Claim(library, run_id, job_id, held.token),
            job.work,
            has_begun=has_begun,
            known=tuple(known),
            sent=frozenset(name for name, mark in marks.items() if mark.sent_in == run_id),
            is_second_look=job.looks > 1,
            takeovers=takeovers,
        )

    async def settle(self, claim: Claim, state: JobState) -> None:
        self.check(claim)
        self.runs[claim.run_id].jobs[claim.job_id].state = state

    async def name(self, claim: Claim, external_task_id: str) -> bool:
        self.check(claim)
        names = self.runs[claim.run_id].names
        return names.setdefault(external_task_id, claim.job_id) == claim.job_id

    async def workers(self) -> frozenset[str]:
        return frozenset(self.beats)

    async def astray(self, worker: str) -> list[tuple[str, str]]:
        found = []
        for handed in self._all_open():
            for job in sorted(handed.jobs.values(), key=lambda job: job.work.order):
                held = self.claims.get((handed.run.library, job.work.job_id))
                if job.state is not JobState.TODO or held is None:
                    continue
                is_nobodys = held.worker == worker or held.worker not in self.beats
                if held.run_id == handed.run.run_id and is_nobodys:
                    found.append((handed.run.run_id, job.work.job_id))
        return found

    # -- workers

    async def beat(self, worker: str, accounts: Sequence[Account]) -> Pulse:
        now = self.beats[worker] = self.now()
        mine = [handed for handed in self._all_open() if handed.run.account in accounts]
        self.keys[worker] = tuple(accounts)
        self._end_late(mine)
        return Pulse(
            now,
            {item.run.run_id: item.run.stop for item in mine if item.run.stop is not None},
            tuple(sorted(one for one in self.beats if one != worker and self._is_dead(one))),
            tuple(sorted(item.run.run_id for item in mine if not self._has_to_do(item))),
        )

    async def bury(self, worker: str, resume: Callable[[], None]) -> bool:
        if worker not in self.beats or not self._is_dead(worker) or worker in self._under_way:
            return False
        self._under_way.add(worker)
        try:
            if self.beats[worker] != LEFT:
                for held in self.claims.values():
                    held.takeovers += held.worker == worker
            resume()
            del self.beats[worker]
        finally:
            self._under_way.discard(worker)
        return True

    async def leave(self, worker: str) -> None:
        if worker in self.beats:
            self.beats[worker] = LEFT

    def _end_late(self, runs: Sequence[Handed]) -> None:
        for handed in runs:
            deadline_at = handed.run.deadline_at
            is_late = deadline_at is not None and deadline_at <= self.now()
            is_milder = _severity(handed.run.stop) < _severity(LATE)
            if is_late and is_milder and handed.exit_code is None:
                handed.run = replace(handed.run, stop=LATE)

    def _is_dead(self, worker: str) -> bool:
        return self.beats[worker] < self.now() - self._dead_after_s

    def _open(self, run_id: str) -> Handed | None:
        handed = self.runs.get(run_id)
        return None if handed is None or handed.exit_code is not None else handed

    def _all_open(self) -> list[Handed]:
        return [handed for handed in self.runs.values() if handed.exit_code is None]

    @staticmethod
    def _has_to_do(handed: Handed) -> bool:
        return any(job.state is JobState.TODO for job in handed.jobs.values())


class FencedState(MemoryState):
    """The state of one library; every commit is made under a claim, or by the process that plans."""

    def __init__(self, fleet: MemoryFleet, library: str) -> None:
        super().__init__()
        self._fleet = fleet
        self._library = library
        self.marks: dict[str, Mark] = {}

    def mark(self, external_task_id: str) -> Mark:
        """Return what the fleet keeps of an attempt."""
        return self.marks.setdefault(external_task_id, Mark())

    def write(self, changes: tuple[Change, ...]) -> None:
        claim = CLAIM.get()
        self._fleet.check(claim)
        # A row that is there already was committed by the same call, whose answer was lost.
        known = set(self.rows)
        changes = tuple(c for c in changes if not isinstance(c, AddRow) or c.line not in known)
        super().write(changes)
        for change in changes:
            match change:
                case AddRow(line) if claim is not None and not is_superseded(json.loads(line)):
                    job = self._fleet.runs[claim.run_id].jobs.get(claim.job_id)
                    if job is not None and job.state is JobState.TODO:
                        job.state = JobState.DONE
                case Put(attempt):
                    self._follow(attempt, None if claim is None else claim.run_id)
                case Withdraw(external_task_id):
                    mark = self.marks.pop(external_task_id, Mark())
                    self._give_back(mark)
                    self._tell(mark)
                case _:
                    pass

    def _follow(self, attempt: Attempt, run_id: str | None) -> None:
        mark = self.mark(attempt.external_task_id)
        mark.run_id = run_id or mark.run_id
        if not attempt.phase.keeps_slot:
            self._tell(mark)
            mark.slot_until = None
        if attempt.created_nothing:
            self._give_back(mark)
            mark.sent_in = mark.reserved_usd = None

    def _give_back(self, mark: Mark) -> None:
        if mark.sent_in is not None and mark.reserved_usd is not None:
            self._fleet.runs[mark.sent_in].reserved_usd -= mark.reserved_usd

    def _tell(self, mark: Mark) -> None:
        if mark.slot_until is not None:
            for news in self._fleet.news:
                news.set()


class MemoryDesk:
    """`Desk` in memory."""

    def __init__(self, fleet: MemoryFleet, library: str, run_id: str) -> None:
        self._fleet = fleet
        self._state = fleet.state(library)
        self._run_id = run_id
        self.clock = fleet.now

    async def ask(self, requests: Sequence[Request], limits: Limits) -> list[Answer]:
        for request in requests:
            self._fleet.check(request.claim)
        answers: list[Answer] = []
        for request in requests:
            answers.append(self._ask(request, limits))
            if not isinstance(answers[-1], Admitted):
                break
        return answers

    def _ask(self, request: Request, limits: Limits) -> Answer:
        fleet, attempt = self._fleet, request.attempt
        handed = fleet.runs[self._run_id]
        handed.limits = limits
        seen = self._seen(handed, attempt, limits)
        verdict = judge(seen, attempt.cost_usd, limits)
        row = fleet.accounts[handed.run.account]
        if isinstance(verdict, Deny):
            return verdict
        row.traffic = verdict.traffic
        if isinstance(verdict, Wait):
            return verdict
        intended = attempt.intended(seen.now + verdict.in_s)
        token = CLAIM.set(request.claim)
        try:
            self._state.write((Put(intended),))
        finally:
            CLAIM.reset(token)
        mark = self._state.mark(attempt.external_task_id)
        if not seen.is_covered:
            mark.sent_in, mark.reserved_usd = self._run_id, verdict.usd
            handed.reserved_usd += verdict.usd
        mark.slot_until = seen.now + request.slot_s
        next_s = verdict.traffic.due_at - seen.now
        return Admitted(intended, verdict.traffic.refusals, next_s, verdict.in_s)

    async def occupy(self, request: Request) -> None:
        self._fleet.check(request.claim)
        attempt = self._state.attempts.get(request.attempt.external_task_id)
        if attempt is not None and attempt.phase.holds_slot:
            mark = self._state.mark(attempt.external_task_id)
            mark.slot_until = self.clock() + request.slot_s

    async def free(self, request: Request) -> None:
        self._fleet.check(request.claim)
        self._state.mark(request.attempt.external_task_id).slot_until = None
        for news in self._fleet.news:
            news.set()

    async def learn(self, external_task_id: str, rule: Learn) -> None:
        handed = self._fleet.runs[self._run_id]
        row = self._fleet.accounts[handed.run.account]
        now = self.clock()
        others = len(self._others(handed.run.account, external_task_id))
        row.traffic = rule(row.traffic or Traffic(self._ceiling(handed)), now, others)

    def _seen(self, handed: Handed, attempt: Attempt, limits: Limits) -> Seen:
        fleet, name = self._fleet, attempt.external_task_id
        now, account, run = self.clock(), handed.run.account, handed.run
        ceiling = self._ceiling(handed)
        others = self._others(account, name)
        row, mark = fleet.accounts[account], self._state.marks.get(name, Mark())
        rates = [item.limits.submit_rate.per_second for item in self._mates(handed)]
        spent = [item for item in self._state.paid(0.0) if item.external_task_id != name]
        return Seen(
            now=now,
            traffic=row.traffic or Traffic(ceiling),
            ceiling=ceiling,
            interval_s=1.0 / max(rates),
            in_use=len(others),
            of_run=sum(mark.sent_in == run.run_id for mark in others),
            is_held=mark.slot_until is not None and mark.slot_until > now,
            is_covered=mark.sent_in == run.run_id and mark.reserved_usd is not None,
            reserved_usd=handed.reserved_usd,
            standings=tuple(
                standings(
                    allowances(limits), lambda since: [p for p in spent if p.at >= since], now
                )
            ),
            deadline_at=run.deadline_at,
            stop=run.stop,
            refused=row.refused,
            is_open=handed.exit_code is None,
        )

    def _mates(self, handed: Handed) -> list[Any]:
        """Return the open runs of the account that have told their limits."""
        return [
            item
            for item in self._fleet.runs.values()
            if item.limits is not None
            and item.exit_code is None
            and item.run.account == handed.run.account
        ] or [handed]

    def _ceiling(self, handed: Handed) -> int:
        return max(item.limits.max_in_flight for item in self._mates(handed))

    def _others(self, account: Account, external_task_id: str) -> list[Mark]:
        now, found = self.clock(), []
        for state in self._fleet.states.values():
            for name, mark in state.marks.items():
                attempt = state.attempts.get(name)
                is_mine = name == external_task_id or attempt is None
                if is_mine or attempt.account != account or mark.slot_until is None:
                    continue
                if mark.slot_until > now:
                    found.append(mark)
        return found


def _severity(stop: tuple[str, str] | None) -> int:
    """As `batch.run.stop` ranks reasons."""
    if stop is None:
        return 0
    reason = StopReason(stop[0])
    return 1 if reason in MILD else 3 if reason in LEAVES else 2
