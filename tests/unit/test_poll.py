"""Poll: nothing that happens to a poll is a verdict, except the provider's own word."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import (
    ACCOUNT,
    NO_ANSWER,
    NOT_FOUND,
    SAID,
    Stages,
    SteadyLessons,
    attempt,
    found,
    opened,
    play,
)
from virtual_time import EPOCH

from batch.attempt import Account, Failed, Generated, PaidTask, TimedOut
from batch.callbacks.hints import Hint, News
from batch.job import Failure, FailureKind
from batch.output.row import make_row
from batch.output.state import Put
from batch.provider.answers import AccountRefused, Found, Task, TaskStatus, Unavailable
from batch.run.stop import StopReason

DONE = found(TaskStatus.SUCCEEDED, url="https://cdn/8")
LOCKED_OUT = AccountRefused(SAID)


def polled(root: Path, answers: list[Any], **how: Any) -> tuple[Any, str | None, Stages]:
    async def story(stages: Stages) -> Any:
        stages.api.queries = list(answers)
        return (*await stages.poll(attempt(opened())), stages)

    how.setdefault("proved_at", EPOCH)
    result: tuple[Any, str | None, Stages] = play(root, story, **how)
    return result


def test_a_task_is_polled_through_every_trouble(tmp_path: Path) -> None:
    """A 5xx, an unknown task, a step backwards, an unknown word, one refused key."""
    troubles = [
        found(),
        NO_ANSWER,
        NOT_FOUND,
        found(TaskStatus.SUBMITTED),
        found(TaskStatus.UNKNOWN),
        LOCKED_OUT,
        Unavailable(SAID, 20.0),
        DONE,
    ]
    reached, link, stages = polled(tmp_path, troubles)
    assert isinstance(reached.state, Generated)
    assert link == "https://cdn/8"
    assert reached.polls == 8


def test_polls_keep_their_distance(tmp_path: Path) -> None:
    _, _, stages = polled(tmp_path, [found(), NO_ANSWER, found(), DONE])
    assert all(after - before >= 5.0 for before, after in pairwise(stages.api.times("query")))


def test_retry_after_delays_the_poll(tmp_path: Path) -> None:
    _, _, stages = polled(tmp_path, [Unavailable(SAID, 60.0), DONE])
    first, second = stages.api.times("query")
    assert second - first >= 60.0


def test_retry_after_ends_with_task_timeout(tmp_path: Path) -> None:
    """A task is never held, and a slot with it, for longer than task_timeout says."""

    async def story(stages: Stages) -> Any:
        begun = stages.loop.time()
        stages.api.queries = [Unavailable(SAID, 86_400.0), found()]
        reached, _ = await stages.poll(attempt(opened()))
        return reached, stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, proved_at=EPOCH, task_timeout_s=600.0)
    assert isinstance(reached.state, TimedOut)
    assert took_s == pytest.approx(600.0, abs=10.0)


def test_a_failed_task_fails_the_attempt(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.FAILED, message="generation error"))
    reached, _, _ = polled(tmp_path, [answer])
    assert isinstance(reached.state, Failed)
    assert reached.state.failure.kind is FailureKind.GENERATION
    assert reached.task_id == "8", "it was paid for"


def test_the_deadline_is_no_verdict(tmp_path: Path) -> None:
    reached, _, stages = polled(tmp_path, [found()], task_timeout_s=120.0)
    assert isinstance(reached.state, TimedOut)
    assert 120.0 <= stages.loop.time() < 130.0


def test_silence_at_the_deadline_gets_more_polls(tmp_path: Path) -> None:
    """A machine that slept past the deadline has no network in its first seconds."""

    async def story(stages: Stages) -> Any:
        stages.loop.naps = [(30.0, 3600.0)]
        stages.api.queries = [
            found(),
            found(),
            found(),
            found(),
            found(),
            NO_ANSWER,
            NO_ANSWER,
            DONE,
        ]
        return await stages.poll(attempt(opened()))

    reached, _ = play(tmp_path, story, task_timeout_s=600.0, proved_at=EPOCH)
    assert isinstance(reached.state, Generated)


def test_a_repeatedly_refused_key_stops_the_run(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        stages.api.queries = [LOCKED_OUT]
        await stages.poll(attempt(opened()))
        return stages.stop.reason

    assert play(tmp_path, story, proved_at=EPOCH) is StopReason.ACCOUNT


@pytest.mark.parametrize("status", [TaskStatus.SUCCEEDED, TaskStatus.FAILED])
def test_an_answer_about_another_task_is_ignored(tmp_path: Path, status: TaskStatus) -> None:
    """A provider may answer with another task than the one that was asked for.

    Its video is not ours, and its failure must not lead to a new payment.
    """
    foreign = Found(Task("9", status, "https://cdn/9", message="generation error"))
    reached, link, _ = polled(tmp_path, [foreign, DONE])
    assert isinstance(reached.state, Generated)
    assert link == "https://cdn/8"


async def poll_renamed(stages: Stages, status: TaskStatus, *, of: str | None) -> Any:
    """Poll a task that is always called "up-8"; that is the task of job *of* in the state."""
    if of is not None:
        await stages.state.commit(Put(attempt(opened("up-8"), name="kb-other", job_id=of)))
    stages.api.queries = [Found(Task("up-8", status, "https://cdn/8", message="internal error"))]
    return await stages.poll(attempt(opened()))


def test_task_that_is_always_called_otherwise_is_collected(tmp_path: Path) -> None:
    """Some relays give one id to the submission and another to the query: paid, and lost for good."""
    reached, link = play(
        tmp_path,
        lambda stages: poll_renamed(stages, TaskStatus.SUCCEEDED, of=None),
        proved_at=EPOCH,
    )
    assert isinstance(reached.state, Generated)
    assert (reached.task_id, link) == ("8", "https://cdn/8")


@pytest.mark.parametrize(("status", "of"), [(TaskStatus.SUCCEEDED, "b"), (TaskStatus.FAILED, None)])
def test_other_id_is_not_believed_at_a_cost(
    tmp_path: Path, status: TaskStatus, of: str | None
) -> None:
    """Not another job's video; and no failure, after which a second task would be paid for."""
    reached, _ = play(tmp_path, lambda stages: poll_renamed(stages, status, of=of), proved_at=EPOCH)
    assert isinstance(reached.state, TimedOut)


FORBIDDEN = AccountRefused(Failure(FailureKind.ACCOUNT, "not your task", None, 403))


@pytest.mark.parametrize(
    "answers", [[NOT_FOUND] * 3, [FORBIDDEN] * 3, [NOT_FOUND, FORBIDDEN, NOT_FOUND]]
)
@pytest.mark.parametrize(
    "account",
    [Account(ACCOUNT.base_url, "other"), Account("https://other.example", ACCOUNT.key_hash)],
)
def test_task_of_another_account_is_not_waited_for(
    tmp_path: Path, answers: list[Any], account: Account
) -> None:
    """After a change of the key, nothing can tell of it: it stays open, and does not stop the run."""

    async def story(stages: Stages) -> Any:
        submitted = replace(opened(), task=PaidTask("8", EPOCH - 60.0))
        stages.api.queries = [NO_ANSWER, *answers]
        mine = replace(attempt(submitted), account=account)
        reached, _ = await stages.poll(mine, is_fresh=False)
        return reached, stages.loop.time(), stages.run.context.stop.leaving.is_set()

    reached, took_s, is_left = play(tmp_path, story, proved_at=EPOCH, task_timeout_s=1800.0)
    assert isinstance(reached.state, TimedOut)
    assert (took_s < 60.0, is_left) == (True, False)
    row = make_row(reached, run_id="r", tasks=1, now=EPOCH)
    assert row["error"]["kind"] == "timeout"
    assert "submitted with another key" in row["error"]["message"]


@pytest.mark.parametrize(
    ("answers", "account"),
    [
        ([NOT_FOUND] * 9, ACCOUNT),  # a lag of the provider, or its fault
        ([NOT_FOUND, NOT_FOUND, NO_ANSWER] * 3, Account(ACCOUNT.base_url, "other")),
    ],
)
def test_only_another_accounts_task_ends_so(
    tmp_path: Path, answers: list[Any], account: Account
) -> None:
    async def story(stages: Stages) -> Any:
        submitted = replace(opened(), task=PaidTask("8", EPOCH - 60.0))
        stages.api.queries = [*answers, DONE]
        mine = replace(attempt(submitted), account=account)
        return (await stages.poll(mine, is_fresh=False))[0]

    reached = play(tmp_path, story, proved_at=EPOCH, task_timeout_s=1800.0)
    assert isinstance(reached.state, Generated)


def test_refused_key_stops_the_run_also_for_another_accounts_task(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        stages.api.queries = [LOCKED_OUT] * 3
        mine = replace(attempt(opened()), account=Account(ACCOUNT.base_url, "other"))
        reached, _ = await stages.poll(mine, is_fresh=False)
        return reached, stages.run.context.stop.reason

    assert play(tmp_path, story, proved_at=EPOCH) == (None, StopReason.ACCOUNT)


def test_a_late_first_poll_keeps_the_deadline(tmp_path: Path) -> None:
    """Past tasks may teach to poll late; `task_timeout` is the most that is waited all the same."""

    async def story(stages: Stages) -> float:
        stages.api.queries = [found()]
        stages.run.poller._lessons = SteadyLessons(900.0)  # type: ignore[assignment]
        await stages.poll(attempt(opened()))
        return stages.loop.time()

    assert play(tmp_path, story, task_timeout_s=120.0, proved_at=EPOCH) < 130.0


def test_an_early_announcement_causes_no_second_poll(
    tmp_path: Path,
) -> None:
    """A callback came while its task was still being looked up; the poll at once answers it."""

    async def story(stages: Stages) -> list[float]:
        hint = Hint()
        hint.record(News("8", None, has_ended=True))
        stages.api.queries = [found(), DONE]
        await stages.run.poller.poll(attempt(opened()), hint, is_fresh=False)
        return stages.api.times("query")

    first, second = play(tmp_path, story, proved_at=EPOCH)
    assert second - first >= 5.0
