"""The promises of `Fleet`, and of a `State` under claims: in Postgres and in memory alike."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from memory_fleet import MemoryDesk, MemoryFleet
from scripted import ACCOUNT, SAID, attempt, landed

from batch.attempt import Account, Doubt, Unconfirmed
from batch.errors import ClaimLostError
from batch.manifest.limits import Limits, Rate
from batch.output.fleet import CLAIM, Claim, Fleet, JobState, OpenRun, Progress, Work
from batch.output.row import SUPERSEDED
from batch.output.state import AddRow, Put, State
from batch.run.admission import Wait
from batch.run.doorkeeper import Admitted, Desk, Request
from batch.run.stop import LEAVES, MILD, StopReason

LIBRARY = "library"
WORKS = [Work(0, "a", '{"is": "ünïcode"}'), Work(1, "b", "{}"), Work(2, "c", "{}")]
IMPLEMENTATIONS = ("postgres", "memory")
JobsOf = Callable[[str], dict[JobState, int]]


@dataclass(frozen=True)
class Subject:
    """An implementation.

    *age* makes the last beat of a worker so much older, *jobs_of* counts the jobs of a run by state, and
    *desk* is of run r1.
    """

    fleet: Fleet
    state: State
    age: Callable[[str, float], None]
    desk: Desk
    jobs_of: JobsOf


@pytest.fixture(params=IMPLEMENTATIONS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "postgres":
        from fleets import opened_fleet  # noqa: PLC0415 - needs psycopg

        from batch.run.gate_postgres import PostgresDesk, Whose  # noqa: PLC0415 - needs psycopg

        async with opened_fleet(request.getfixturevalue("emptied_url")) as made:
            desk = PostgresDesk(made.connections, Whose(LIBRARY, "r1", ACCOUNT), time.time)
            yield Subject(made.fleet, made.state(LIBRARY), made.age, desk, made.jobs_of)
        return
    memory = MemoryFleet(asyncio.get_running_loop().time)

    def age(worker: str, seconds: float) -> None:
        memory.beats[worker] -= seconds

    def jobs_of(run_id: str) -> dict[JobState, int]:
        return dict(Counter(job.state for job in memory.runs[run_id].jobs.values()))

    desk = MemoryDesk(memory, LIBRARY, "r1")
    yield Subject(memory, memory.state(LIBRARY), age, desk, jobs_of)


@pytest.fixture
def fleet(subject: Subject) -> Fleet:
    return subject.fleet


@pytest.fixture
def jobs_of(subject: Subject) -> JobsOf:
    return subject.jobs_of


def run_of(run_id: str = "r1", **values: Any) -> OpenRun:
    usual = {"library": LIBRARY, "root": "/videos", "account": ACCOUNT, "terms": '{"t": 1}'}
    return OpenRun(run_id, **{**usual, "began_at": 1.5, **values})


async def hand_over(
    fleet: Fleet, run: OpenRun | None = None, works: Sequence[Work] = WORKS
) -> list[Any]:
    """Hand a run over; return the transactions in which its jobs were enqueued."""
    transactions: list[Any] = []
    await fleet.hand_over(run or run_of(), works, transactions.append)
    return transactions


async def claimed(fleet: Fleet, job_id: str = "a", run_id: str = "r1", by: str = "w1") -> Claim:
    """Claim a job that is to be done."""
    found = await fleet.claim(run_id, job_id, by)
    assert found is not None
    return found.claim


@contextmanager
def under(claim: Claim) -> Any:
    """Commit under a claim."""
    token = CLAIM.set(claim)
    try:
        yield
    finally:
        CLAIM.reset(token)


# -- runs


async def test_run_reads_back_as_handed_over(fleet: Fleet) -> None:
    run = run_of(deadline_at=9e9, budget_usd=2.5)
    assert len(await hand_over(fleet, run)) == 1
    assert await fleet.run_of("r1") == run
    assert await fleet.run_of("r2") is None


async def test_repeated_handover_enqueues_once(fleet: Fleet, jobs_of: JobsOf) -> None:
    await hand_over(fleet)
    assert await hand_over(fleet) == []
    assert jobs_of("r1") == {JobState.TODO: 3}


async def test_failed_handover_leaves_no_run(fleet: Fleet) -> None:
    def fail(_transaction: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fleet.hand_over(run_of(), WORKS, fail)
    assert await fleet.run_of("r1") is None
    assert len(await hand_over(fleet)) == 1


async def test_ended_run_has_no_work_left(fleet: Fleet) -> None:
    await hand_over(fleet)
    assert await fleet.end("r1", 3, "{}")
    assert not await fleet.end("r1", 0, "{}")
    assert await fleet.run_of("r1") is None
    assert await fleet.claim("r1", "a", "w1") is None
    assert await fleet.progress("r1") == Progress(0, exit_code=3)


async def test_progress_of_unknown_run_is_none(fleet: Fleet) -> None:
    assert await fleet.progress("r9") is None


async def test_workers_without_its_key_do_not_count(fleet: Fleet) -> None:
    await hand_over(fleet)
    await fleet.beat("w1", [Account(ACCOUNT.base_url, "another"), ACCOUNT])
    await fleet.beat("w2", [Account(ACCOUNT.base_url, "another")])
    await fleet.beat("w3", [])
    assert await fleet.progress("r1") == Progress(1)
    await fleet.beat("w1", [])
    assert await fleet.progress("r1") == Progress(0)


async def test_late_run_is_stopped_without_a_worker(fleet: Fleet) -> None:
    await hand_over(fleet, run_of(deadline_at=1.0))
    late = (StopReason.DEADLINE.value, "the deadline is reached")
    assert await fleet.progress("r1") == Progress(0, stop=late, is_held=False)


async def test_left_run_is_held_by_who_has_a_job_and_lives(subject: Subject) -> None:
    fleet = subject.fleet
    await hand_over(fleet)
    await fleet.beat("w1", [ACCOUNT])
    claim = await claimed(fleet, by="w1")
    stop = (StopReason.INTERRUPTED.value, "SIGINT")
    await fleet.stop("r1", *stop)
    assert await fleet.progress("r1") == Progress(1, stop=stop)
    subject.age("w1", 3600)
    assert await fleet.progress("r1") == Progress(0, stop=stop, is_held=False)
    await fleet.beat("w1", [ACCOUNT])
    await fleet.settle(claim, JobState.LEFT)
    assert await fleet.progress("r1") == Progress(1, stop=stop, is_held=False)


@pytest.mark.parametrize(
    ("states", "is_held"),
    [
        ((JobState.DONE, JobState.BUG, None), True),
        ((JobState.DONE, JobState.BUG, JobState.PARKED), True),
        ((JobState.DONE, JobState.BUG, JobState.LEFT), True),  # too late: a worker says so
        ((JobState.DONE, JobState.BUG, JobState.DONE), False),
    ],
)
async def test_run_is_held_while_something_is_to_be_done(
    fleet: Fleet, states: Sequence[JobState | None], is_held: bool
) -> None:
    await hand_over(fleet)
    for job_id, state in zip("abc", states, strict=True):
        if state is not None:
            await fleet.settle(await claimed(fleet, job_id), state)
    assert await fleet.progress("r1") == Progress(0, is_held=is_held)
    await fleet.stop("r1", StopReason.BUDGET, "used up")
    progress = await fleet.progress("r1")
    assert progress is not None
    assert progress.is_held is (is_held and JobState.LEFT not in states)


# -- stops


async def test_worse_reason_replaces_a_milder_one(fleet: Fleet) -> None:
    """As one process ranks them: what refuses job by job, what ends submitting, what leaves."""
    kinds = (StopReason.BUDGET, StopReason.UNREACHABLE, StopReason.STATE)
    pairs = list(itertools.product(kinds, StopReason))
    for number, (first, second) in enumerate(pairs):
        own = Account(ACCOUNT.base_url, f"{number}")
        await hand_over(fleet, run_of(f"r{number}", library=f"{number}", account=own), [])
        await fleet.stop(f"r{number}", first, "first")
        await fleet.stop(f"r{number}", second, "second")
    for number, (first, second) in enumerate(pairs):
        is_worse = _rank(second) > _rank(first)
        expected = (second, "second") if is_worse else (first, "first")
        assert await fleet.progress(f"r{number}") == Progress(0, stop=expected, is_held=False)


def _rank(reason: StopReason) -> int:
    return (reason not in MILD) + (reason in LEAVES)


async def test_stop_is_told_at_the_beat(fleet: Fleet) -> None:
    await hand_over(fleet)
    for reason in ("budget", "interrupted", "account"):
        await fleet.stop("r1", reason, f"for {reason}")
    assert (await fleet.beat("w1", [ACCOUNT])).stops == {"r1": ("interrupted", "for interrupted")}
    assert (await fleet.beat("w2", [Account("https://other.example", "00")])).stops == {}
    run = await fleet.run_of("r1")
    assert run is not None
    assert run.stop == ("interrupted", "for interrupted")


async def test_refused_account_stops_all_its_runs(fleet: Fleet) -> None:
    other = Account(ACCOUNT.base_url, "other")
    await hand_over(fleet)
    await hand_over(fleet, run_of("r2", library="library 2"))
    await hand_over(fleet, run_of("r3", library="library 3", account=other))
    await fleet.stop("r1", "account", "refused")
    stops = (await fleet.beat("w1", [ACCOUNT, other])).stops
    assert stops == {"r1": ("account", "refused"), "r2": ("account", "refused")}


async def test_deadline_stops_at_the_beat(fleet: Fleet) -> None:
    await hand_over(fleet, run_of(deadline_at=1.0))
    stops = (await fleet.beat("w1", [ACCOUNT])).stops
    assert stops == {"r1": ("deadline", "the deadline is reached")}


# -- claims


async def test_claim_gives_the_job_as_handed_over(fleet: Fleet) -> None:
    await hand_over(fleet)
    found = await fleet.claim("r1", "a", "w1")
    assert found is not None
    assert found.work == WORKS[0]
    assert found == replace(found, has_begun=False, sent=frozenset(), known=(), takeovers=0)
    assert not found.is_second_look


async def test_token_grows_over_all_runs(fleet: Fleet) -> None:
    await hand_over(fleet)
    first = await claimed(fleet)
    second = await claimed(fleet, by="w2")
    await fleet.end("r1", 0, "{}")
    await hand_over(fleet, run_of("r2"))
    third = await claimed(fleet, run_id="r2")
    assert first.token < second.token < third.token


async def test_concurrent_claims_have_one_winner(fleet: Fleet, jobs_of: JobsOf) -> None:
    await hand_over(fleet)
    claims = await asyncio.gather(*(claimed(fleet, by=f"w{n}") for n in range(8)))
    assert len({claim.token for claim in claims}) == 8
    newest = max(claims, key=lambda claim: claim.token)
    await fleet.settle(newest, JobState.DONE)
    for claim in claims:
        if claim is not newest:
            with pytest.raises(ClaimLostError):
                await fleet.settle(claim, JobState.LEFT)
    assert jobs_of("r1") == {JobState.DONE: 1, JobState.TODO: 2}


async def test_lost_claim_commits_nothing(subject: Subject) -> None:
    await hand_over(subject.fleet)
    lost, newest = await claimed(subject.fleet), await claimed(subject.fleet, by="w2")
    with under(lost), pytest.raises(ClaimLostError):
        await subject.state.commit(Put(attempt()), AddRow('{"run_id":"r1","job_id":"a"}'))
    assert await subject.state.known() == {}
    with under(newest):
        await subject.state.commit(Put(attempt()))
    assert (await subject.state.attempt("kb-1")).job_id == "a"


async def test_lost_claim_changes_no_slot(subject: Subject) -> None:
    """It is the successor's by now: one more than the cap would be open."""
    desk, limits = subject.desk, Limits(max_in_flight=1, submit_rate=Rate(1_000_000, 1.0))
    await hand_over(subject.fleet)
    lost, newest = await claimed(subject.fleet), await claimed(subject.fleet, by="w2")
    theirs, mine = Request(attempt(), newest, 60.0), Request(attempt(), lost, 60.0)
    other = Request(attempt(name="kb-2", job_id="b"), await claimed(subject.fleet, "b"), 60.0)
    assert isinstance((await desk.ask([theirs], limits))[0], Admitted)
    with pytest.raises(ClaimLostError):
        await desk.free(mine)
    assert isinstance((await desk.ask([other], limits))[0], Wait)
    await desk.free(theirs)
    with pytest.raises(ClaimLostError):
        await desk.occupy(mine)
    assert isinstance((await desk.ask([other], limits))[0], Admitted)


async def test_claim_of_last_night_is_lost_tonight(subject: Subject) -> None:
    await hand_over(subject.fleet)
    lost = await claimed(subject.fleet)
    await subject.fleet.end("r1", 0, "{}")
    await hand_over(subject.fleet, run_of("r2"))
    await claimed(subject.fleet, run_id="r2")
    with under(lost), pytest.raises(ClaimLostError):
        await subject.state.commit(Put(attempt()))


async def test_lost_claim_takes_no_name(fleet: Fleet) -> None:
    await hand_over(fleet)
    lost = await claimed(fleet)
    await claimed(fleet, by="w2")
    with pytest.raises(ClaimLostError):
        await fleet.name(lost, "kb-1")


async def test_lost_claim_fails_no_neighbour(subject: Subject) -> None:
    """Although what is asked at the same time may be done together."""
    await hand_over(subject.fleet)
    claims = [await claimed(subject.fleet, job_id) for job_id in "abc"]
    await claimed(subject.fleet, "b", by="w2")

    async def commit(claim: Claim) -> bool:
        with under(claim):
            await subject.state.commit(Put(attempt(name=claim.job_id, job_id=claim.job_id)))
        return True

    async def name(claim: Claim) -> bool:
        return await subject.fleet.name(claim, claim.job_id)

    for call in (commit, name):
        found = await asyncio.gather(*map(call, claims), return_exceptions=True)
        assert [type(one) for one in found] == [bool, ClaimLostError, bool]
    assert sorted(await subject.state.known()) == ["a", "c"]


async def test_name_belongs_to_one_job_of_a_run(fleet: Fleet) -> None:
    await hand_over(fleet)
    first, second = await claimed(fleet, "a"), await claimed(fleet, "b")
    assert await fleet.name(first, "kb-1")
    assert await fleet.name(first, "kb-1"), "asked again, since the answer was lost"
    assert not await fleet.name(second, "kb-1")
    assert await fleet.name(await claimed(fleet, "a", by="w2"), "kb-1"), "taken over"


@pytest.mark.parametrize("state", [JobState.DONE, JobState.LEFT, JobState.PARKED, JobState.BUG])
async def test_settled_job_is_not_claimed_again(
    fleet: Fleet, jobs_of: JobsOf, state: JobState
) -> None:
    await hand_over(fleet)
    claim = await claimed(fleet)
    await fleet.settle(claim, state)
    await fleet.settle(claim, state)
    assert await fleet.claim("r1", "a", "w2") is None
    assert jobs_of("r1")[state] == 1


async def test_row_of_a_job_settles_it(subject: Subject) -> None:
    """Else a worker that died in between would have it made again, on a request that stands once."""
    fleet = subject.fleet
    await hand_over(fleet)
    claim = await claimed(fleet)
    line = '{"run_id":"r1","job_id":"a","warnings":%s}'
    with under(claim):
        await subject.state.commit(AddRow(line % json.dumps([SUPERSEDED])))
        assert await fleet.claim("r1", "a", "w2") is not None
    with under(await claimed(fleet)):
        await subject.state.commit(AddRow(line % "[]"))
    assert await fleet.claim("r1", "a", "w2") is None


async def test_job_of_another_run_is_not_claimed(fleet: Fleet) -> None:
    await hand_over(fleet)
    assert await fleet.claim("r2", "a", "w1") is None
    assert await fleet.claim("r1", "z", "w1") is None


async def test_changed_job_has_begun(subject: Subject) -> None:
    """What is known of it comes along; what was changed before the run says nothing."""
    earlier = replace(attempt(landed("8", "videos/a.mp4", 9)), number=1)
    await hand_over(subject.fleet)
    await subject.state.commit(Put(earlier))
    assert not (await _assignment(subject.fleet)).has_begun
    with under(await claimed(subject.fleet)):
        await subject.state.commit(Put(replace(attempt(name="kb-2"), number=2)))
    again = await _assignment(subject.fleet, "w2")
    assert again.has_begun
    assert [item.external_task_id for item in again.known] == ["kb-1", "kb-2"]


async def _assignment(fleet: Fleet, worker: str = "w1") -> Any:
    found = await fleet.claim("r1", "a", worker)
    assert found is not None
    return found


# -- workers


async def test_silent_worker_is_dead(subject: Subject) -> None:
    fleet = subject.fleet
    for worker in ("w1", "w2", "w3"):
        assert (await fleet.beat(worker, [])).dead == ()
    subject.age("w2", 29.0)
    assert (await fleet.beat("w1", [])).dead == ()
    subject.age("w2", 2.0)
    subject.age("w3", 40.0)
    assert (await fleet.beat("w1", [])).dead == ("w2", "w3")
    assert (await fleet.beat("w2", [])).dead == ("w3",), "it has woken up"
    assert (await fleet.beat("w1", [])).dead == ("w3",)


async def test_dead_worker_is_buried_once(subject: Subject) -> None:
    fleet, resumed = subject.fleet, []
    await fleet.beat("w1", [])
    subject.age("w1", 31.0)
    buried = await asyncio.gather(
        *(fleet.bury("w1", lambda: resumed.append("w1")) for _ in range(5))
    )
    assert (sum(buried), resumed) == (1, ["w1"])
    assert (await fleet.beat("w2", [])).dead == ()


async def test_living_worker_is_not_buried(fleet: Fleet) -> None:
    await fleet.beat("w1", [])
    assert not await fleet.bury("w1", lambda: pytest.fail("it lives"))
    assert not await fleet.bury("w9", lambda: pytest.fail("it is unknown"))


async def test_failed_burial_is_done_by_another(subject: Subject) -> None:
    await subject.fleet.beat("w1", [])
    subject.age("w1", 31.0)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await subject.fleet.bury("w1", fail)
    assert (await subject.fleet.beat("w2", [])).dead == ("w1",)
    assert await subject.fleet.bury("w1", lambda: None)


async def test_worker_that_leaves_is_taken_over_at_once(fleet: Fleet) -> None:
    """And its jobs are not blamed for it."""
    await hand_over(fleet)
    await fleet.beat("w1", [])
    await claimed(fleet)
    await fleet.leave("w1")
    assert (await fleet.beat("w2", [])).dead == ("w1",)
    assert await fleet.bury("w1", lambda: None)
    assert (await _assignment(fleet, "w2")).takeovers == 0


async def test_deaths_over_a_job_are_counted(subject: Subject) -> None:
    """In this run: what happened last night is no fault of the job."""
    fleet = subject.fleet
    await hand_over(fleet)
    for expected in (0, 1, 2):
        assert (await _assignment(fleet)).takeovers == expected
        await fleet.beat("w1", [])
        subject.age("w1", 31.0)
        await fleet.bury("w1", lambda: None)
    await fleet.end("r1", 0, "{}")
    await hand_over(fleet, run_of("r2"))
    found = await fleet.claim("r2", "a", "w2")
    assert found is not None
    assert found.takeovers == 0


async def test_worker_that_claims_is_alive(subject: Subject) -> None:
    """It may have been buried while it slept, and die again before its next beat."""
    fleet = subject.fleet
    await hand_over(fleet)
    await claimed(fleet)
    assert (await fleet.beat("w2", [])).dead == ()
    subject.age("w1", 31.0)
    assert (await fleet.beat("w2", [])).dead == ("w1",)


async def test_run_is_taken_up_by_the_first_claim(subject: Subject) -> None:
    fleet = subject.fleet
    await hand_over(fleet)
    assert not await fleet.is_taken_up("r1")
    claim = await claimed(fleet)
    assert await fleet.is_taken_up("r1")
    assert not await fleet.is_taken_up("r9")
    await fleet.settle(claim, JobState.DONE)
    assert await fleet.is_taken_up("r1")


async def test_jobs_without_a_living_worker_are_astray(subject: Subject) -> None:
    """What was never claimed waits in the queue of the engine."""
    fleet = subject.fleet
    await hand_over(fleet)
    for job_id, worker in (("c", "w1"), ("a", "w2"), ("b", "w3")):
        await fleet.beat(worker, [])
        await claimed(fleet, job_id, by=worker)
    assert await fleet.astray("w9") == []
    assert await fleet.astray("w2") == [("r1", "a")], "what it has claimed itself"
    for worker in ("w1", "w2"):
        subject.age(worker, 31.0)
        await fleet.bury(worker, lambda: None)
    assert await fleet.workers() == {"w3"}
    assert await fleet.astray("w9") == [("r1", "a"), ("r1", "c")]


# -- the end of a run


async def test_run_is_settled_when_nothing_is_to_do(fleet: Fleet) -> None:
    await hand_over(fleet)
    states = {"a": JobState.DONE, "b": JobState.PARKED, "c": JobState.LEFT}
    for job_id, state in states.items():
        assert (await fleet.beat("w1", [ACCOUNT])).settled == ()
        await fleet.settle(await claimed(fleet, job_id), state)
    assert (await fleet.beat("w1", [ACCOUNT])).settled == ("r1",)
    assert (await fleet.beat("w1", [])).settled == ()
    await fleet.end("r1", 0, "{}")
    assert (await fleet.beat("w1", [ACCOUNT])).settled == ()


async def test_run_without_jobs_is_settled_at_once(fleet: Fleet) -> None:
    await hand_over(fleet, works=[])
    assert (await fleet.beat("w1", [ACCOUNT])).settled == ("r1",)


async def test_parked_jobs_get_one_second_look(subject: Subject) -> None:
    fleet, queued = subject.fleet, []

    def enqueue(_transaction: Any, works: Sequence[Work]) -> None:
        queued.extend(works)

    await hand_over(fleet)
    await fleet.settle(await claimed(fleet, "c"), JobState.PARKED)
    claim = await claimed(fleet, "a")
    with under(claim):
        await subject.state.commit(Put(attempt(Unconfirmed(1.0, Doubt(SAID)))))
    await fleet.settle(claim, JobState.PARKED)
    assert await fleet.look_again("r1", enqueue) == 1, "one is still to be done"
    assert queued == []
    await fleet.settle(await claimed(fleet, "b"), JobState.DONE)
    counts = await asyncio.gather(*(fleet.look_again("r1", enqueue) for _ in range(3)))
    assert (counts, queued) == ([2, 2, 2], [WORKS[0], WORKS[2]])
    again = await _assignment(fleet)
    assert again.is_second_look
    assert [item.external_task_id for item in again.known] == ["kb-1"]
    for job_id in ("a", "c"):
        await fleet.settle(await claimed(fleet, job_id), JobState.PARKED)
    assert await fleet.look_again("r1", enqueue) == 0


async def test_outcome_is_what_the_run_has_come_to(subject: Subject) -> None:
    fleet = subject.fleet
    await hand_over(fleet)
    made = {"job_id": "a", "status": "succeeded", "warnings": [SUPERSEDED]}
    lines = [
        json.dumps({"run_id": run, **row}, separators=(",", ":"))
        for run, row in (("r0", made), ("r1", made), ("r1", {"job_id": "a", "status": "failed"}))
    ]
    await subject.state.commit(AddRow(lines[0]))
    claim = await claimed(fleet, "a")
    with under(claim):
        await subject.state.commit(Put(attempt()), AddRow(lines[1]), AddRow(lines[2]))
    await fleet.settle(claim, JobState.DONE)
    await fleet.settle(await claimed(fleet, "b"), JobState.BUG)
    await fleet.settle(await claimed(fleet, "c"), JobState.LEFT)
    found = await fleet.outcome("r1")
    assert (found.left, found.bugs, found.rows[1:]) == ((WORKS[2],), ("b",), (lines[2],))
    (short,) = map(json.loads, found.rows[:1])
    assert short.items() >= made.items()


async def test_one_of_many_workers_ends_a_run(fleet: Fleet) -> None:
    await hand_over(fleet, works=[])
    ended = await asyncio.gather(*(fleet.end("r1", code, "{}") for code in (0, 0, 0, 0)))
    assert sum(ended) == 1


async def test_jobs_of_ended_runs_are_forgotten(fleet: Fleet, jobs_of: JobsOf) -> None:
    """But not before the next one begins: until then a person may ask how it went."""
    await hand_over(fleet)
    await fleet.end("r1", 0, "{}")
    assert jobs_of("r1") == {JobState.TODO: 3}
    await hand_over(fleet, run_of("r2"))
    assert jobs_of("r2") == {JobState.TODO: 3}
