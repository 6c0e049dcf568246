"""Submit: how long a refusal is waited out, what the account loses by it, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from batch.output.changes import Put
from scripted import NOT_FOUND, SAID, TOO_FAST, Stages, attempt, play
from virtual_time import EPOCH

from batch.events import Refused as ToldRefused
from batch.events import Stopping
from batch.job import Attempt, Failed, Failure, FailureKind, Intended, Lost, Unconfirmed
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Refused,
    Saturated,
    Task,
    TaskStatus,
    Throttled,
    Unsent,
)
from batch.run.stop import StopReason
from batch.run.submit import REFUSAL_BASE_S, SENT_BEFORE, WALLS

TOO_MANY = Saturated(Failure(FailureKind.RATE_LIMITED, "too many tasks", "1303", 429))


def created(name: str) -> Created:
    return Created(Task(f"task-of-{name}", TaskStatus.SUBMITTED))


def refused(code: str | None, status: int) -> AccountRefused:
    return AccountRefused(Failure(FailureKind.ACCOUNT, "go away", code, status))


async def send(stages: Stages, answers: Iterable[Any], name: str = "kb-1", order: int = 0) -> Any:
    """Submit an attempt of its own job, which holds a slot as the runner has it hold one."""
    stages.api.submits, stages.api.queries = list(answers), [NOT_FOUND]
    stages.slots.occupy()
    return await stages.submitter.submit(attempt(name=name, job_id=f"job-of-{name}"), order=order)


def answering(stages: Stages, of: Callable[[str], Any]) -> None:
    """Have each request answered by what *of* returns for its external id."""

    async def submit(body: dict[str, Any], **_how: Any) -> Any:
        stages.api.calls.append((stages.loop.time(), "submit", body["external_task_id"]))
        return of(body["external_task_id"])

    stages.api.submit = submit  # type: ignore[method-assign]


# -- who is refused: a prompt, or the account


def test_a_firewalls_page_fails_one_prompt_and_some_in_a_row_stop_the_run(tmp_path: Path) -> None:
    """A page without a code may be about what this prompt says; not when everybody gets it."""

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


def test_a_task_that_is_taken_in_between_clears_the_account_of_suspicion(tmp_path: Path) -> None:
    async def story(stages: Stages) -> StopReason | None:
        for number in range(3 * WALLS):
            fine = number % WALLS == 0
            await send(
                stages, [created(f"kb-{number}") if fine else refused(None, 403)], f"kb-{number}"
            )
        return stages.stop.reason

    assert play(tmp_path, story) is None


@pytest.mark.parametrize(("code", "status"), [("1102", 403), (None, 401), ("1002", 401)])
def test_what_is_said_of_the_account_stops_at_once(
    tmp_path: Path, code: str | None, status: int
) -> None:
    async def story(stages: Stages) -> Any:
        return await send(stages, [refused(code, status)]), stages.stop.reason

    assert play(tmp_path, story) == (None, StopReason.ACCOUNT)


def test_a_stop_for_the_account_is_told_once_in_the_providers_words(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[list[Any], str]:
        answering(stages, lambda _name: refused("1102", 429))
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(
                    stages.submitter.submit(attempt(name=f"kb-{number}"), order=number)
                )
        return stages.events, stages.stop.sentence

    told, sentence = play(tmp_path, story)
    assert told == [Stopping(sentence)]
    assert "go away" in sentence


def test_a_wall_in_the_way_of_a_resubmission_leaves_it_as_doubtful_as_it_was(
    tmp_path: Path,
) -> None:
    """It may have been created before: no failure that a later run would pay for anew."""

    async def story(stages: Stages) -> tuple[Any, Any]:
        unsure = Unconfirmed(1.0, SAID, exists=True)
        doubtful = attempt(unsure)
        await stages.journal.commit(Put(doubtful))
        stages.api.submits, stages.api.queries = [refused(None, 403)], [NOT_FOUND]
        stages.slots.occupy()
        reached = await stages.submitter.submit(doubtful, order=0, resent=True, unsure=unsure)
        return reached, stages.store.attempt("kb-1").state

    reached, on_disk = play(tmp_path, story)
    assert isinstance(reached.state, Unconfirmed)
    assert isinstance(on_disk, Lost)
    for state in (reached.state, on_disk):
        assert (state.failure, state.exists) == (SAID, True)


@pytest.mark.parametrize("exists", [True, False])
def test_a_resubmission_that_is_refused_for_ever_tells_of_both_answers(
    tmp_path: Path, exists: bool
) -> None:
    async def story(stages: Stages) -> tuple[Any, float]:
        unsure = Unconfirmed(1.0, replace(SAID, kind=FailureKind.UNCONFIRMED), exists)
        doubtful = attempt(unsure)
        await stages.journal.commit(Put(doubtful))
        stages.api.submits = [Refused(Failure(FailureKind.MODERATION, "not that", "1301", 400))]
        stages.api.queries = [NOT_FOUND]
        stages.slots.occupy()
        reached = await stages.submitter.submit(doubtful, order=0, resent=True, unsure=unsure)
        return reached, stages.clock.now()

    reached, now = play(tmp_path, story)
    message = "sent again, it was refused (not that); said so"
    assert reached.state == Unconfirmed(now, Failure(FailureKind.UNCONFIRMED, message), exists)


# -- patience


@pytest.mark.parametrize("exists", [True, False])
def test_a_resubmission_that_nobody_takes_falls_back_to_its_doubt(
    tmp_path: Path, exists: bool
) -> None:
    """What was known of the first request is still known, on disk too while the second waits."""

    async def story(stages: Stages) -> tuple[Any, Any, float]:
        unsure = Unconfirmed(1.0, SAID, exists)
        doubtful = attempt(unsure)
        await stages.journal.commit(Put(doubtful))
        stages.api.submits, stages.api.queries = [TOO_FAST], [NOT_FOUND]
        stages.slots.occupy()
        reached = await stages.submitter.submit(doubtful, order=0, resent=True, unsure=unsure)
        return reached, stages.store.attempt("kb-1").state, stages.clock.now()

    reached, on_disk, now = play(tmp_path, story, task_timeout_s=30.0)
    assert reached.state == Unconfirmed(now, SAID, exists)
    assert isinstance(on_disk, Lost)
    assert (on_disk.failure, on_disk.exists) == (SAID, exists)


def test_the_failure_of_who_lost_patience_is_what_he_was_told_last(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[Any, float]:
        return await send(stages, [TOO_FAST]), stages.clock.now()

    reached, now = play(tmp_path, story, task_timeout_s=30.0)
    assert reached.state == Failed(TOO_FAST.failure, now)


@pytest.mark.parametrize("when", ["in this run", "in an earlier one"])
def test_what_look_up_called_absent_and_nobody_takes_is_as_unknown_as_before(
    tmp_path: Path, when: str
) -> None:
    """A task may turn up after the settle time: that is no failure to pay anew for."""

    async def story(stages: Stages) -> tuple[Any, Any, float]:
        stages.api.submits, stages.api.queries = [TOO_FAST], [NOT_FOUND]
        if when == "in this run":
            stages.api.submits.insert(0, Ambiguous(SAID))
        stages.slots.occupy()
        resent = when != "in this run"
        reached = await stages.submitter.submit(attempt(), order=0, resent=resent)
        return reached, stages.store.attempt("kb-1").state, stages.clock.now()

    reached, on_disk, now = play(tmp_path, story, proved_at=EPOCH, task_timeout_s=60.0)
    assert reached.state == Unconfirmed(now, SENT_BEFORE)
    assert isinstance(on_disk, Lost)


def test_a_resubmission_whose_answer_is_lost_too_keeps_the_first_doubt(tmp_path: Path) -> None:
    """That look-up does not find it says nothing against what the provider had said: it exists."""

    async def story(stages: Stages) -> tuple[Any, float]:
        unsure = Unconfirmed(1.0, SAID, exists=True)
        doubtful = attempt(unsure)
        await stages.journal.commit(Put(doubtful))
        lost = Ambiguous(replace(SAID, message="the line was cut"))
        stages.api.submits, stages.api.queries = [lost, TOO_FAST], [NOT_FOUND]
        stages.slots.occupy()
        reached = await stages.submitter.submit(doubtful, order=0, resent=True, unsure=unsure)
        return reached, stages.clock.now()

    reached, now = play(tmp_path, story, proved_at=EPOCH, task_timeout_s=60.0)
    assert reached.state == Unconfirmed(now, SAID, exists=True)


# -- waiting


@pytest.mark.parametrize(
    "answer", [replace(TOO_FAST, retry_after_s=45.0), replace(TOO_MANY, retry_after_s=45.0)]
)
def test_nothing_goes_out_before_the_provider_said_so(tmp_path: Path, answer: Any) -> None:
    """Retry-After holds for everybody, not only for who was told."""

    async def story(stages: Stages) -> list[float]:
        stages.api.submits = [answer, created("kb-1"), created("kb-2")]
        stages.api.queries = [NOT_FOUND]
        async with asyncio.TaskGroup() as group:
            for number, wait_s in enumerate((0.0, 1.0)):
                await asyncio.sleep(wait_s)
                stages.slots.occupy()
                one = attempt(name=f"kb-{number}", job_id=f"{number}")
                group.create_task(stages.submitter.submit(one, order=number))
        return stages.api.times("submit")

    first, *others = play(tmp_path, story)
    assert len(others) == 2
    assert all(at - first >= 45.0 for at in others)


@pytest.mark.parametrize("answer", [TOO_FAST, Unsent(SAID)])
def test_each_refusal_in_a_row_is_waited_out_longer(tmp_path: Path, answer: Any) -> None:
    async def story(stages: Stages) -> tuple[Any, list[float], list[Any]]:
        reached = await send(stages, [answer] * 5 + [created("kb-1")])
        return reached, stages.api.times("submit"), stages.events

    reached, times, events = play(tmp_path, story)
    assert reached.task_id == "task-of-kb-1"
    waits = [after - before for before, after in pairwise(times)]
    for number, waited_s in enumerate(waits):
        most_s = REFUSAL_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1, f"after refusal {number + 1}"
    told = [event for event in events if isinstance(event, ToldRefused)]
    assert [(event.job_id, event.failure) for event in told] == [
        ("job-of-kb-1", answer.failure)
    ] * 5
    assert [event.wait_s for event in told] == pytest.approx(waits, abs=0.1)


def test_after_a_task_that_was_taken_the_waits_are_short_again(tmp_path: Path) -> None:
    async def story(stages: Stages) -> list[float]:
        await send(stages, [TOO_FAST] * 4 + [created("kb-1")], "kb-1")
        begun = len(stages.events)
        await send(stages, [TOO_FAST, created("kb-2")], "kb-2")
        return [e.wait_s for e in stages.events[begun:] if isinstance(e, ToldRefused)]

    (wait_s,) = play(tmp_path, story)
    assert wait_s <= REFUSAL_BASE_S


@pytest.mark.parametrize("answer", [TOO_FAST, TOO_MANY], ids=["too fast", "too many"])
def test_a_crowd_that_is_refused_at_once_was_refused_once(tmp_path: Path, answer: Any) -> None:
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
                stages.slots.occupy()
                one = attempt(name=f"kb-{number}", job_id=f"{number}")
                group.create_task(release_after(stages, one, number))
        return [event.wait_s for event in stages.events if isinstance(event, ToldRefused)]

    waits = play(tmp_path, story, max_in_flight=20)
    assert len(waits) >= 15
    assert max(waits) <= 4 * REFUSAL_BASE_S


async def release_after(stages: Stages, one: Attempt, order: int) -> None:
    """Submit, and let the slot go as if the task had ended."""
    await stages.submitter.submit(one, order=order)
    stages.slots.release()


# -- an account that is full


def test_a_full_account_takes_the_next_task_when_one_has_ended_and_not_before(
    tmp_path: Path,
) -> None:
    """Whoever is refused gives his slot back and waits in the order of the manifest."""

    async def story(stages: Stages) -> tuple[list[str], int]:
        taken: list[str] = []

        def of(name: str) -> Any:
            if taken and stages.loop.time() < 100.0:
                return TOO_MANY
            taken.append(name)
            return created(name)

        answering(stages, of)
        stages.api.queries = [NOT_FOUND]
        stages.slots.occupy()
        await stages.submitter.submit(attempt(name="kb-0", job_id="0"), order=0)

        async def life(number: int) -> None:
            stages.slots.occupy()
            await release_after(stages, attempt(name=f"kb-{number}", job_id=f"{number}"), number)

        async with asyncio.TaskGroup() as group:
            for number in (2, 1, 3):
                group.create_task(life(number))
            await asyncio.sleep(100.0)
            asked = stages.api.count("submit")
            stages.slots.release()  # the first task has ended
        return taken, asked

    taken, asked = play(tmp_path, story)
    assert taken == ["kb-0", "kb-1", "kb-2", "kb-3"]
    assert asked <= 10, "nobody asks again and again while the account is full"


def test_an_account_that_others_fill_is_asked_more_and_more_rarely(tmp_path: Path) -> None:
    """No task of ours is open whose end would free a slot: only waiting helps."""

    async def story(stages: Stages) -> tuple[Any, list[float]]:
        reached = await send(stages, [TOO_MANY] * 6 + [created("kb-1")])
        return reached, stages.api.times("submit")

    reached, times = play(tmp_path, story)
    assert reached.task_id == "task-of-kb-1"
    waits = [after - before for before, after in pairwise(times)]
    assert waits[0] <= 0.1, "the slot that is free now may be his"
    for number, waited_s in enumerate(waits[1:], start=1):
        most_s = REFUSAL_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1, f"after refusal {number + 1}"


def test_a_refused_request_is_taken_back_before_it_waits(tmp_path: Path) -> None:
    """Whoever dies while he waits leaves nothing behind that would have to be looked for."""

    async def story(stages: Stages) -> list[str | None]:
        seen: list[str | None] = []
        stages.loop.call_later(20.0, lambda: seen.append(stages.state_of()))
        stages.loop.call_later(50.0, lambda: seen.append(stages.state_of()))
        late = Throttled(TOO_FAST.failure, retry_after_s=40.0)
        reached = await send(stages, [late, created("kb-1")])
        assert reached.external_task_id == "kb-1"
        assert not isinstance(reached.state, Intended)
        await asyncio.sleep(20.0)
        return seen

    assert play(tmp_path, story) == [None, "Open"]
