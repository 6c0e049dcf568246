"""Look-up by our own id: what "found" and "not found" are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import ACCOUNT, NO_ANSWER, NOT_FOUND, SAID, URL, Stages, attempt, found, opened, play
from virtual_time import EPOCH

from batch.changes import Put
from batch.hints import Hint
from batch.job import Attempt, Intended, Lost, Open, Unconfirmed
from batch.lookup import PROOF_LASTS_S, PROOF_TRIES
from batch.wire import Found, Task, TaskStatus, Unavailable


def looked_up(root: Path, answers: list[Any], *, exists: bool = False, **how: Any) -> Any:
    async def story(stages: Stages) -> tuple[Attempt, Stages]:
        stages.api.queries = list(answers)
        reached = await stages.lookup.find(attempt(Lost(1.0, SAID, exists=exists)))
        stages.proof = stages.store.proved_at(URL, ACCOUNT)  # type: ignore[attr-defined]
        return reached, stages

    return play(root, story, **how)


def test_a_task_that_appears_late_is_adopted(tmp_path: Path) -> None:
    """A fresh task may be invisible for some seconds."""
    reached, stages = looked_up(tmp_path, [NOT_FOUND, NOT_FOUND, NO_ANSWER, found()])
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"
    assert stages.loop.time() < 30.0


@pytest.mark.parametrize(
    ("proved_at", "exists", "expected"),
    [
        (None, False, Unconfirmed),
        (EPOCH, False, Intended),
        (EPOCH, True, Unconfirmed),
        (EPOCH - PROOF_LASTS_S - 1, False, Unconfirmed),
    ],
    ids=["unproved", "proved", "said to exist", "proof too old"],
)
def test_absence_is_believed_only_where_look_up_was_proved(
    tmp_path: Path, proved_at: float | None, exists: bool, expected: type
) -> None:
    reached, stages = looked_up(tmp_path, [NOT_FOUND], exists=exists, proved_at=proved_at)
    assert isinstance(reached.state, expected)
    assert stages.loop.time() >= 30.0, "the settle time was waited for"


@pytest.mark.parametrize(
    ("sent_to", "told"),
    [
        ({"account": "another"}, "another key"),
        ({"base_url": "https://elsewhere.example"}, "another address"),
    ],
)
def test_whoever_could_not_have_found_it_does_not_prove_its_absence(
    tmp_path: Path, sent_to: dict[str, str], told: str
) -> None:
    """A new key may be that of another account, which knows nothing of the first one's tasks."""

    async def story(stages: Stages) -> Attempt:
        stages.api.queries = [NOT_FOUND]
        return await stages.lookup.find(replace(attempt(Lost(1.0, SAID)), **sent_to))

    reached = play(tmp_path, story, proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)
    assert told in reached.state.failure.message


def test_absence_is_not_believed_while_the_request_may_still_go_out(tmp_path: Path) -> None:
    """Whoever meant to send it may have been asleep; a short settle time changes nothing of that."""

    async def story(stages: Stages) -> tuple[Attempt, float]:
        stages.api.queries = [NOT_FOUND]
        begun = stages.loop.time()
        reached = await stages.lookup.find(attempt(Lost(1.0, SAID)), at_least_s=10.0)
        return reached, stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, proved_at=EPOCH, settle_time_s=1.0)
    assert isinstance(reached.state, Intended)
    assert took_s >= 10.0


def test_a_callback_long_after_the_settle_time_brings_the_task_home(tmp_path: Path) -> None:
    """Where look-up proves nothing, the callback at the end of the task is the only way home."""

    async def story(stages: Stages) -> tuple[Attempt, int]:
        hint = Hint()
        stages.api.queries = [NOT_FOUND] * 14 + [found()]
        stages.loop.call_later(300.0, lambda: hint.come("8", None, has_ended=True, names_us=True))
        lost = replace(attempt(Lost(1.0, SAID)), token_hash="00")
        reached = await stages.lookup.find(lost, hint)
        return reached, stages.api.count("query")

    reached, asked = play(tmp_path, story)
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"
    assert asked == 15, "after the settle time it is asked for once a minute"


def test_a_callback_that_never_comes_is_not_waited_for_longer_than_a_task(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[Attempt, float]:
        stages.api.queries = [NOT_FOUND]
        begun = stages.loop.time()
        lost = replace(attempt(Lost(1.0, SAID)), token_hash="00")
        return await stages.lookup.find(lost, Hint()), stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, task_timeout_s=600.0)
    assert isinstance(reached.state, Unconfirmed)
    assert took_s == pytest.approx(600.0, abs=1.0)


def test_silence_is_no_absence(tmp_path: Path) -> None:
    """Nobody answers, though look-up was proved: that says nothing about the task."""
    reached, _ = looked_up(tmp_path, [NO_ANSWER], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


def test_a_last_minute_silence_does_not_turn_into_absence(tmp_path: Path) -> None:
    """Absence takes an answer that says so after the settle time, not one from before it."""
    reached, _ = looked_up(tmp_path, [NOT_FOUND] * 3 + [NO_ANSWER], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


def test_a_task_of_another_attempt_is_not_adopted(tmp_path: Path) -> None:
    """A relay that answers any question with the same task must not hand out somebody's video."""

    async def story(stages: Stages) -> Any:
        await stages.journal.commit(Put(attempt(opened("8"), name="kb-other", job_id="b")))
        stages.api.queries = [found()]
        return await stages.lookup.find(attempt(Lost(1.0, SAID)))

    assert isinstance(play(tmp_path, story, proved_at=EPOCH).state, Unconfirmed)


def test_a_task_of_another_attempt_is_not_adopted_though_it_names_us(tmp_path: Path) -> None:
    """A gateway that mixes up its answers puts the id that was asked for on any task."""

    async def story(stages: Stages) -> Any:
        await stages.journal.commit(Put(attempt(opened("8"), name="kb-other", job_id="b")))
        named = Task("8", TaskStatus.PROCESSING, external_task_id="kb-1")
        stages.api.queries = [Found(named)]
        return await stages.lookup.find(attempt(Lost(1.0, SAID)))

    assert isinstance(play(tmp_path, story, proved_at=EPOCH).state, Unconfirmed)


def test_two_answers_that_name_one_task_at_once_open_one_attempt(tmp_path: Path) -> None:
    """Neither is on disk yet when the second one comes."""

    async def story(stages: Stages) -> list[bool]:
        task = Task("8", TaskStatus.SUBMITTED)
        first, second = attempt(name="kb-1"), attempt(name="kb-2", job_id="b")
        claims = [stages.lookup.claim(task, one) for one in (first, second, first)]
        stages.lookup.unclaim(task)
        return [*claims, stages.lookup.claim(task, second)]

    assert play(tmp_path, story) == [True, False, True, True]


@pytest.mark.parametrize(("proved_at", "is_proved"), [(EPOCH, True), (EPOCH + 3600.0, False)])
def test_a_proof_of_the_future_is_none(tmp_path: Path, proved_at: float, is_proved: bool) -> None:
    """The clock was set back since; when the proof is really from nobody knows."""

    async def story(stages: Stages) -> bool:
        return stages.lookup.is_proved

    assert play(tmp_path, story, proved_at=proved_at) == is_proved


def test_a_task_that_names_another_id_is_not_adopted(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-somebody"))
    reached, _ = looked_up(tmp_path, [answer], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


def test_an_adopted_task_that_names_our_id_is_a_proof(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    _, stages = looked_up(tmp_path, [answer])
    assert stages.lookup.is_proved
    assert stages.proof is not None


def test_an_adopted_task_without_our_id_is_none(tmp_path: Path) -> None:
    _, stages = looked_up(tmp_path, [found()])
    assert not stages.lookup.is_proved


@pytest.mark.parametrize(("task_id", "is_proof"), [("8", True), ("9", False)])
def test_only_the_right_task_proves_look_up(tmp_path: Path, task_id: str, is_proof: bool) -> None:
    async def story(stages: Stages) -> tuple[bool, float | None]:
        stages.api.queries = [found(task_id=task_id)]
        await stages.lookup.prove(attempt(opened("8")))
        return stages.lookup.is_proved, stages.store.proved_at(URL, ACCOUNT)

    proved, remembered = play(tmp_path, story)
    assert proved is is_proof
    assert (remembered is not None) is is_proof


def test_proof_is_tried_a_few_times_only(tmp_path: Path) -> None:
    """Where look-up is not supported, every run pays a handful of GETs and no more."""

    async def story(stages: Stages) -> int:
        stages.api.queries = [NOT_FOUND]
        while stages.lookup.wants_proof:
            await stages.lookup.prove(attempt(opened("8")))
        return stages.api.count("query")

    assert play(tmp_path, story) == PROOF_TRIES


@pytest.mark.parametrize(
    ("status", "proved_at", "is_quick"),
    [(404, None, True), (405, None, True), (404, EPOCH, False), (502, None, False)],
)
def test_where_look_up_is_not_served_it_is_not_waited_for(
    tmp_path: Path, status: int, proved_at: float | None, is_quick: bool
) -> None:
    """A proxy's page will be the same in half an hour; a server in trouble may come back."""
    page = Unavailable(replace(SAID, http_status=status))

    async def story(stages: Stages) -> tuple[Any, float]:
        begun = stages.loop.time()
        stages.api.queries = [page]
        reached = await stages.lookup.find(attempt(Lost(1.0, SAID)))
        return reached, stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, proved_at=proved_at)
    assert isinstance(reached.state, Unconfirmed)
    assert (took_s < 60.0) == is_quick
