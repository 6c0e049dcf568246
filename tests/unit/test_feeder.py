"""The runner: what is done already is not paid for again, and what is open counts as open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batch.output.changes import Put, Row
from fake_provider import video
from scripted import (
    ACCOUNT,
    NOT_FOUND,
    SAID,
    URL,
    Body,
    Stages,
    found,
    generated,
    landed,
    opened,
    play,
)
from virtual_time import EPOCH

from batch.errors import ExitCode, StateError
from batch.events import Adopted, Event
from batch.job import (
    Attempt,
    Failed,
    Failure,
    FailureKind,
    Intended,
    Job,
    Landed,
    Lost,
    TimedOut,
    Unconfirmed,
    canonical_request,
    fingerprint,
)
from batch.plan import Action, Plan, Policy, make_plan
from batch.provider.answers import Created, Found, Refused, Task, TaskStatus
from batch.run.stop import StopReason

VIDEO = video("8", 5000)
DONE = Found(Task("8", TaskStatus.SUCCEEDED, "https://cdn/8"))


def job(job_id: str = "a", prompt: str = "a cat") -> Job:
    request = canonical_request({"prompt": prompt, "duration": "5", "aspect_ratio": "1:1"})
    return Job(job_id, request, fingerprint(request, None))


def tried(state: Any, of: Job, name: str, number: int = 1) -> Attempt:
    return Attempt(
        name, of.id, of.fingerprint, number, of.request, state, base_url=URL, account=ACCOUNT
    )


def planned(stages: Stages, jobs: list[Job], **policy: Any) -> Plan:
    return make_plan(
        jobs,
        stages.store.known(),
        policy=Policy(**policy),
        is_present=stages.folder.is_present,
        price=lambda _job: (0.21, True),
    )


def put_video(root: Path, file: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(VIDEO)


@pytest.mark.parametrize("former", [opened("7"), TimedOut("7", EPOCH, EPOCH), generated("7")])
def test_a_finished_job_is_not_paid_for_again_while_a_former_version_is_collected(
    tmp_path: Path, former: Any
) -> None:
    """The former version's task comes home, and that is all there is to do."""

    async def story(stages: Stages) -> tuple[int, type]:
        before, now = job(prompt="a dog"), job()
        put_video(tmp_path, "videos/a.mp4")
        made = landed("8", "videos/a.mp4", len(VIDEO))
        await stages.journal.commit(Put(tried(former, before, "kb-0")))
        await stages.journal.commit(Put(tried(made, now, "kb-1", 2)))
        stages.api.queries = [Found(Task("7", TaskStatus.SUCCEEDED, "https://cdn/7"))]
        stages.api.fetches = [Body([video("7", 5000)], total=len(video("7", 5000)))]
        plan = planned(stages, [now])
        assert set(plan.counts) == {Action.UNCHANGED}
        await stages.runner().run(plan)
        return stages.api.count("submit"), type(stages.store.attempt("kb-0").state)

    assert play(tmp_path, story) == (0, Landed)
    assert (tmp_path / "videos/a.mp4").read_bytes() == VIDEO


def test_what_is_open_already_takes_its_slots_first(tmp_path: Path) -> None:
    """A new task waits for a slot, though the manifest names its job first."""

    async def story(stages: Stages) -> list[tuple[float, str, str]]:
        old, new = job("old"), job("new")
        await stages.journal.commit(Put(tried(opened("7"), old, "kb-0")))
        pending = Found(Task("7", TaskStatus.PROCESSING))
        stages.api.queries = [pending, pending, Found(Task("7", TaskStatus.FAILED, message="x"))]
        stages.api.submits = [Refused(SAID)]
        await stages.runner(max_attempts=1).run(planned(stages, [new, old]))
        return stages.api.calls

    calls = play(tmp_path, story, max_in_flight=1, proved_at=EPOCH)
    kinds = [kind for _, kind, _ in calls]
    assert kinds == ["query", "query", "query", "submit"]


def test_requests_sent_again_keep_to_the_slots(tmp_path: Path) -> None:
    """Ten lost answers that prove to be absent do not go out all at once."""

    async def story(stages: Stages) -> int:
        jobs = [job(f"j{number}") for number in range(10)]
        for number, lost in enumerate(jobs):
            await stages.journal.commit(Put(tried(Lost(1.0, SAID), lost, f"kb-{number}")))
        stages.api.submits = [Created(Task(f"8{n}", TaskStatus.SUBMITTED)) for n in range(10)]
        stages.api.queries = [NOT_FOUND]
        most = 0

        async def count() -> None:
            nonlocal most
            states = [type(found.state).__name__ for found in stages.store.attempts()]
            most = max(most, states.count("Open"))

        stages.api.on_submit = count
        await stages.runner().run(planned(stages, jobs))
        return most

    most = play(tmp_path, story, max_in_flight=2, proved_at=EPOCH, task_timeout_s=60.0)
    assert most < 2, "with the one that goes out now there are never more than two"


def test_a_failed_task_is_tried_anew_and_no_more_than_allowed(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[int, ExitCode, Any]:
        stages.api.submits = [Created(Task(f"8{n}", TaskStatus.SUBMITTED)) for n in range(9)]
        stages.api.queries = [
            Found(Task(f"8{n}", TaskStatus.FAILED, message="generation error")) for n in range(3)
        ]
        plan = planned(stages, [job()])
        runner = stages.runner(max_attempts=3)
        await runner.run(plan)
        (*_, last) = stages.store.attempts()
        return stages.api.count("submit"), runner.exit_code(plan), last

    sent, exit_code, last = play(tmp_path, story, proved_at=EPOCH)
    assert sent == 3
    assert exit_code is ExitCode.JOBS_FAILED
    assert (last.number, last.external_task_id) == (3, "kb-102"), "every attempt has its own id"


def test_moderation_is_never_tried_anew(tmp_path: Path) -> None:
    async def story(stages: Stages) -> int:
        stages.api.submits = [Created(Task("8", TaskStatus.SUBMITTED))]
        message = "Failure to pass the risk control system"
        stages.api.queries = [Found(Task("8", TaskStatus.FAILED, message=message))]
        await stages.runner(max_attempts=3).run(planned(stages, [job()]))
        return stages.api.count("submit")

    assert play(tmp_path, story, proved_at=EPOCH) == 1


def test_the_budget_stops_before_it_is_exceeded(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[int, ExitCode, list[str]]:
        stages.api.submits = [Created(Task(str(n), TaskStatus.SUBMITTED)) for n in range(9)]
        stages.api.queries = [NOT_FOUND]
        plan = planned(stages, [job(f"j{number}") for number in range(5)])
        runner = stages.runner(budget_usd=0.5)
        await runner.run(plan)
        return stages.api.count("submit"), runner.exit_code(plan), sorted(runner.tally.left)

    sent, exit_code, left = play(tmp_path, story, task_timeout_s=60.0, proved_at=EPOCH)
    assert (sent, exit_code, left) == (2, ExitCode.LIMIT, ["j2", "j3", "j4"])


def test_what_is_unconfirmed_is_looked_for_again_at_the_end_of_the_run(tmp_path: Path) -> None:
    """Look-up may prove itself in the course of a run; then what was doubtful can be told."""

    async def story(stages: Stages) -> tuple[int, list[str]]:
        doubtful, other = job("doubtful"), job("other")
        await stages.journal.commit(Put(tried(Unconfirmed(1.0, SAID), doubtful, "kb-0")))
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
        await stages.runner(max_attempts=1).run(planned(stages, [doubtful, other]))
        states = [type(found.state).__name__ for found in stages.store.attempts()]
        return stages.api.count("submit"), states

    sent, states = play(tmp_path, story, settle_time_s=5.0)
    assert sent == 2, "the other, and then the doubtful one, which is surely absent"
    assert states == ["Failed", "Failed"]


def test_a_bug_in_one_job_does_not_lose_the_others(tmp_path: Path) -> None:
    """It ends the feeding; what is paid for is collected, and the exit code says what happened."""

    async def story(stages: Stages) -> tuple[ExitCode, str | None]:
        old = job("old")
        await stages.journal.commit(Put(tried(generated("8"), old, "kb-0")))
        stages.api.submits = [None, RuntimeError]
        stages.api.queries, stages.api.fetches = [DONE], [Body([VIDEO], total=len(VIDEO))]

        async def fail() -> None:
            raise RuntimeError("a bug")

        stages.api.on_submit = fail
        plan = planned(stages, [job("new"), old])
        runner = stages.runner()
        await runner.run(plan)
        assert "RuntimeError: a bug" in runner.tally.bugs[0]
        return runner.exit_code(plan), stages.state_of("kb-0")

    assert play(tmp_path, story) == (ExitCode.BUG, "Landed")


def test_a_former_video_is_on_record_where_it_was_moved(tmp_path: Path) -> None:
    async def story(stages: Stages) -> list[str]:
        before, now = job(prompt="a dog"), job()
        put_video(tmp_path, "videos/a.mp4")
        made = landed("7", "videos/a.mp4", len(VIDEO))
        await stages.journal.commit(Put(tried(made, before, "kb-0")))
        await stages.journal.commit(Put(tried(generated("9"), now, "kb-1", 2)))
        fresh = video("9", 5000)
        stages.api.queries = [Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/9"))]
        stages.api.fetches = [Body([fresh], total=len(fresh))]
        await stages.runner().run(planned(stages, [now]))
        return [found.state.file for found in stages.store.attempts()]  # type: ignore[union-attr]

    former, current = play(tmp_path, story)
    assert current == "videos/a.mp4"
    assert (tmp_path / former).read_bytes() == VIDEO
    assert (tmp_path / current).read_bytes() == video("9", 5000)


def test_a_landing_that_died_before_its_commit_does_not_pass_for_the_former_video(
    tmp_path: Path,
) -> None:
    """The new video is in place, the state does not know it yet, and the person goes back.

    Both have the same size. What is at the final name is not what the manifest asks for now.
    """

    async def story(stages: Stages) -> None:
        before, now = job(prompt="a dog"), job()
        fresh = video("9", len(VIDEO))
        assert len(fresh) == len(VIDEO)
        put_video(tmp_path, "videos/a.mp4")
        made = landed("8", "videos/a.mp4", len(VIDEO))
        await stages.journal.commit(Put(tried(made, before, "kb-0")))
        await stages.journal.commit(Put(tried(generated("9"), now, "kb-1", 2)))
        stages.api.queries = [Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/9"))]
        stages.api.fetches = [Body([fresh], total=len(fresh))]
        plan, runner = planned(stages, [now]), stages.runner()
        write = stages.journal._attempt

        def dies_with_the_row(entries: list[Any]) -> Exception | None:
            has_row = any(isinstance(item, Row) for entry in entries for item in entry.changes)
            return StateError("the end") if has_row else write(entries)

        stages.journal._attempt = dies_with_the_row  # type: ignore[method-assign]
        with pytest.raises(StateError):
            await runner.run(plan)
        assert (tmp_path / "videos/a.mp4").read_bytes() == fresh, "it had landed"

    async def next_night(stages: Stages) -> None:
        before = job(prompt="a dog")
        stages.api.queries = [
            Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/9")),
            Found(Task("8", TaskStatus.SUCCEEDED, "https://cdn/8")),
        ]
        fresh = video("9", len(VIDEO))
        stages.api.fetches = [Body([fresh], total=len(fresh)), Body([VIDEO], total=len(VIDEO))]
        await stages.runner().run(planned(stages, [before]))

    play(tmp_path, story)
    play(tmp_path, next_night)
    assert (tmp_path / "videos/a.mp4").read_bytes() == VIDEO


REFUSED_NOW = Failed(Failure(FailureKind.INVALID_REQUEST, "bad value", "1200", 400), EPOCH)


def test_a_resting_job_is_left_alone(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[int, ExitCode]:
        await stages.journal.commit(Put(tried(REFUSED_NOW, job(), "kb-0")))
        plan, runner = planned(stages, [job()]), stages.runner()
        await runner.run(plan)
        return len(stages.api.calls), runner.exit_code(plan)

    assert play(tmp_path, story) == (0, ExitCode.JOBS_FAILED)


def test_attempts_are_numbered_without_gaps(tmp_path: Path) -> None:
    """Also when the one that failed was begun by an earlier run."""

    async def story(stages: Stages) -> list[int]:
        await stages.journal.commit(Put(tried(opened("8"), job(), "kb-0")))
        stages.api.queries = [
            Found(Task("8", TaskStatus.FAILED, message="generation error")),
            Found(Task("9", TaskStatus.FAILED, message="generation error")),
        ]
        stages.api.submits = [Created(Task("9", TaskStatus.SUBMITTED))]
        await stages.runner(max_attempts=2).run(planned(stages, [job()]))
        return [found.number for found in stages.store.attempts()]

    assert play(tmp_path, story, proved_at=EPOCH) == [1, 2]


@pytest.mark.parametrize("state", [Lost(EPOCH, SAID), Intended(EPOCH), Unconfirmed(EPOCH, SAID)])
def test_a_task_found_for_an_answer_lost_in_an_earlier_run_is_told_of(
    tmp_path: Path, state: Any
) -> None:
    """Whoever watches the run sees where the paid task came from."""

    async def story(stages: Stages) -> list[Event]:
        lost = job()
        await stages.journal.commit(Put(tried(state, lost, "kb-0")))
        stages.api.queries = [found(), DONE]
        stages.api.fetches = [Body([VIDEO], total=len(VIDEO))]
        await stages.runner().run(planned(stages, [lost]))
        return [event for event in stages.events if isinstance(event, Adopted)]

    assert play(tmp_path, story) == [Adopted("a", "8", "kb-0")]


def test_a_job_with_two_open_tasks_holds_two_slots(tmp_path: Path) -> None:
    """Its former version is collected first; both count at the provider."""

    async def story(stages: Stages) -> int:
        before, now, new = job(prompt="a dog"), job(), job("new")
        await stages.journal.commit(Put(tried(opened("7"), before, "kb-0")))
        await stages.journal.commit(Put(tried(opened("8"), now, "kb-1", 2)))
        stages.api.queries = [Found(Task("7", TaskStatus.PROCESSING))]
        stages.loop.call_later(60.0, stages.stop.ask, StopReason.DEADLINE, "it is time")
        await stages.runner().run(planned(stages, [now, new]))
        return stages.api.count("submit")

    assert play(tmp_path, story, max_in_flight=2, proved_at=EPOCH) == 0


def test_a_plan_says_what_a_resubmission_may_cost(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[float, float]:
        wanted = job()
        await stages.journal.commit(Put(tried(Unconfirmed(EPOCH, SAID), wanted, "kb-0")))
        asked = planned(stages, [wanted], resubmit_unconfirmed=True)
        assert asked.counts == {Action.RESUBMIT: 1}
        return asked.cost_usd, planned(stages, [wanted]).cost_usd

    assert play(tmp_path, story) == (0.21, 0.0)


def test_a_bug_while_a_former_version_is_collected_keeps_no_slot(tmp_path: Path) -> None:
    """A slot that is never given back would have the run wait for it for ever."""

    async def story(stages: Stages) -> Any:
        before, now = job(prompt="a dog"), job()
        await stages.journal.commit(Put(tried(opened("7"), before, "kb-0")))
        await stages.journal.commit(Put(tried(opened("8"), now, "kb-1", 2)))
        stages.api.queries = []  # asking is an IndexError
        runner = stages.runner()
        await runner.run(planned(stages, [now]))
        return runner.tally.bugs, stages.slots.in_use

    bugs, in_use = play(tmp_path, story, proved_at=EPOCH)
    assert bugs
    assert in_use == 0
