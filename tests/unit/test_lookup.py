"""Look-up by our own id: what "found" and "not found" are worth."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import ACCOUNT, NO_ANSWER, NOT_FOUND, SAID, Stages, attempt, found, opened, play
from virtual_time import EPOCH

from batch.attempt import Attempt, Doubt, Intended, Lost, Open, PaidTask, Unconfirmed
from batch.callbacks.hints import Hint
from batch.events import Adopted, AnswerLost
from batch.job import Failure, FailureKind
from batch.output.state import Put
from batch.plan import Policy
from batch.provider.answers import Created, Found, Task, TaskStatus, Unavailable
from batch.run.lookup import PROOF_LASTS_S, PROOF_TRIES


def looked_up(root: Path, answers: list[Any], *, exists: bool = False, **how: Any) -> Any:
    async def story(stages: Stages) -> tuple[Attempt, Stages]:
        stages.api.queries = list(answers)
        lost = attempt(Lost(1.0, Doubt(SAID, exists=exists)))
        return await stages.run.lookup.find(lost, Hint()), stages

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
def test_absence_is_believed_only_with_proof(
    tmp_path: Path, proved_at: float | None, exists: bool, expected: type
) -> None:
    reached, stages = looked_up(tmp_path, [NOT_FOUND], exists=exists, proved_at=proved_at)
    assert isinstance(reached.state, expected)
    assert reached.state.since == pytest.approx(EPOCH + 30.0, abs=0.2)
    assert stages.loop.time() == pytest.approx(30.0, abs=0.2), "the settle time was waited for"


@pytest.mark.parametrize(
    ("sent_to", "told"),
    [
        ({"key_hash": "another"}, "another key"),
        ({"base_url": "https://elsewhere.example"}, "another address"),
    ],
)
def test_another_account_proves_no_absence(
    tmp_path: Path, sent_to: dict[str, str], told: str
) -> None:
    """A new key may be that of another account, which knows nothing of the first one's tasks."""

    async def story(stages: Stages) -> Attempt:
        stages.api.queries = [NOT_FOUND]
        lost = replace(attempt(Lost(1.0, Doubt(SAID))), account=replace(ACCOUNT, **sent_to))
        return await stages.run.lookup.find(lost, Hint())

    reached = play(tmp_path, story, proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)
    assert told in reached.state.doubt.failure.message


@pytest.mark.parametrize("at_least_s", [0.0, 10.0])
def test_absence_waits_for_requests_on_their_way(tmp_path: Path, at_least_s: float) -> None:
    """The run that meant to send it may be asleep; a short settle time changes nothing of that."""

    async def story(stages: Stages) -> tuple[Attempt, float]:
        stages.api.queries = [NOT_FOUND]
        begun = stages.loop.time()
        lost = attempt(Lost(1.0, Doubt(SAID)))
        reached = await stages.run.lookup.find(lost, Hint(), at_least_s=at_least_s)
        return reached, stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, proved_at=EPOCH, settle_time_s=1.0)
    assert isinstance(reached.state, Intended)
    assert 0.0 <= took_s - max(at_least_s, 1.0) <= 0.2


def test_a_late_callback_names_the_lost_task(tmp_path: Path) -> None:
    """Where look-up proves nothing, the callback at the end of the task is the only way home."""

    async def story(stages: Stages) -> tuple[Attempt, list[float]]:
        hint = Hint()
        asked_at: list[float] = []

        async def query(identifier: str) -> Any:
            asked_at.append(stages.loop.time())
            return found() if identifier == "8" else NOT_FOUND

        stages.api.query = query  # type: ignore[method-assign]
        stages.loop.call_later(300.0, lambda: hint.record("8", None, has_ended=True, names_us=True))
        lost = replace(attempt(Lost(1.0, Doubt(SAID))), token_hash="00")
        return await stages.run.lookup.find(lost, hint), asked_at

    reached, asked_at = play(tmp_path, story)
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"
    assert asked_at[-1] == pytest.approx(300.0, abs=0.1), "the callback ends the wait"
    assert sum(at <= 30.0 for at in asked_at) >= 7
    later = [at for at in asked_at if 40.0 < at < 299.0]
    assert 3 <= len(later) <= 7, "after the settle time it is asked for about once a minute"


def test_a_missing_callback_is_awaited_until_task_timeout(tmp_path: Path) -> None:
    async def story(stages: Stages) -> tuple[Attempt, float]:
        stages.api.queries = [NOT_FOUND]
        begun = stages.loop.time()
        lost = replace(attempt(Lost(1.0, Doubt(SAID))), token_hash="00")
        return await stages.run.lookup.find(lost, Hint()), stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, task_timeout_s=600.0)
    assert isinstance(reached.state, Unconfirmed)
    assert took_s == pytest.approx(600.0, abs=1.0)


@pytest.mark.parametrize(
    ("proved_at", "token_hash"),
    [(EPOCH, "00"), (None, None)],
    ids=["look-up is proved", "no callback was asked for"],
)
def test_a_useless_callback_is_not_awaited(
    tmp_path: Path, proved_at: float | None, token_hash: str | None
) -> None:
    async def story(stages: Stages) -> float:
        stages.api.queries = [NOT_FOUND]
        begun = stages.loop.time()
        lost = replace(attempt(Lost(1.0, Doubt(SAID))), token_hash=token_hash)
        await stages.run.lookup.find(lost, Hint())
        return stages.loop.time() - begun

    assert play(tmp_path, story, proved_at=proved_at) == pytest.approx(30.0, abs=0.2)


def test_a_short_settle_time_allows_several_queries(tmp_path: Path) -> None:
    reached, stages = looked_up(tmp_path, [NOT_FOUND], proved_at=EPOCH, settle_time_s=0.8)
    assert isinstance(reached.state, Intended)
    assert stages.loop.time() == pytest.approx(0.8, abs=0.1)
    assert stages.api.count("query") >= 4


@pytest.mark.parametrize("token_hash", [None, "00"])
def test_a_silent_provider_is_queried_until_it_answers(
    tmp_path: Path, token_hash: str | None
) -> None:
    """The settle time is for tasks that are slow to appear, not for answers that do not come."""

    async def story(stages: Stages) -> tuple[Attempt, float]:
        async def query(_identifier: str) -> Any:
            return found() if stages.loop.time() > 200.0 else NO_ANSWER

        stages.api.query = query  # type: ignore[method-assign]
        lost = replace(attempt(Lost(1.0, Doubt(SAID))), token_hash=token_hash)
        return await stages.run.lookup.find(lost, Hint()), stages.loop.time()

    reached, ended = play(tmp_path, story)
    assert isinstance(reached.state, Open)
    assert ended < 206.0


def test_a_relays_foreign_answers_are_outwaited(
    tmp_path: Path,
) -> None:
    """Another's task is no answer to whether ours exists."""

    async def story(stages: Stages) -> Attempt:
        async def query(_identifier: str) -> Any:
            name = "kb-1" if stages.loop.time() > 200.0 else "kb-another"
            return Found(Task("8", TaskStatus.PROCESSING, external_task_id=name))

        stages.api.query = query  # type: ignore[method-assign]
        return await stages.run.lookup.find(attempt(Lost(1.0, Doubt(SAID))), Hint())

    assert isinstance(play(tmp_path, story).state, Open)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_provider_is_queried_until_task_timeout(tmp_path: Path, status: int) -> None:
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
        (NOT_FOUND, False, {"key_hash": "another"}, "it was submitted with another key"),
        (NOT_FOUND, True, {}, "the provider says that the task exists"),
        (NOT_FOUND, False, {}, "look-up by external id has not been seen to work at this address"),
        (
            NO_ANSWER,
            False,
            {},
            "the answer to its submission was lost, and look-up is not answered",
        ),
    ],
    ids=["another address", "another key", "exists", "not found", "silence"],
)
def test_an_unconfirmed_attempt_reports_reason_and_cause(
    tmp_path: Path, answer: Any, exists: bool, sent_to: dict[str, str], why: str
) -> None:
    cause = Failure(FailureKind.NETWORK, "the line was cut", "17", 502, "r-7")

    async def story(stages: Stages) -> Any:
        stages.api.queries = [answer]
        lost = attempt(Lost(1.0, Doubt(cause, exists=exists)))
        lost = replace(lost, account=replace(ACCOUNT, **sent_to))
        return (await stages.run.lookup.find(lost, Hint())).state

    state = play(tmp_path, story)
    assert isinstance(state, Unconfirmed)
    failure = state.doubt.failure
    assert state.doubt.exists is exists
    assert failure.kind is FailureKind.UNCONFIRMED
    assert why in failure.message
    assert failure.message.endswith("; the next run looks for it again (cause: the line was cut)")
    assert (failure.code, failure.http_status, failure.request_id) == ("17", 502, "r-7")


def test_an_adopted_task_keeps_the_providers_age(tmp_path: Path) -> None:
    """Its age decides how long it is waited for, and for how long its video is kept."""
    task = Task("8", TaskStatus.PROCESSING, created_at=EPOCH - 60.0, request_id="r-8")
    reached, _ = looked_up(tmp_path, [Found(task)])
    assert reached.state == Open(PaidTask("8", EPOCH - 60.0, "r-8"))


def test_silence_is_no_absence(tmp_path: Path) -> None:
    """No answer, though look-up was proved, says nothing about the task."""
    reached, _ = looked_up(tmp_path, [NO_ANSWER], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


def test_silence_at_the_end_is_no_absence(tmp_path: Path) -> None:
    """Absence takes an answer that says so after the settle time, not one from before it."""
    reached, _ = looked_up(tmp_path, [NOT_FOUND] * 3 + [NO_ANSWER], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


def test_a_task_of_another_attempt_is_not_adopted(tmp_path: Path) -> None:
    """A relay that answers any question with the same task must not hand out another job's video."""

    async def story(stages: Stages) -> Any:
        await stages.state.commit(Put(attempt(opened("8"), name="kb-other", job_id="b")))
        stages.api.queries = [found()]
        return await stages.run.lookup.find(attempt(Lost(1.0, Doubt(SAID))), Hint())

    assert isinstance(play(tmp_path, story, proved_at=EPOCH).state, Unconfirmed)


def test_another_attempts_task_naming_us_is_not_adopted(tmp_path: Path) -> None:
    """A gateway that mixes up its answers puts the id that was asked for on any task."""

    async def story(stages: Stages) -> Any:
        await stages.state.commit(Put(attempt(opened("8"), name="kb-other", job_id="b")))
        named = Task("8", TaskStatus.PROCESSING, external_task_id="kb-1")
        stages.api.queries = [Found(named)]
        return await stages.run.lookup.find(attempt(Lost(1.0, Doubt(SAID))), Hint())

    assert isinstance(play(tmp_path, story, proved_at=EPOCH).state, Unconfirmed)


def test_one_task_is_claimed_by_one_attempt(tmp_path: Path) -> None:
    """Neither attempt is on disk when both claims come, and the state takes its time to answer."""

    async def story(stages: Stages) -> list[bool]:
        task, lookup = Task("8", TaskStatus.SUBMITTED), stages.run.lookup
        first, second = attempt(name="kb-1"), attempt(name="kb-2", job_id="b")
        owner_of = stages.state.owner_of

        async def slow(task_id: str) -> str | None:
            await asyncio.sleep(1.0)
            return await owner_of(task_id)

        stages.state.owner_of = slow  # type: ignore[method-assign]
        claims = await asyncio.gather(*(lookup.claim(task, one) for one in (first, second, first)))
        lookup.unclaim(task)
        return [*claims, await lookup.claim(task, second)]

    assert play(tmp_path, story) == [True, False, True, True]


def test_a_task_on_record_is_claimed_by_its_owner(tmp_path: Path) -> None:
    """A claim that is refused leaves the task to the attempt that it is recorded for."""

    async def story(stages: Stages) -> list[bool]:
        owner, other = attempt(opened("8")), attempt(name="kb-2", job_id="b")
        await stages.state.commit(Put(owner))
        task = Task("8", TaskStatus.SUBMITTED)
        return [await stages.run.lookup.claim(task, one) for one in (other, owner)]

    assert play(tmp_path, story) == [False, True]


@pytest.mark.parametrize("owner", [None, "kb-2"])
def test_one_task_in_two_answers_opens_one_attempt(tmp_path: Path, owner: str | None) -> None:
    """A relay answers two submissions with one task, whether it names an attempt or not."""

    async def story(stages: Stages) -> list[str | None]:
        stages.api.submits = [Created(Task("8", TaskStatus.SUBMITTED, external_task_id=owner))]
        stages.api.queries = [NOT_FOUND]
        both = attempt(name="kb-1"), attempt(name="kb-2", job_id="b")
        await asyncio.gather(*(stages.submit(one) for one in both))
        return [
            one.external_task_id for one in both if stages.phase_of(one.external_task_id) == "Open"
        ]

    assert play(tmp_path, story, task_timeout_s=60.0) == [owner or "kb-1"]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_lost_attempt_and_its_adoption_are_committed(tmp_path: Path, is_new: bool) -> None:
    """Each is on disk before it is reported."""

    async def story(stages: Stages) -> tuple[list[Any], list[Any]]:
        stages.api.queries = [found()]
        lost = await stages.run.lookup.lose(attempt(), SAID)
        await stages.run.lookup.find(lost, Hint(), is_new=is_new)
        return stages.events, [put.attempt.phase for (put,) in stages.state.commits]  # type: ignore[union-attr]

    told, committed = play(tmp_path, story)
    assert told == [AnswerLost("a", "kb-1", SAID), Adopted("a", "8", "kb-1", is_new)]
    assert committed == ["Lost", "Open"]


@pytest.mark.parametrize(("is_allowed", "expected"), [(False, Unconfirmed), (True, Intended)])
def test_a_resubmission_on_request_is_never_absent(
    tmp_path: Path, is_allowed: bool, expected: type
) -> None:
    """Two requests may be under way; only a person can ask for a third."""

    async def story(stages: Stages) -> Attempt:
        stages.api.queries = [NOT_FOUND]
        lost = attempt(Lost(1.0, Doubt(SAID, on_request=True)))
        return await stages.run.lookup.find(lost, Hint())

    policy = Policy(resubmit_unconfirmed=is_allowed)
    reached = play(tmp_path, story, proved_at=EPOCH, policy=policy)
    assert isinstance(reached.state, expected)
    assert reached.doubt is not None
    assert reached.doubt.on_request


@pytest.mark.parametrize(("proved_at", "is_proved"), [(EPOCH, True), (EPOCH + 3600.0, False)])
def test_a_proof_of_the_future_is_none(tmp_path: Path, proved_at: float, is_proved: bool) -> None:
    """The clock was set back since; the age of the proof is not known."""

    async def story(stages: Stages) -> bool:
        return stages.run.lookup.is_proved

    assert play(tmp_path, story, proved_at=proved_at) == is_proved


def test_a_task_naming_another_id_is_not_adopted(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-another"))
    reached, _ = looked_up(tmp_path, [answer], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


def test_an_adopted_task_naming_our_id_proves_look_up(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    _, stages = looked_up(tmp_path, [answer])
    assert stages.run.lookup.is_proved
    assert ACCOUNT in stages.state.proofs


def test_an_adopted_task_without_id_proves_nothing(tmp_path: Path) -> None:
    _, stages = looked_up(tmp_path, [found()])
    assert not stages.run.lookup.is_proved


@pytest.mark.parametrize(("task_id", "is_proof"), [("8", True), ("9", False)])
def test_only_the_right_task_proves_look_up(tmp_path: Path, task_id: str, is_proof: bool) -> None:
    async def story(stages: Stages) -> tuple[bool, float | None]:
        stages.api.queries = [found(task_id=task_id)]
        await stages.run.lookup.prove(attempt(opened("8")))
        return stages.run.lookup.is_proved, stages.state.proofs.get(ACCOUNT)

    proved, remembered = play(tmp_path, story)
    assert proved is is_proof
    assert (remembered is not None) is is_proof


def test_proof_is_tried_a_few_times_only(tmp_path: Path) -> None:
    """Where look-up is not supported, every run pays a handful of GETs and no more."""

    async def story(stages: Stages) -> int:
        stages.api.queries = [NOT_FOUND]
        while stages.run.lookup.wants_proof:
            await stages.run.lookup.prove(attempt(opened("8")))
        return stages.api.count("query")

    assert play(tmp_path, story) == PROOF_TRIES


@pytest.mark.parametrize(
    ("status", "proved_at", "is_quick"),
    [(404, None, True), (405, None, True), (404, EPOCH, False), (502, None, False)],
)
def test_an_unserved_look_up_is_not_awaited(
    tmp_path: Path, status: int, proved_at: float | None, is_quick: bool
) -> None:
    """A proxy's page will be the same in half an hour; a server in trouble may come back."""
    page = Unavailable(replace(SAID, http_status=status))

    async def story(stages: Stages) -> tuple[Any, float]:
        begun = stages.loop.time()
        stages.api.queries = [page]
        reached = await stages.run.lookup.find(attempt(Lost(1.0, Doubt(SAID))), Hint())
        return reached, stages.loop.time() - begun

    reached, took_s = play(tmp_path, story, proved_at=proved_at)
    assert isinstance(reached.state, Unconfirmed)
    assert (took_s < 60.0) == is_quick
