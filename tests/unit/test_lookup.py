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
from batch.callbacks.hints import Hint, News
from batch.events import Adopted, AnswerLost
from batch.job import Failure, FailureKind
from batch.output.state import Put
from batch.plan import Policy
from batch.provider.answers import Found, Task, TaskStatus, Unavailable
from batch.run.proof import PROOF_LASTS_S

LOST = attempt(Lost(1.0, Doubt(SAID)))
OTHERS = attempt(opened("8"), name="kb-other", job_id="b")


def looked_up(
    root: Path,
    answers: list[Any],
    lost: Attempt = LOST,
    *,
    known: Attempt | None = None,
    at_least_s: float = 0.0,
    **how: Any,
) -> tuple[Any, Stages]:
    """Look up *lost*, beside a *known* attempt; virtual time begins at 0 with it."""

    async def story(stages: Stages) -> tuple[Attempt, Stages]:
        if known is not None:
            await stages.state.commit(Put(known))
        stages.api.queries = list(answers)
        reached = await stages.run.lookup.find(lost, Hint(), at_least_s=at_least_s)
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
def test_absence_is_believed_only_with_proof(
    tmp_path: Path, proved_at: float | None, exists: bool, expected: type
) -> None:
    lost = attempt(Lost(1.0, Doubt(SAID, exists)))
    reached, stages = looked_up(tmp_path, [NOT_FOUND], lost, proved_at=proved_at)
    assert isinstance(reached.state, expected)
    assert reached.state.since == pytest.approx(EPOCH + 30.0, abs=0.2)
    assert stages.loop.time() == pytest.approx(30.0, abs=0.2), "the settle time was waited for"


@pytest.mark.parametrize(
    ("sent_to", "told"),
    [
        ({"key_hash": "another"}, "another key"),
        ({"base_url": "https://elsewhere.example"}, "another base URL"),
    ],
)
def test_another_account_proves_no_absence(
    tmp_path: Path, sent_to: dict[str, str], told: str
) -> None:
    """A new key may be that of another account, which knows nothing of the first one's tasks."""
    lost = replace(LOST, account=replace(ACCOUNT, **sent_to))
    reached, _ = looked_up(tmp_path, [NOT_FOUND], lost, proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)
    assert told in reached.doubt.failure.message


@pytest.mark.parametrize("at_least_s", [0.0, 10.0])
def test_absence_waits_for_requests_on_their_way(tmp_path: Path, at_least_s: float) -> None:
    """The run that meant to send it may be asleep; a short settle time changes nothing of that."""
    how = {"at_least_s": at_least_s, "settle_time_s": 1.0}
    reached, stages = looked_up(tmp_path, [NOT_FOUND], proved_at=EPOCH, **how)
    assert isinstance(reached.state, Intended)
    assert 0.0 <= stages.loop.time() - max(at_least_s, 1.0) <= 0.2


def test_absence_is_as_old_as_its_question(tmp_path: Path) -> None:
    """A process that falls asleep over the answer may wake up when the request has arrived."""

    async def story(stages: Stages) -> Attempt:
        asked: list[str] = []

        async def query(identifier: str) -> Any:
            asked.append(identifier)
            if len(asked) > 1:
                return found()
            await asyncio.sleep(300.0)
            return NOT_FOUND

        stages.api.query = query  # type: ignore[method-assign]
        return await stages.run.lookup.find(LOST, Hint())

    assert isinstance(play(tmp_path, story, proved_at=EPOCH).state, Open)


def test_a_late_callback_names_the_lost_task(tmp_path: Path) -> None:
    """Where look-up proves nothing, the callback at the end of the task is the only way home."""

    async def story(stages: Stages) -> tuple[Attempt, list[float]]:
        hint = Hint()
        asked_at: list[float] = []

        async def query(identifier: str) -> Any:
            asked_at.append(stages.loop.time())
            return found() if identifier == "8" else NOT_FOUND

        stages.api.query = query  # type: ignore[method-assign]
        stages.loop.call_later(
            300.0, lambda: hint.record(News("8", None, has_ended=True, names_us=True))
        )
        lost = replace(LOST, token_hash="00")
        return await stages.run.lookup.find(lost, hint), asked_at

    reached, asked_at = play(tmp_path, story)
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"
    assert asked_at[-1] == pytest.approx(300.0, abs=0.1), "the callback ends the wait"
    assert sum(at <= 30.0 for at in asked_at) >= 7
    later = [at for at in asked_at if 40.0 < at < 299.0]
    assert 3 <= len(later) <= 7, "after the settle time it is asked for about once a minute"


def test_a_missing_callback_is_awaited_until_task_timeout(tmp_path: Path) -> None:
    lost = replace(LOST, token_hash="00")
    reached, stages = looked_up(tmp_path, [NOT_FOUND], lost, task_timeout_s=600.0)
    assert isinstance(reached.state, Unconfirmed)
    assert stages.loop.time() == pytest.approx(600.0, abs=1.0)


@pytest.mark.parametrize(
    ("proved_at", "token_hash"),
    [(EPOCH, "00"), (None, None)],
    ids=["look-up is proved", "no callback was asked for"],
)
def test_a_useless_callback_is_not_awaited(
    tmp_path: Path, proved_at: float | None, token_hash: str | None
) -> None:
    lost = replace(LOST, token_hash=token_hash)
    _, stages = looked_up(tmp_path, [NOT_FOUND], lost, proved_at=proved_at)
    assert stages.loop.time() == pytest.approx(30.0, abs=0.2)


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
        lost = replace(LOST, token_hash=token_hash)
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
        return await stages.run.lookup.find(LOST, Hint())

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
            "it was submitted to another base URL",
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
    lost = attempt(Lost(1.0, Doubt(cause, exists)))
    lost = replace(lost, account=replace(ACCOUNT, **sent_to))
    reached, _ = looked_up(tmp_path, [answer], lost)
    assert isinstance(reached.state, Unconfirmed)
    failure = reached.doubt.failure
    assert reached.doubt.exists is exists
    assert failure.kind is FailureKind.UNCONFIRMED
    assert why in failure.message
    assert failure.message.endswith(" (cause: the line was cut)")
    assert (failure.code, failure.http_status, failure.request_id) == ("17", 502, "r-7")


def test_an_adopted_task_keeps_the_providers_age(tmp_path: Path) -> None:
    """Its age decides how long it is waited for, and for how long its video is kept."""
    task = Task("8", TaskStatus.PROCESSING, created_at=EPOCH - 60.0, request_id="r-8")
    reached, _ = looked_up(tmp_path, [Found(task)])
    assert reached.state == Open(PaidTask("8", EPOCH - 60.0, "r-8"))


@pytest.mark.parametrize("before", [0, 3])
def test_silence_is_no_absence(tmp_path: Path, before: int) -> None:
    """Though look-up was proved: it takes an answer after the settle time, not one from before it."""
    reached, _ = looked_up(tmp_path, [NOT_FOUND] * before + [NO_ANSWER], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


@pytest.mark.parametrize("names", [None, "kb-1"])
def test_a_task_of_another_attempt_is_not_adopted(tmp_path: Path, names: str | None) -> None:
    """A relay that answers with any task, and puts the id that was asked for on it."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id=names))
    reached, _ = looked_up(tmp_path, [answer], known=OTHERS, proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


@pytest.mark.parametrize(
    ("sent_at", "created_at", "is_new"),
    [
        (None, None, False),
        (0.0, None, True),
        (EPOCH, EPOCH + 0.3, True),
        (EPOCH, EPOCH - 60.0, False),
    ],
)
def test_a_lost_attempt_and_its_adoption_are_committed(
    tmp_path: Path, sent_at: float | None, created_at: float | None, is_new: bool
) -> None:
    """Each is on disk before it is reported; a task from before the request is an earlier run's."""

    async def story(stages: Stages) -> tuple[list[Any], list[Any]]:
        stages.api.queries = [Found(replace(found().task, created_at=created_at))]
        lost = await stages.run.lookup.lose(attempt(), SAID)
        await stages.run.lookup.find(lost, Hint(), sent_at=sent_at)
        return stages.events, [put.attempt.phase for (put,) in stages.state.commits]  # type: ignore[union-attr]

    told, committed = play(tmp_path, story)
    assert told == [AnswerLost("a", "kb-1", SAID), Adopted("a", "8", "kb-1", is_new)]
    assert committed == ["Lost", "Open"]


@pytest.mark.parametrize(("is_allowed", "expected"), [(False, Unconfirmed), (True, Intended)])
def test_a_resubmission_on_request_is_never_absent(
    tmp_path: Path, is_allowed: bool, expected: type
) -> None:
    """Two requests may be under way; only a person can ask for a third."""
    lost = attempt(Lost(1.0, Doubt(SAID, on_request=True)))
    policy = Policy(resubmit_unconfirmed=is_allowed)
    reached, _ = looked_up(tmp_path, [NOT_FOUND], lost, proved_at=EPOCH, policy=policy)
    assert isinstance(reached.state, expected)
    assert reached.doubt.on_request


def test_a_task_naming_another_id_is_not_adopted(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-another"))
    reached, _ = looked_up(tmp_path, [answer], proved_at=EPOCH)
    assert isinstance(reached.state, Unconfirmed)


def test_an_adopted_task_naming_us_proves_it(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    _, stages = looked_up(tmp_path, [answer])
    assert stages.run.lookup.is_proved
    assert ACCOUNT in stages.state.proofs


def test_an_adopted_task_without_id_proves_nothing(tmp_path: Path) -> None:
    _, stages = looked_up(tmp_path, [found()])
    assert not stages.run.lookup.is_proved


@pytest.mark.parametrize(
    ("status", "proved_at", "is_quick"),
    [(404, None, True), (405, None, True), (404, EPOCH, False), (502, None, False)],
)
def test_an_unserved_look_up_is_not_awaited(
    tmp_path: Path, status: int, proved_at: float | None, is_quick: bool
) -> None:
    """A proxy's page will be the same in half an hour; a server in trouble may come back."""
    page = Unavailable(replace(SAID, http_status=status))
    reached, stages = looked_up(tmp_path, [page], proved_at=proved_at)
    assert isinstance(reached.state, Unconfirmed)
    assert (stages.loop.time() < 60.0) == is_quick
