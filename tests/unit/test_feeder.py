"""The feeder: what is done already is not paid for again, and what is open counts as open."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_provider import video
from sample_jobs import VIDEO, feed, job, planned, tried
from scripted import NOT_FOUND, SAID, Body, Stages, generated, landed, opened, play
from virtual_time import EPOCH

from batch.attempt import Attempt, Doubt, Failed, Lost, PaidTask, TimedOut, Unconfirmed
from batch.errors import ExitCode, StateError
from batch.events import BugFound, Stopping
from batch.job import Failure, FailureKind
from batch.output.state import AddRow, Change, Put
from batch.plan import Action, Decisions
from batch.provider.answers import Created, Found, Refused, Task, TaskStatus
from batch.run.stop import StopReason

DONE = Found(Task("8", TaskStatus.SUCCEEDED, "https://cdn/8"))


def put_video(root: Path, file: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(VIDEO)


@pytest.mark.parametrize(
    "former", [opened("7"), TimedOut(PaidTask("7", EPOCH), EPOCH), generated("7")]
)
def test_a_former_version_is_collected_without_payment(tmp_path: Path, former: Any) -> None:
    """The former version's task comes home, and that is all there is to do."""

    async def story(stages: Stages) -> tuple[int, str | None]:
        before, now = job(prompt="a dog"), job()
        put_video(tmp_path, "videos/a.mp4")
        made = landed("8", "videos/a.mp4", len(VIDEO))
        await stages.state.commit(Put(tried(former, before, "kb-0")))
        await stages.state.commit(Put(tried(made, now, "kb-1", 2)))
        stages.api.queries = [Found(Task("7", TaskStatus.SUCCEEDED, "https://cdn/7"))]
        stages.api.fetches = [Body([video("7", 5000)], total=len(video("7", 5000)))]
        plan = await planned(stages, [now])
        assert set(plan.counts) == {Action.UNCHANGED}
        await stages.feeder.feed(plan.decisions)
        return stages.api.count("submit"), stages.phase_of("kb-0")

    assert play(tmp_path, story) == (0, "Landed")
    assert (tmp_path / "videos/a.mp4").read_bytes() == VIDEO


def test_video_of_an_unlisted_job_keeps_one_name(tmp_path: Path) -> None:
    """It stood at its job's name, and a run died before it was recorded there."""

    async def story(stages: Stages) -> list[str]:
        put_video(tmp_path, "videos/a.mp4")
        await stages.state.commit(Put(tried(generated("8"), job(), "kb-1")))
        stages.api.queries = [Found(Task("8", TaskStatus.SUCCEEDED, "https://cdn/8"))]
        stages.api.fetches = [Body([VIDEO], total=len(VIDEO))]
        plan = await planned(stages, [])
        assert set(plan.counts) == {Action.ORPHANED}
        await stages.feeder.feed(plan.decisions)
        return [found.state.file for found in stages.state.attempts.values()]  # type: ignore[union-attr]

    kept = play(tmp_path, story)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.mp4")] == kept


def test_open_tasks_take_their_slots_first(tmp_path: Path) -> None:
    """A new task waits for a slot, though the manifest names its job first."""

    async def story(stages: Stages) -> list[tuple[float, str, str]]:
        old, new = job("old"), job("new")
        await stages.state.commit(Put(tried(opened("7"), old, "kb-0")))
        pending = Found(Task("7", TaskStatus.PROCESSING))
        stages.api.queries = [pending, pending, Found(Task("7", TaskStatus.FAILED, message="x"))]
        stages.api.submits = [Refused(SAID)]
        await feed(stages, new, old)
        return stages.api.calls

    calls = play(tmp_path, story, max_in_flight=1, max_attempts=1, proved_at=EPOCH)
    kinds = [kind for _, kind, _ in calls]
    assert kinds == ["query", "query", "query", "submit"]


def test_first_request_waits_for_no_other_job(tmp_path: Path) -> None:
    """Of two hundred jobs with a slot each, few are begun when the first one is sent."""

    async def story(stages: Stages) -> int:
        begun: list[int] = []

        async def count() -> None:
            begun.append(sum(task.get_name().startswith("job ") for task in asyncio.all_tasks()))

        stages.api.on_submit = count
        stages.api.submits = [Refused(SAID)] * 200
        await feed(stages, *(job(f"job-{number}", f"cat {number}") for number in range(200)))
        return begun[0]

    assert play(tmp_path, story, max_in_flight=200) < 20


def test_repeated_requests_keep_to_the_slots(tmp_path: Path) -> None:
    """Ten lost answers that prove to be absent do not go out all at once."""

    async def story(stages: Stages) -> int:
        jobs = [job(f"j{number}") for number in range(10)]
        for number, lost in enumerate(jobs):
            await stages.state.commit(Put(tried(Lost(1.0, Doubt(SAID)), lost, f"kb-{number}")))
        stages.api.submits = [Created(Task(f"8{n}", TaskStatus.SUBMITTED)) for n in range(10)]
        stages.api.queries = [NOT_FOUND]
        most = 0

        async def count() -> None:
            nonlocal most
            states = [found.phase.value for found in stages.state.attempts.values()]
            most = max(most, states.count("Open"))

        stages.api.on_submit = count
        await feed(stages, *jobs)
        return most

    most = play(tmp_path, story, max_in_flight=2, proved_at=EPOCH, task_timeout_s=60.0)
    assert most < 2, "with the one that goes out now there are never more than two"


def test_a_failed_task_is_retried_as_allowed(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[int, ExitCode, Any]:
        stages.api.submits = [Created(Task(f"8{n}", TaskStatus.SUBMITTED)) for n in range(9)]
        stages.api.queries = [
            Found(Task(f"8{n}", TaskStatus.FAILED, message="generation error")) for n in range(3)
        ]
        plan = await feed(stages, job())
        (*_, last) = stages.state.attempts.values()
        return stages.api.count("submit"), stages.counts.exit_code(plan, stages.stop), last

    sent, exit_code, last = play(tmp_path, story, proved_at=EPOCH)
    assert sent == 3
    assert exit_code is ExitCode.JOBS_FAILED
    assert (last.number, last.external_task_id) == (3, "kb-102"), "every attempt has its own id"


def test_a_moderated_task_is_never_retried(tmp_path: Path) -> None:
    async def story(stages: Stages) -> int:
        stages.api.submits = [Created(Task("8", TaskStatus.SUBMITTED))]
        message = "Failure to pass the risk control system"
        stages.api.queries = [Found(Task("8", TaskStatus.FAILED, message=message))]
        await feed(stages, job())
        return stages.api.count("submit")

    assert play(tmp_path, story, proved_at=EPOCH) == 1


@pytest.mark.parametrize(
    ("costs", "left"),
    [([0.21] * 5, ["j2", "j3", "j4"]), ([0.3, 0.9, 0.2], ["j1"])],
    ids=["equal", "a cheaper one behind a dear one"],
)
def test_the_budget_is_never_exceeded(tmp_path: Path, costs: list[float], left: list[str]) -> None:
    """What it does not cover is left, job by job."""

    async def story(stages: Stages) -> tuple[int, ExitCode, list[str], int]:
        stages.api.submits = [Created(Task(str(n), TaskStatus.SUBMITTED)) for n in range(9)]
        stages.api.queries = [NOT_FOUND]
        plan = await planned(stages, [job(f"j{number}") for number in range(len(costs))])
        priced = zip(plan.decisions, costs, strict=True)
        await stages.feeder.feed(Decisions(one._replace(cost_usd=cost) for one, cost in priced))
        told = sum(isinstance(event, Stopping) for event in stages.events)
        assert not stages.stop.feeding.is_set()
        exit_code = stages.counts.exit_code(plan, stages.stop)
        return stages.api.count("submit"), exit_code, sorted(stages.counts.left), told

    reached = play(tmp_path, story, task_timeout_s=60.0, proved_at=EPOCH, budget_usd=0.5)
    assert reached == (len(costs) - len(left), ExitCode.LIMIT, left, 1)


def test_an_unconfirmed_job_is_settled_at_the_end(tmp_path: Path) -> None:
    """Look-up may prove itself in the course of a run; then what was doubtful can be told."""

    async def story(stages: Stages) -> tuple[int, list[str]]:
        doubtful, other = job("doubtful"), job("other")
        await stages.state.commit(Put(tried(Unconfirmed(1.0, Doubt(SAID)), doubtful, "kb-0")))
        stages.api.submits = [
            Created(Task("8", TaskStatus.SUBMITTED)),
            Created(Task("9", TaskStatus.SUBMITTED)),
        ]

        async def query(identifier: str) -> Any:
            stages.api._note("query", identifier)
            if identifier in {"kb-100", "8"}:
                return Found(Task("8", TaskStatus.FAILED, message="policy, risk control"))
            if identifier == "9":
                return Found(Task("9", TaskStatus.FAILED, message="policy, risk control"))
            return NOT_FOUND

        stages.api.query = query  # type: ignore[method-assign]
        await feed(stages, doubtful, other)
        states = [found.phase.value for found in stages.state.attempts.values()]
        return stages.api.count("submit"), states

    sent, states = play(tmp_path, story, settle_time_s=5.0, max_attempts=1)
    assert sent == 2, "the other, and then the doubtful one, which is surely absent"
    assert states == ["Failed", "Failed"]


def test_a_bug_in_one_job_spares_the_others(tmp_path: Path) -> None:
    """It ends the feeding; what is paid for is collected, and the exit code says what happened."""

    async def story(stages: Stages) -> tuple[ExitCode, str | None]:
        old = job("old")
        await stages.state.commit(Put(tried(generated("8"), old, "kb-0")))
        stages.api.queries, stages.api.fetches = [DONE], [Body([VIDEO], total=len(VIDEO))]

        async def fail() -> None:
            raise RuntimeError("a bug")

        stages.api.on_submit = fail
        plan = await feed(stages, job("new"), old)
        assert "RuntimeError: a bug" in stages.counts.bugs[0]
        return stages.counts.exit_code(plan, stages.stop), stages.phase_of("kb-0")

    assert play(tmp_path, story) == (ExitCode.BUG, "Landed")


def test_a_former_videos_new_place_is_recorded(tmp_path: Path) -> None:
    async def story(stages: Stages) -> list[str]:
        before, now = job(prompt="a dog"), job()
        put_video(tmp_path, "videos/a.mp4")
        made = landed("7", "videos/a.mp4", len(VIDEO))
        await stages.state.commit(Put(tried(made, before, "kb-0")))
        await stages.state.commit(Put(tried(generated("9"), now, "kb-1", 2)))
        fresh = video("9", 5000)
        stages.api.queries = [Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/9"))]
        stages.api.fetches = [Body([fresh], total=len(fresh))]
        await feed(stages, now)
        return [found.state.file for found in stages.state.attempts.values()]  # type: ignore[union-attr]

    former, current = play(tmp_path, story)
    assert current == "videos/a.mp4"
    assert (tmp_path / former).read_bytes() == VIDEO
    assert (tmp_path / current).read_bytes() == video("9", 5000)


def test_an_uncommitted_landing_is_not_the_former_video(
    tmp_path: Path,
) -> None:
    """The new video is in place, the state does not know it yet, and the person goes back.

    Both have the same size. What is at the final name is not what the manifest asks for now.
    """
    known: dict[str, Attempt] = {}

    async def story(stages: Stages) -> None:
        before, now = job(prompt="a dog"), job()
        fresh = video("9", len(VIDEO))
        assert len(fresh) == len(VIDEO)
        put_video(tmp_path, "videos/a.mp4")
        made = landed("8", "videos/a.mp4", len(VIDEO))
        await stages.state.commit(Put(tried(made, before, "kb-0")))
        await stages.state.commit(Put(tried(generated("9"), now, "kb-1", 2)))
        stages.api.queries = [Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/9"))]
        stages.api.fetches = [Body([fresh], total=len(fresh))]
        commit = stages.state.commit

        async def dies_with_the_row(*changes: Change) -> None:
            if any(isinstance(change, AddRow) for change in changes):
                raise StateError("the end")
            await commit(*changes)

        stages.state.commit = dies_with_the_row  # type: ignore[method-assign]
        with pytest.raises(StateError):
            await feed(stages, now)
        assert (tmp_path / "videos/a.mp4").read_bytes() == fresh, "it had landed"
        known.update(stages.state.attempts)

    async def next_night(stages: Stages) -> None:
        stages.state.attempts.update(known)
        before = job(prompt="a dog")
        stages.api.queries = [
            Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/9")),
            Found(Task("8", TaskStatus.SUCCEEDED, "https://cdn/8")),
        ]
        fresh = video("9", len(VIDEO))
        stages.api.fetches = [Body([fresh], total=len(fresh)), Body([VIDEO], total=len(VIDEO))]
        await feed(stages, before)

    play(tmp_path, story)
    play(tmp_path, next_night)
    assert (tmp_path / "videos/a.mp4").read_bytes() == VIDEO


REFUSED_NOW = Failed(Failure(FailureKind.INVALID_REQUEST, "bad value", "1200", 400), EPOCH)


def test_a_resting_job_is_left_alone(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[int, ExitCode]:
        await stages.state.commit(Put(tried(REFUSED_NOW, job(), "kb-0")))
        plan = await feed(stages, job())
        return len(stages.api.calls), stages.counts.exit_code(plan, stages.stop)

    assert play(tmp_path, story) == (0, ExitCode.JOBS_FAILED)


def test_attempts_are_numbered_without_gaps(tmp_path: Path) -> None:
    """Also when the one that failed was begun by an earlier run."""

    async def story(stages: Stages) -> list[int]:
        await stages.state.commit(Put(tried(opened("8"), job(), "kb-0")))
        stages.api.queries = [
            Found(Task("8", TaskStatus.FAILED, message="generation error")),
            Found(Task("9", TaskStatus.FAILED, message="generation error")),
        ]
        stages.api.submits = [Created(Task("9", TaskStatus.SUBMITTED))]
        await feed(stages, job())
        return [found.number for found in stages.state.attempts.values()]

    assert play(tmp_path, story, proved_at=EPOCH, max_attempts=2) == [1, 2]


def test_a_job_with_two_tasks_holds_two_slots(tmp_path: Path) -> None:
    """Its former version is collected first; both count at the provider."""

    async def story(stages: Stages) -> int:
        before, now, new = job(prompt="a dog"), job(), job("new")
        await stages.state.commit(Put(tried(opened("7"), before, "kb-0")))
        await stages.state.commit(Put(tried(opened("8"), now, "kb-1", 2)))
        stages.api.queries = [Found(Task("7", TaskStatus.PROCESSING))]
        stages.loop.call_later(60.0, stages.stop.ask, StopReason.DEADLINE, "it is time")
        await feed(stages, now, new)
        return stages.api.count("submit")

    assert play(tmp_path, story, max_in_flight=2, proved_at=EPOCH) == 0


def test_a_bug_while_collecting_keeps_no_slot(tmp_path: Path) -> None:
    """A slot that is never given back would have the run wait for it for ever."""

    async def story(stages: Stages) -> Any:
        before, now = job(prompt="a dog"), job()
        await stages.state.commit(Put(tried(opened("7"), before, "kb-0")))
        await stages.state.commit(Put(tried(opened("8"), now, "kb-1", 2)))
        stages.api.queries = []  # asking is an IndexError
        await feed(stages, now)
        return stages.counts.bugs, stages.run.gate.slots.in_use

    bugs, in_use = play(tmp_path, story, proved_at=EPOCH)
    assert bugs
    assert in_use == 0


def test_id_of_a_renamed_jobs_attempt_is_not_used_again(tmp_path: Path) -> None:
    """The attempt was the first of a job of this name, and has gone along with that job's new one."""

    async def story(stages: Stages) -> dict[str, Attempt]:
        new_id = stages.run.new_id
        taken = new_id(job().fingerprint, 1)
        put_video(tmp_path, "videos/renamed.mp4")
        made = landed("7", "videos/renamed.mp4", len(VIDEO))
        await stages.state.commit(Put(tried(made, job("renamed"), taken)))
        stages.run = replace(stages.run, new_id=lambda *of: taken if of[1] == 1 else new_id(*of))
        stages.api.submits, stages.api.queries = [Created(DONE.task)], [DONE]
        stages.api.fetches = [Body([VIDEO], total=len(VIDEO))]
        await feed(stages, job("renamed"), job("a"))
        return stages.state.attempts

    attempts = play(tmp_path, story)
    assert sorted((a.job_id, a.number, a.task_id) for a in attempts.values()) == [
        ("a", 1, "8"),
        ("renamed", 1, "7"),
    ]


def test_no_more_memory_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    """It is the system's refusal and no bug of ours; nothing more is submitted."""

    async def story(stages: Stages) -> tuple[int, list[type]]:
        posts = 0

        async def refuses(_body: Any, **_how: Any) -> Any:
            nonlocal posts
            posts += 1
            raise MemoryError

        stages.api.submit = refuses  # type: ignore[method-assign]
        with pytest.raises(StateError, match="no more memory"):
            await feed(stages, *(job(f"job-{number}") for number in range(30)))
        told = [type(e) for e in stages.events if isinstance(e, BugFound | Stopping)]
        return posts, told

    posts, told = play(tmp_path, story)
    assert posts < 30
    assert told == [Stopping]
