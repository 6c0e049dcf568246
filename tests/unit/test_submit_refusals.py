"""Submit: how long a refusal is waited out, what the account loses by it, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scripted import NOT_FOUND, SAID, TOO_FAST, Stages, attempt, found, play

from batch.attempt import Attempt, Failed, Intended, Phase
from batch.events import Delayed, Stopping
from batch.job import Failure, FailureKind
from batch.provider.answers import (
    AccountRefused,
    Created,
    Refused,
    Saturated,
    Task,
    TaskStatus,
    Throttled,
    Unsent,
)
from batch.run.gate import REFUSAL_BASE_S, Ticket
from batch.run.stop import StopReason
from batch.run.submit import WALLS

TOO_MANY = Saturated(Failure(FailureKind.RATE_LIMITED, "too many tasks", "1303", 429))


def created(name: str) -> Created:
    return Created(Task(f"task-of-{name}", TaskStatus.SUBMITTED))


def refused(code: str | None, status: int) -> AccountRefused:
    return AccountRefused(Failure(FailureKind.ACCOUNT, "go away", code, status))


async def send(stages: Stages, answers: Iterable[Any], name: str = "kb-1") -> Any:
    """Submit an attempt of its own job, which holds a slot of its own."""
    stages.api.submits, stages.api.queries = list(answers), [NOT_FOUND]
    one = attempt(name=name, job_id=f"job-of-{name}")
    return await stages.submit(one, await stages.occupy(0))


def answering(stages: Stages, of: Callable[[str], Any]) -> None:
    """Have each request answered by what *of* returns for its external id."""

    async def submit(body: dict[str, Any], **_how: Any) -> Any:
        stages.api.calls.append((stages.loop.time(), "submit", body["external_task_id"]))
        return of(body["external_task_id"])

    stages.api.submit = submit  # type: ignore[method-assign]


# -- who is refused: a prompt, or the account


def test_firewall_pages_in_a_row_stop_the_run(tmp_path: Path) -> None:
    """A page without a code may be about what this prompt says; not when every prompt gets it."""

    async def story(stages: Stages) -> tuple[list[Any], list[StopReason | None]]:
        reached, reasons = [], []
        for number in range(WALLS):
            reached.append(await send(stages, [refused(None, 403)], f"kb-{number}"))
            reasons.append(stages.stop.reason)
        return reached, reasons

    reached, reasons = play(tmp_path, story)
    for one in reached[:-1]:
        assert isinstance(one.state, Failed)
        assert one.state.failure == Failure(FailureKind.PROVIDER, "go away", None, 403)
        assert one.state.failed_at > 0
    assert reached[-1] is None
    assert reasons == [None] * (WALLS - 1) + [StopReason.ACCOUNT]


def test_an_accepted_task_clears_the_account(tmp_path: Path) -> None:
    async def story(stages: Stages) -> StopReason | None:
        for number in range(3 * WALLS):
            fine = number % WALLS == 0
            await send(
                stages, [created(f"kb-{number}") if fine else refused(None, 403)], f"kb-{number}"
            )
        return stages.stop.reason

    assert play(tmp_path, story) is None


@pytest.mark.parametrize(("code", "status"), [("1102", 403), (None, 401), ("1002", 401)])
def test_a_refused_account_stops_at_once(tmp_path: Path, code: str | None, status: int) -> None:
    async def story(stages: Stages) -> Any:
        return await send(stages, [refused(code, status)]), stages.stop.reason

    assert play(tmp_path, story) == (None, StopReason.ACCOUNT)


def test_a_refused_account_is_reported_once(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[list[Any], str]:
        answering(stages, lambda _name: refused("1102", 429))
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                one = attempt(name=f"kb-{number}", job_id=f"{number}")
                group.create_task(stages.submit(one))
        return stages.events, stages.stop.sentence

    told, sentence = play(tmp_path, story)
    assert told == [Stopping(sentence)]
    assert "go away" in sentence


# -- patience


def test_an_exhausted_request_reports_the_last_failure(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[Any, float]:
        return await send(stages, [TOO_FAST]), stages.clock.now()

    reached, now = play(tmp_path, story, task_timeout_s=30.0)
    assert reached.state == Failed(TOO_FAST.failure, now)


# -- waiting


@pytest.mark.parametrize(
    "answer", [replace(TOO_FAST, retry_after_s=45.0), replace(TOO_MANY, retry_after_s=45.0)]
)
def test_retry_after_holds_every_request(tmp_path: Path, answer: Any) -> None:
    """Retry-After holds for every job, not only for the one that was told."""

    async def story(stages: Stages) -> list[float]:
        stages.api.submits = [answer, created("kb-1"), created("kb-2")]
        stages.api.queries = [NOT_FOUND]
        async with asyncio.TaskGroup() as group:
            for number, wait_s in enumerate((0.0, 1.0)):
                await asyncio.sleep(wait_s)
                one = attempt(name=f"kb-{number}", job_id=f"{number}")
                group.create_task(stages.submit(one, await stages.occupy(number)))
        return stages.api.times("submit")

    first, *others = play(tmp_path, story)
    assert len(others) == 2
    assert all(at - first >= 45.0 for at in others)


@pytest.mark.parametrize("answer", [TOO_FAST, Unsent(SAID)])
def test_refusals_in_a_row_double_the_wait(tmp_path: Path, answer: Any) -> None:
    async def story(stages: Stages) -> tuple[Any, list[float], list[Any]]:
        reached = await send(stages, [answer] * 5 + [created("kb-1")])
        return reached, stages.api.times("submit"), stages.events

    reached, times, events = play(tmp_path, story)
    assert reached.task_id == "task-of-kb-1"
    waits = [after - before for before, after in pairwise(times)]
    for number, waited_s in enumerate(waits):
        most_s = REFUSAL_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1, f"after refusal {number + 1}"
    told = [event for event in events if isinstance(event, Delayed)]
    assert [(event.job_id, event.failure) for event in told] == [
        ("job-of-kb-1", answer.failure)
    ] * 5
    assert [event.wait_s for event in told] == pytest.approx(waits, abs=0.1)


def test_an_accepted_task_resets_the_wait(tmp_path: Path) -> None:
    async def story(stages: Stages) -> list[float]:
        await send(stages, [TOO_FAST] * 4 + [created("kb-1")], "kb-1")
        begun = len(stages.events)
        await send(stages, [TOO_FAST, created("kb-2")], "kb-2")
        return [e.wait_s for e in stages.events[begun:] if isinstance(e, Delayed)]

    (wait_s,) = play(tmp_path, story)
    assert wait_s <= REFUSAL_BASE_S


@pytest.mark.parametrize("answer", [TOO_FAST, TOO_MANY], ids=["too fast", "too many"])
def test_simultaneous_refusals_count_as_one(tmp_path: Path, answer: Any) -> None:
    """Twenty answers on the way at the same time must not add up to a wait of minutes."""

    async def story(stages: Stages) -> list[float]:
        is_open = asyncio.Event()

        async def submit(body: dict[str, Any], **_how: Any) -> Any:
            if not is_open.is_set():
                await asyncio.sleep(5.0)
                stages.loop.call_soon(is_open.set)
                return answer
            return created(body["external_task_id"])

        stages.api.submit = submit  # type: ignore[method-assign]
        stages.api.queries = [NOT_FOUND]
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                one = attempt(name=f"kb-{number}", job_id=f"{number}")
                ticket = await stages.occupy(number)
                group.create_task(release_after(stages, one, ticket))
        return [event.wait_s for event in stages.events if isinstance(event, Delayed)]

    waits = play(tmp_path, story, max_in_flight=20)
    assert len(waits) >= 15
    assert max(waits) <= 4 * REFUSAL_BASE_S


async def release_after(stages: Stages, one: Attempt, ticket: Ticket) -> None:
    """Submit, and let the slot go as if the task had ended."""
    await stages.submit(one, ticket)
    ticket.leave()


# -- an account that is full


def test_a_full_account_waits_for_a_task(
    tmp_path: Path,
) -> None:
    """A refused job gives its slot back and waits in the order of the manifest."""

    async def story(stages: Stages) -> tuple[list[str], int]:
        taken: list[str] = []

        def of(name: str) -> Any:
            if taken and stages.loop.time() < 100.0:
                return TOO_MANY
            taken.append(name)
            return created(name)

        answering(stages, of)
        stages.api.queries = [NOT_FOUND]
        first = await stages.occupy(0)
        await stages.submit(attempt(name="kb-0", job_id="0"), first)

        async def life(number: int) -> None:
            one = attempt(name=f"kb-{number}", job_id=f"{number}")
            await release_after(stages, one, await stages.occupy(number))

        async with asyncio.TaskGroup() as group:
            for number in (2, 1, 3):
                group.create_task(life(number))
            await asyncio.sleep(100.0)
            asked = stages.api.count("submit")
            first.leave()  # the first task has ended
        return taken, asked

    taken, asked = play(tmp_path, story)
    assert taken == ["kb-0", "kb-1", "kb-2", "kb-3"]
    assert asked <= 10, "a full account is not asked again and again"


def test_an_account_filled_by_others_is_backed_off(tmp_path: Path) -> None:
    """No task of ours is open whose end would free a slot: only waiting helps."""

    async def story(stages: Stages) -> tuple[Any, list[float]]:
        reached = await send(stages, [TOO_MANY] * 6 + [created("kb-1")])
        return reached, stages.api.times("submit")

    reached, times = play(tmp_path, story)
    assert reached.task_id == "task-of-kb-1"
    waits = [after - before for before, after in pairwise(times)]
    assert waits[0] <= 0.1, "the slot that is free now may be its own"
    for number, waited_s in enumerate(waits[1:], start=1):
        most_s = REFUSAL_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1, f"after refusal {number + 1}"


def test_a_refused_request_is_withdrawn_before_the_wait(tmp_path: Path) -> None:
    """A run that dies while it waits leaves nothing that would have to be looked up."""

    async def story(stages: Stages) -> list[str | None]:
        seen: list[str | None] = []
        stages.loop.call_later(20.0, lambda: seen.append(stages.phase_of()))
        stages.loop.call_later(50.0, lambda: seen.append(stages.phase_of()))
        late = Throttled(TOO_FAST.failure, retry_after_s=40.0)
        reached = await send(stages, [late, created("kb-1")])
        assert reached.external_task_id == "kb-1"
        assert not isinstance(reached.state, Intended)
        await asyncio.sleep(20.0)
        return seen

    assert play(tmp_path, story) == [None, "Open"]


@pytest.mark.parametrize("exists", [True, False])
def test_bad_value_may_be_a_forgotten_task(tmp_path: Path, exists: bool) -> None:
    """1201 stands for both, and a gateway may put it in words that are not known."""
    unclear = Failure(FailureKind.INVALID_REQUEST, "no", "1201", 400)

    async def story(stages: Stages) -> tuple[Any, int]:
        stages.api.submits = [Refused(unclear)]
        stages.api.queries = [found() if exists else NOT_FOUND]
        return await stages.submit(attempt()), stages.api.count("query")

    reached, queries = play(tmp_path, story)
    assert queries == 1
    assert reached.phase is (Phase.OPEN if exists else Phase.FAILED)
