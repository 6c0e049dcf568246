"""The state cannot be written just after a POST: every task id is kept, and none is paid twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from memory_state import MemoryState
from sample_jobs import feed, job
from scripted import ACCOUNT, NO_ANSWER, NOT_FOUND, Stages, attempt, opened, play

from batch import events
from batch.attempt import Account, Attempt, Doubt, Failed, Intended, Lost, Phase, Unconfirmed
from batch.errors import StateError
from batch.job import Failure, FailureKind
from batch.output.layout import Layout
from batch.output.rescue import Rescue
from batch.output.state import Change, Put
from batch.provider.answers import Created, Found, Task, TaskStatus
from batch.run.stop import StopReason

JOBS = [job(f"job-{number:02}", f"fox number {number}") for number in range(20)]


class Provider:
    """Creates a task for each POST, answers after a while, and fails tasks when asked for them."""

    def __init__(self, *, finds: bool) -> None:
        self.created: list[str] = []
        self._finds = finds

    async def submit(self, body: dict[str, Any], **_how: Any) -> Created:
        self.created.append(body["external_task_id"])
        await asyncio.sleep(2.0)
        return Created(Task(f"task-of-{body['external_task_id']}", TaskStatus.SUBMITTED))

    async def query(self, identifier: str) -> Any:
        name = identifier.removeprefix("task-of-")
        if name not in self.created or (identifier == name and not self._finds):
            return NOT_FOUND
        failed = TaskStatus.FAILED
        return Found(Task(f"task-of-{name}", failed, message="risk control", external_task_id=name))


class FailingState(MemoryState):
    """Takes so many commits and none after that."""

    left = 10**9

    def write(self, changes: tuple[Change, ...]) -> None:
        self.left -= 1
        self.fails = self.left < 0
        super().write(changes)


class ExhaustedState(FailingState):
    """Finds no memory after so many commits."""

    def write(self, changes: tuple[Change, ...]) -> None:
        if self.left <= 0:
            raise MemoryError
        super().write(changes)


def rescue_of(root: Path) -> Rescue:
    (root / ".kling-batch").mkdir(parents=True, exist_ok=True)
    return Rescue.of(Layout(root), root.parent / "night.yaml")


async def stages_over(stages: Stages, state: MemoryState, provider: Provider) -> Stages:
    """Return the stages of another run over the same folder and provider."""
    again = Stages(
        stages.videos.layout.root, stages.loop, stages.context.limits, stages.context.policy
    )
    again.state, again.rescue = state, rescue_of(stages.videos.layout.root)
    again.api.submit = provider.submit  # type: ignore[method-assign]
    again.api.query = provider.query  # type: ignore[method-assign]
    again.first_id = 1000 * (1 + len(state.commits))
    await again.wire()
    return again


@pytest.mark.parametrize("finds", [True, False])
def test_state_unwritable_at_any_commit_pays_once(tmp_path: Path, finds: bool) -> None:
    """Twenty jobs, twenty tasks over both runs, whether or not look-up by external id works."""

    async def story(stages: Stages, writes: int) -> bool:
        state, provider = FailingState(), Provider(finds=finds)
        state.left = writes
        first = await stages_over(stages, state, provider)
        failed = False
        try:
            await feed(first, *JOBS)
        except StateError:
            failed = True
        known = {one.task_id for one in state.attempts.values()}
        rescued = {e.task_id for e in first.events if isinstance(e, events.TaskRescued)}
        assert {f"task-of-{name}" for name in provider.created} <= known | rescued
        state.left, state.fails = 10**9, False
        second = await stages_over(stages, state, provider)
        await feed(second, *JOBS)
        assert len(provider.created) == len(set(provider.created)) == 20
        assert {one.phase for one in state.attempts.values()} == {Phase.FAILED}
        assert list(rescue_of(tmp_path).files()) == []
        return failed

    for writes in (*range(1, 50), 70, 200):
        failed = play(tmp_path, lambda stages, writes=writes: story(stages, writes))
        assert failed == (writes < 60)


# -- the rescue file


def keep(root: Path, name: str = "kb-1", task_id: str = "8") -> Path:
    """Write a rescue file with one task."""
    path = rescue_of(root).keep(attempt(opened(task_id), name=name))
    assert path is not None
    return path


async def take_in(stages: Stages, *answers: Any) -> list[str]:
    """Take the rescue files in; return the warnings."""
    stages.rescue = rescue_of(stages.videos.layout.root)
    stages.api.queries = list(answers)
    await stages.wire()
    await stages.run.rescuer.take_in()
    return [event.message for event in stages.events if isinstance(event, events.Warned)]


def test_rescue_file_holds_what_is_needed_and_no_key(tmp_path: Path) -> None:
    path = keep(tmp_path / "out")
    assert path == tmp_path / "out/.kling-batch/rescue.jsonl"
    (line,) = path.read_text("utf-8").splitlines()
    assert json.loads(line) == {
        "external_task_id": "kb-1",
        "task_id": "8",
        "job_id": "a",
        "fingerprint": attempt().fingerprint,
        "base_url": ACCOUNT.base_url,
        "request": attempt().body(),
        "submitted_at": "2026-09-21T14:13:20+00:00",
    }


def test_rescue_goes_to_next_place_that_takes_it(tmp_path: Path, monkeypatch: Any) -> None:
    """The output folder, the manifest's, the temporary one; a place taken by a folder takes none."""
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    (tmp_path / "out/.kling-batch/rescue.jsonl").mkdir(parents=True)
    beside = keep(tmp_path / "out")
    assert beside.parent == tmp_path
    beside.unlink()
    beside.mkdir()
    assert keep(tmp_path / "out").parent == tmp_path / "temp"
    (rescued,) = rescue_of(tmp_path / "out").files()
    assert [task.task_id for task in rescued.tasks] == ["8"]
    assert list(rescue_of(tmp_path / "other").files()) == []


def test_rescue_never_follows_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", "utf-8")
    place = Rescue.of(Layout(tmp_path / "out"), tmp_path / "night.yaml")
    (tmp_path / "out/.kling-batch").mkdir(parents=True)
    (tmp_path / "out/.kling-batch/rescue.jsonl").symlink_to(victim)
    assert place.keep(attempt(opened())) != tmp_path / "out/.kling-batch/rescue.jsonl"
    assert victim.read_text("utf-8") == "mine"


DOUBT = Doubt(Failure(FailureKind.NETWORK, "lost"))


@pytest.mark.parametrize("state", [Intended(1.0), Lost(1.0, DOUBT), Unconfirmed(1.0, DOUBT)])
def test_confirmed_task_is_taken_in(tmp_path: Path, state: Any) -> None:
    async def story(stages: Stages) -> None:
        await stages.state.commit(Put(attempt(state)))
        assert await take_in(stages, Found(Task("8", TaskStatus.PROCESSING))) == []
        assert stages.state.attempts["kb-1"].state == opened()
        assert [type(event) for event in stages.events] == [events.Adopted]
        assert list(stages.rescue.files()) == []

    keep(tmp_path)
    play(tmp_path, story)


@pytest.mark.parametrize("state", [Intended(1.0), Lost(1.0, DOUBT), Unconfirmed(1.0, DOUBT)])
@pytest.mark.parametrize("answer", [NOT_FOUND, NO_ANSWER])
def test_unanswered_task_is_kept_and_never_sent_again(
    tmp_path: Path, answer: Any, state: Any
) -> None:
    """It is known to exist: no proof of look-up makes "not found" true."""

    async def story(stages: Stages) -> None:
        await stages.state.commit(Put(attempt(state)))
        (said,) = await take_in(stages, answer)
        assert "does not confirm now" in said
        stages.api.queries = [NOT_FOUND]
        await feed(stages, job())
        assert stages.api.count("submit") == 0
        assert stages.phase_of() == "Unconfirmed"
        assert len(list(stages.rescue.files())) == 1

    keep(tmp_path)
    play(tmp_path, story, proved_at=1_790_000_000.0)


@pytest.mark.parametrize(
    ("known", "answer", "said"),
    [
        (None, NOT_FOUND, "this library does not know"),
        (attempt(opened("9")), NOT_FOUND, "the state says otherwise"),
        (
            attempt(Failed(Failure(FailureKind.NETWORK, "x"), 1.0)),
            NOT_FOUND,
            "the state says otherwise",
        ),
        (attempt(), Found(Task("9", TaskStatus.PROCESSING)), "answers with another task"),
    ],
)
def test_foreign_task_is_left_alone_and_told(
    tmp_path: Path, known: Attempt | None, answer: Any, said: str
) -> None:
    async def story(stages: Stages) -> None:
        if known is not None:
            await stages.state.commit(Put(known))
        before = dict(stages.state.attempts)
        (told,) = await take_in(stages, answer)
        assert said in told
        assert "left alone" in told
        assert stages.state.attempts == before
        assert len(list(stages.rescue.files())) == 1

    keep(tmp_path)
    play(tmp_path, story)


def test_task_of_another_account_is_left_alone(tmp_path: Path) -> None:
    async def story(stages: Stages) -> None:
        theirs = Attempt("kb-1", "a", "f", 1, "{}", Intended(1.0), account=Account("http://x", "1"))
        await stages.state.commit(Put(theirs))
        (said,) = await take_in(stages, NOT_FOUND)
        assert "another address or with another key" in said
        assert stages.api.calls == []

    keep(tmp_path)
    play(tmp_path, story)


@pytest.mark.parametrize("line", [b"rubbish", b"{}", b"[]", b'"x"', b'{"task_id": 8}', b"\xff\0"])
def test_damaged_rescue_file_is_left_and_told(tmp_path: Path, line: bytes) -> None:
    async def story(stages: Stages) -> None:
        await stages.state.commit(Put(attempt()))
        (said,) = await take_in(stages, Found(Task("8", TaskStatus.PROCESSING)))
        assert "cannot be read" in said
        assert stages.phase_of() == "Open", "the lines that can be read are taken in"
        assert path.exists()

    path = keep(tmp_path)
    path.write_bytes(path.read_bytes() + line + b"\n")
    play(tmp_path, story)


# -- the run


@pytest.mark.parametrize("kind", [FailingState, ExhaustedState])
def test_answers_under_way_are_awaited(tmp_path: Path, kind: type[FailingState]) -> None:
    """One commit fails while other requests are out: their answers are read, nothing else is sent."""

    async def story(stages: Stages) -> None:
        state, provider = kind(), Provider(finds=True)
        first = await stages_over(stages, state, provider)
        state.left = 5  # the intents of the first five, and no task id
        with pytest.raises(StateError):
            await feed(first, *JOBS)
        assert first.stop.reason is StopReason.STATE
        rescued = [e for e in first.events if isinstance(e, events.TaskRescued)]
        assert len(rescued) == len(provider.created) == 5
        assert all(event.file is not None for event in rescued)

    play(tmp_path, story, max_in_flight=5)


def test_intent_that_waited_for_a_lock_is_renewed(tmp_path: Path) -> None:
    """Nothing was sent by the old one, so the job is not in doubt."""

    async def story(stages: Stages) -> None:
        commit, slow = stages.state.commit, [True]

        async def held(*changes: Change) -> None:
            if slow and slow.pop():
                await asyncio.sleep(25.0)
            await commit(*changes)

        stages.state.commit = held  # type: ignore[method-assign]
        stages.api.submits = [Created(Task("8", TaskStatus.SUBMITTED))]
        stages.api.queries = [NOT_FOUND]
        reached = await stages.submit(attempt())
        assert reached is not None
        assert reached.phase is Phase.OPEN
        since = [
            change.attempt.state.since
            for changes in stages.state.commits
            for change in changes
            if isinstance(change, Put) and isinstance(change.attempt.state, Intended)
        ]
        assert since[1] - since[0] == pytest.approx(25.0, abs=1.0)

    play(tmp_path, story)


def test_nothing_is_sent_after_a_stop_during_the_intent(tmp_path: Path) -> None:
    async def story(stages: Stages) -> None:
        commit = stages.state.commit

        async def stops(*changes: Change) -> None:
            await commit(*changes)
            stages.stop.ask(StopReason.STATE, "another commit failed")

        stages.state.commit = stops  # type: ignore[method-assign]
        assert await stages.submit(attempt()) is None
        assert stages.api.calls == []
        assert stages.state.attempts == {}

    play(tmp_path, story)
