"""Resume: a run that dies at any step of a submission leads to no second payment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sample_jobs import feed, job, tried
from scripted import NOT_FOUND, SAID, Stages, attempt, play
from virtual_time import EPOCH

from batch.attempt import Attempt, Doubt, Intended, Lost, Unconfirmed
from batch.callbacks.hints import Hint
from batch.job import Failure, FailureKind
from batch.output.state import Change, Put
from batch.plan import Policy
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Found,
    Refused,
    Saturated,
    Task,
    TaskStatus,
    Throttled,
)

ON_REQUEST = Policy(resubmit_unconfirmed=True)
REFUSED = Refused(Failure(FailureKind.MODERATION, "not that", "1301", 400))
NO_CREDIT = AccountRefused(Failure(FailureKind.ACCOUNT, "no credit", "1102", 429))
FIREWALL = AccountRefused(Failure(FailureKind.ACCOUNT, "no", http_status=403))


class Nights:
    """Runs one after another over one state; look-up finds nothing, and is proved but for a first."""

    def __init__(self, root: Path, state: Any) -> None:
        self.root = root
        self.known = {"kb-0": tried(state, job())}

    def run(self, *answers: Any, policy: Policy | None = None, is_first: bool = False) -> Stages:
        """Run once; each submission is answered by the next of *answers*, or kills the run."""

        async def story(stages: Stages) -> Stages:
            stages.state.attempts = dict(self.known)
            stages.api.submits, stages.api.queries = list(answers), [NOT_FOUND]
            if not answers:
                stages.api.on_submit = _die
            await feed(stages, job())
            self.known = stages.state.attempts
            return stages

        proved_at = None if is_first else EPOCH
        return play(self.root, story, proved_at=proved_at, policy=policy, task_timeout_s=60.0)

    @property
    def attempt(self) -> Attempt:
        (only,) = self.known.values()
        return only


async def _die() -> None:
    raise asyncio.CancelledError


def told(stages: Stages) -> tuple[str, str]:
    """Return status and reason of the only row of a run."""
    (line,) = stages.state.rows
    row = json.loads(line)
    return row["status"], row["error"]["message"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_doubt_outlives_a_death_before_the_post(tmp_path: Path, exists: bool) -> None:
    """Resubmitted on request by a run that dies: the next one, not asked to, sends nothing."""
    nights = Nights(tmp_path, Unconfirmed(1.0, Doubt(SAID, exists)))
    nights.run(policy=ON_REQUEST, is_first=True)
    assert isinstance(nights.attempt.state, Intended)
    assert nights.attempt.doubt is not None
    assert (nights.attempt.doubt.exists, nights.attempt.doubt.on_request) == (exists, True)

    for _ in range(2):
        stages = nights.run(REFUSED)
        assert stages.api.count("submit") == 0
        assert isinstance(nights.attempt.state, Unconfirmed)
        status, reason = told(stages)
        assert status == "unconfirmed"
        expected = "says that the task exists" if exists else "submitted again on request"
        assert expected in reason


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("dies", [True, False])
def test_a_refusal_settles_no_doubt(tmp_path: Path, exists: bool, dies: bool) -> None:
    """What is refused now may have been accepted then: nothing that a later run pays for again."""
    nights = Nights(tmp_path, Unconfirmed(1.0, Doubt(SAID, exists)))
    if dies:
        nights.run(policy=ON_REQUEST, is_first=True)
    stages = nights.run(REFUSED, policy=ON_REQUEST, is_first=not dies)
    assert stages.api.count("submit") == 1
    assert isinstance(nights.attempt.state, Unconfirmed)
    status, reason = told(stages)
    assert status == "unconfirmed"
    assert reason.startswith("sent again, it was refused (not that); ")
    assert nights.run(REFUSED).api.count("submit") == 0


@pytest.mark.parametrize(
    "answer",
    [Throttled(SAID), Saturated(SAID), Exists(SAID), Ambiguous(SAID), NO_CREDIT, FIREWALL],
    ids=["429", "1303", "exists", "lost", "no credit", "a firewall"],
)
@pytest.mark.parametrize("exists", [True, False])
def test_no_answer_settles_a_doubt(tmp_path: Path, answer: Any, exists: bool) -> None:
    nights = Nights(tmp_path, Unconfirmed(1.0, Doubt(SAID, exists)))
    nights.run(answer, policy=ON_REQUEST, is_first=True)
    assert isinstance(nights.attempt.state, Lost | Unconfirmed)
    assert nights.attempt.doubt is not None
    assert nights.attempt.doubt.on_request
    assert nights.attempt.doubt.exists is (exists or isinstance(answer, Exists))
    stages = nights.run(REFUSED)
    assert stages.api.count("submit") == 0
    assert isinstance(nights.attempt.state, Unconfirmed)


# -- a death at a commit


class Provider:
    """Makes a task of every request, and loses its first answer."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    async def submit(self, body: dict[str, Any], **_how: Any) -> Any:
        self.tasks.append(body["external_task_id"])
        task = Task(f"8{len(self.tasks)}", TaskStatus.SUBMITTED)
        return Ambiguous(SAID) if len(self.tasks) == 1 else Created(task)

    async def query(self, identifier: str) -> Any:
        if identifier in {*self.tasks, "81"} and self.tasks:
            message = "risk control"
            return Found(Task("81", TaskStatus.FAILED, message=message, external_task_id="kb-100"))
        return NOT_FOUND


@pytest.mark.parametrize("lands", [True, False], ids=["after it", "before it"])
@pytest.mark.parametrize(("fatal", "sent"), [("Intended", 0), ("Lost", 1), ("Open", 1)])
def test_a_death_at_a_commit_sends_nothing_twice(
    tmp_path: Path, fatal: str, sent: int, lands: bool
) -> None:
    """The run dies right before or right after that the state is on disk."""
    provider = Provider()

    async def dies(stages: Stages) -> dict[str, Attempt]:
        commit = stages.state.commit

        async def mortal(*changes: Change) -> None:
            match changes:
                case (Put(attempt), *_) if attempt.phase == fatal:
                    if lands:
                        await commit(*changes)
                    raise asyncio.CancelledError
            await commit(*changes)

        stages.state.commit = mortal  # type: ignore[method-assign]
        stages.api = provider  # type: ignore[assignment]
        await stages.wire()
        await feed(stages, job())
        return stages.state.attempts

    async def next_run(stages: Stages) -> list[str]:
        stages.state.attempts = dict(left)
        stages.api = provider  # type: ignore[assignment]
        await stages.wire()
        await feed(stages, job())
        return [attempt.phase.value for attempt in stages.state.attempts.values()]

    left = play(tmp_path, dies, proved_at=EPOCH)
    assert len(provider.tasks) == sent
    assert play(tmp_path, next_run, proved_at=EPOCH) == ["Failed"]
    assert provider.tasks == ["kb-100"]


@pytest.mark.parametrize("is_gate", [True, False], ids=["Ticket.intend", "LookUp.lose"])
def test_a_cancelled_commit_goes_no_further(tmp_path: Path, is_gate: bool) -> None:
    """A commit reaches the disk though it is cancelled; after it nothing is sent or looked up."""

    async def story(stages: Stages) -> tuple[str | None, int]:
        commit = stages.state.commit

        async def shielded(*changes: Change) -> None:
            await asyncio.shield(asyncio.ensure_future(_slowly(commit, changes)))

        stages.state.commit = shielded  # type: ignore[method-assign]
        stages.api.submits, stages.api.queries = (
            [Created(Task("8", TaskStatus.SUBMITTED))],
            [NOT_FOUND],
        )
        if is_gate:
            step = asyncio.ensure_future(stages.submit(attempt()))
        else:
            step = asyncio.ensure_future(_lose_and_find(stages))
        await asyncio.sleep(0.5)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        await asyncio.sleep(5.0)
        return stages.phase_of(), len(stages.api.calls)

    assert play(tmp_path, story) == ("Intended" if is_gate else "Lost", 0)


async def _slowly(commit: Any, changes: tuple[Change, ...]) -> None:
    await asyncio.sleep(1.0)
    await commit(*changes)


async def _lose_and_find(stages: Stages) -> Attempt:
    lost = await stages.run.lookup.lose(attempt(), SAID)
    return await stages.run.lookup.find(lost, Hint())
