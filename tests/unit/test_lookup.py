"""Look-up by our own id: what "found" and "not found" are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch.output.changes import Put
from scripted import ACCOUNT, NO_ANSWER, NOT_FOUND, SAID, URL, Stages, attempt, found, opened, play
from virtual_time import EPOCH

from batch.callbacks.hints import Hint
from batch.job import Attempt, Failure, FailureKind, Intended, Lost, Open, Unconfirmed
from batch.provider.answers import Found, Task, TaskStatus, Unavailable
from batch.run.lookup import PROOF_LASTS_S, PROOF_TRIES


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
    assert reached.state.since == pytest.approx(EPOCH + 30.0, abs=0.2)
    assert stages.loop.time() == pytest.approx(30.0, abs=0.2), "the settle time was waited for"


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

    async def story(stages: Stages) -> tuple[Attempt, list[float]]:
        hint = Hint()
        asked_at: list[float] = []

        async def query(identifier: str) -> Any:
            asked_at.append(stages.loop.time())
            return found() if identifier == "8" else NOT_FOUND

        stages.api.query = query  # type: ignore[method-assign]
        stages.loop.call_later(300.0, lambda: hint.come("8", None, has_ended=True, names_us=True))
        lost = replace(attempt(Lost(1.0, SAID)), token_hash="00")
        return await stages.lookup.find(lost, hint), asked_at

    reached, asked_at = play(tmp_path, story)
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"
    assert asked_at[-1] == pytest.approx(300.0, abs=0.1), "the callback wakes whoever waits"
    assert sum(at <= 30.0 for at in asked_at) >= 7
    later = [at for at in asked_at if 40.0 < at < 299.0]
    assert 3 <= len(later) <= 7, "after the settle time it is asked for about once a minute"


def test_a_callback_that_never_comes_is_not_waited_for_longer_than_a_task(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[Attempt, float]:
        stages.api.queries = [NOT_FOUND]
        begun = stages.loop.time()
        lost = replace(attempt(Lost(1.0, SAID)), token_hash="00")
        return await stages.lookup.find(lost, Hint()), stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, task_timeout_s=600.0)
    assert isinstance(reached.state, Unconfirmed)
    assert took_s == pytest.approx(600.0, abs=1.0)


@pytest.mark.parametrize(
    ("proved_at", "token_hash", "is_hinted"),
    [(EPOCH, "00", True), (None, None, True), (None, "00", False)],
    ids=["look-up is proved", "no callback was asked for", "nobody listens"],
)
def test_a_callback_that_can_say_nothing_new_is_not_waited_for(
    tmp_path: Path, proved_at: float | None, token_hash: str | None, is_hinted: bool
) -> None:
    async def story(stages: Stages) -> float:
        stages.api.queries = [NOT_FOUND]
        begun = stages.loop.time()
        lost = replace(attempt(Lost(1.0, SAID)), token_hash=token_hash)
        await stages.lookup.find(lost, Hint() if is_hinted else None)
        return stages.loop.time() - begun

    assert play(tmp_path, story, proved_at=proved_at) == pytest.approx(30.0, abs=0.2)


def test_a_short_settle_time_is_kept_and_used_for_more_than_one_look(tmp_path: Path) -> None:
    reached, stages = looked_up(tmp_path, [NOT_FOUND], proved_at=EPOCH, settle_time_s=0.8)
    assert isinstance(reached.state, Intended)
    assert stages.loop.time() == pytest.approx(0.8, abs=0.1)
    assert stages.api.count("query") >= 4


@pytest.mark.parametrize("token_hash", [None, "00"])
def test_a_provider_that_is_silent_for_minutes_is_asked_until_it_answers(
    tmp_path: Path, token_hash: str | None
) -> None:
    """The settle time is for tasks that are slow to appear, not for answers that do not come."""

    async def story(stages: Stages) -> tuple[Attempt, float]:
        async def query(_identifier: str) -> Any:
            return found() if stages.loop.time() > 200.0 else NO_ANSWER

        stages.api.query = query  # type: ignore[method-assign]
        lost = replace(attempt(Lost(1.0, SAID)), token_hash=token_hash)
        return await stages.lookup.find(lost, Hint()), stages.loop.time()

    reached, ended = play(tmp_path, story)
    assert isinstance(reached.state, Open)
    assert ended < 206.0


def test_a_relay_that_mixes_up_its_answers_for_minutes_is_asked_until_it_does_not(
    tmp_path: Path,
) -> None:
    """Another's task is no answer to whether ours exists."""

    async def story(stages: Stages) -> Attempt:
        async def query(_identifier: str) -> Any:
            name = "kb-1" if stages.loop.time() > 200.0 else "kb-somebody"
            return Found(Task("8", TaskStatus.PROCESSING, external_task_id=name))

        stages.api.query = query  # type: ignore[method-assign]
        return await stages.lookup.find(attempt(Lost(1.0, SAID)))

    assert isinstance(play(tmp_path, story).state, Open)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_provider_that_is_busy_or_down_is_asked_for_as_long_as_a_task(
    tmp_path: Path, status: int
) -> None:
    """Unlike a refusal that is final, where look-up may not be served at all."""
    busy = Unavailable(replace(SAID, http_status=status))
    reached, stages = looked_up(tmp_path, [busy], task_timeout_s=120.0)
    assert isinstance(reached.state, Unconfirmed)
    assert stages.loop.time() == pytest.approx(120.0, abs=0.2)


@pytest.mark.parametrize(
    ("answer", "exists", "sent_to", "why"),
    [
        (
            NOT_FOUND,
            False,
            {"base_url": "https://elsewhere"},
            "it was submitted to another address",
        ),
        (NOT_FOUND, False, {"account": "another"}, "it was submitted with another key"),
        (NOT_FOUND, True, {}, "the provider says that the task exists"),
        (NOT_FOUND, False, {}, "look-up by external id has not been seen to work at this address"),
        (NO_ANSWER, False, {}, "the answer to its submission was lost, and nobody answers"),
    ],
    ids=["another address", "another key", "exists", "not found", "silence"],
)
def test_what_is_unconfirmed_says_why_and_what_was_the_cause(
    tmp_path: Path, answer: Any, exists: bool, sent_to: dict[str, str], why: str
) -> None:
    cause = Failure(FailureKind.NETWORK, "the line was cut", "17", 502, "r-7")

    async def story(stages: Stages) -> Any:
        stages.api.queries = [answer]
        lost = replace(attempt(Lost(1.0, cause, exists=exists)), **sent_to)
        return (await stages.lookup.find(lost)).state

    state = play(tmp_path, story)
    assert isinstance(state, Unconfirmed)
    assert state.exists is exists
    assert state.failure.kind is FailureKind.UNCONFIRMED
    assert why in state.failure.message
    assert state.failure.message.endswith(
        "; it is looked for again in the next run (cause: the line was cut)"
    )
    failure = state.failure
    assert (failure.code, failure.http_status, failure.request_id) == ("17", 502, "r-7")


def test_an_adopted_task_is_as_old_as_the_provider_says(tmp_path: Path) -> None:
    """Its age decides how long it is waited for, and for how long its video is kept."""
    task = Task("8", TaskStatus.PROCESSING, created_at=EPOCH - 60.0, request_id="r-8")
    reached, _ = looked_up(tmp_path, [Found(task)])
    assert reached.state == Open("8", EPOCH - 60.0, "r-8")


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
