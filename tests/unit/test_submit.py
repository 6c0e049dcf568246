"""Submit: what each answer to the request that costs money leads to, in memory and on disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from scripted import NOT_FOUND, SAID, TOO_FAST, Stages, attempt, found, opened, play
from virtual_time import EPOCH

from batch.attempt import Attempt, Failed, Lost, Open, Unconfirmed
from batch.callbacks.hints import Hint, News
from batch.events import Adopted, AnswerLost, Submitted
from batch.job import Failure, FailureKind
from batch.output.state import Put
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Refused,
    Saturated,
    Stale,
    Task,
    TaskStatus,
    Unavailable,
    Unsent,
)
from batch.run.address import Address
from batch.run.gate import SEND_WITHIN_S
from batch.run.stop import StopReason
from batch.run.submit import ANOTHERS

CREATED = Created(Task("8", TaskStatus.SUBMITTED))
CREDIT = AccountRefused(Failure(FailureKind.ACCOUNT, "no credit", "1102", 429))


def submitted(root: Path, answers: list[Any], queries: list[Any], **how: Any) -> tuple[Any, Stages]:
    async def story(stages: Stages) -> tuple[Attempt | None, Stages]:
        stages.api.submits, stages.api.queries = list(answers), list(queries)
        reached = await stages.submit(attempt())
        return reached, stages

    return play(root, story, **how)


def test_the_intent_is_committed_before_the_request(tmp_path: Path) -> None:
    """A run that dies between the two leaves a trace of what may have been paid for."""
    seen: list[str | None] = []

    async def story(stages: Stages) -> None:
        async def look() -> None:
            seen.append(stages.phase_of())

        stages.api.submits, stages.api.queries = [CREATED], [NOT_FOUND]
        stages.api.on_submit = look
        await stages.submit(attempt())

    play(tmp_path, story)
    assert seen == ["Intended"]


@dataclass
class Request:
    """A request as the provider's door saw it."""

    body: dict[str, Any]
    left_s: float
    resent: bool
    at: float


def watched(stages: Stages) -> list[Request]:
    """Return the list that every request of these stages will be in."""
    requests: list[Request] = []
    answer = stages.api.submit

    async def submit(body: dict[str, Any], *, not_after: float, resent: bool) -> Any:
        now = stages.clock.monotonic()
        requests.append(Request(dict(body), not_after - now, resent, stages.loop.time()))
        return await answer(body, not_after=not_after, resent=resent)

    stages.api.submit = submit  # type: ignore[method-assign]
    return requests


def test_a_request_expires_ten_seconds_after_its_intent(tmp_path: Path) -> None:
    """A later run that finds the intent waits as long; each try has an intent of its own."""

    async def story(stages: Stages) -> list[Request]:
        requests = watched(stages)
        stages.api.submits, stages.api.queries = [Unsent(SAID)] * 6 + [CREATED], [NOT_FOUND]
        await stages.submit(attempt())
        return requests

    requests = play(tmp_path, story)
    assert len(requests) == 7
    assert all(0 < SEND_WITHIN_S - request.left_s < 1.0 for request in requests)


def test_only_a_doubtful_request_is_marked_as_resent(tmp_path: Path) -> None:
    """Of what went out twice the provider may say "exists"; that is then no refusal."""

    async def story(stages: Stages) -> list[bool]:
        requests = watched(stages)
        stages.api.submits = [Unsent(SAID), TOO_FAST, Ambiguous(SAID), CREATED]
        stages.api.queries = [NOT_FOUND]
        await stages.submit(attempt())
        return [request.resent for request in requests]

    assert play(tmp_path, story, proved_at=EPOCH) == [False, False, False, True]


def test_every_request_waits_for_its_turn(tmp_path: Path) -> None:
    async def story(stages: Stages) -> list[float]:
        stages.api.submits, stages.api.queries = [Unsent(SAID), CREATED], [NOT_FOUND]
        stages.run.gate.pacer.pause(60.0)
        await stages.submit(attempt())
        return stages.api.times("submit")

    first, second = play(tmp_path, story)
    assert second > first >= 60.0


def test_a_callback_address_leaves_a_hash_on_disk(tmp_path: Path) -> None:
    """The run after a kill receives callbacks of its tasks by what was kept."""

    async def story(stages: Stages) -> tuple[dict[str, Any], str | None]:
        stages.run.submitter._callback_url = lambda name: (
            f"https://me/{name}",
            "hash of the token",
        )
        requests = watched(stages)
        stages.api.submits, stages.api.queries = [CREATED], [NOT_FOUND]
        await stages.submit(attempt())
        return requests[0].body, stages.state.attempts["kb-1"].token_hash

    body, token_hash = play(tmp_path, story)
    assert body == {
        "prompt": "a cat",
        "duration": "5",
        "aspect_ratio": "1:1",
        "external_task_id": "kb-1",
        "callback_url": "https://me/kb-1",
    }
    assert token_hash == "hash of the token"


def test_a_created_task_keeps_its_request_id(tmp_path: Path) -> None:
    answer = Created(Task("8", TaskStatus.SUBMITTED, request_id="r-8"))
    reached, stages = submitted(tmp_path, [answer], [NOT_FOUND])
    assert reached.task.request_id == "r-8"
    assert stages.events == [Submitted("a", "8", "kb-1", 1)]


def test_a_lost_answer_and_its_adoption_are_reported(tmp_path: Path) -> None:
    _, stages = submitted(tmp_path, [Ambiguous(SAID)], [NOT_FOUND, found()])
    assert stages.events == [AnswerLost("a", "kb-1", SAID), Adopted("a", "8", "kb-1", is_new=True)]


def test_a_callback_names_the_lost_task(tmp_path: Path) -> None:
    """Also where it cannot be found by our id."""

    async def story(stages: Stages) -> Any:
        async def query(identifier: str) -> Any:
            return found() if identifier == "8" else NOT_FOUND

        hint = Hint()
        stages.api.submits = [Ambiguous(SAID)]
        stages.api.query = query  # type: ignore[method-assign]
        stages.loop.call_later(
            9.0, lambda: hint.record(News("8", None, has_ended=False, names_us=True))
        )
        return await stages.run.submitter.submit(attempt(), await stages.enter(), hint)

    reached = play(tmp_path, story)
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"


def test_a_created_task_is_committed_first(tmp_path: Path) -> None:
    reached, stages = submitted(tmp_path, [CREATED], [NOT_FOUND])
    assert isinstance(reached.state, Open)
    assert stages.phase_of() == "Open"


@pytest.mark.parametrize("answer", [Ambiguous(SAID), Stale(SAID)], ids=["ambiguous", "stale"])
def test_a_lost_answer_is_looked_up_and_adopted(tmp_path: Path, answer: Any) -> None:
    """A request whose answer is lost is never simply repeated."""
    reached, stages = submitted(tmp_path, [answer], [NOT_FOUND, found()])
    assert isinstance(reached.state, Open)
    assert stages.api.count("submit") == 1
    assert stages.phase_of() == "Open"


@pytest.mark.parametrize(("named", "is_taken"), [("relay-1", True), ("kb-other", False)])
def test_a_rewritten_id_is_taken_unless_known(tmp_path: Path, named: str, is_taken: bool) -> None:
    """A relay may give the task an external id of its own, but not another attempt's."""

    async def story(stages: Stages) -> Attempt | None:
        await stages.state.commit(Put(attempt(name="kb-other", job_id="b")))
        task = Task("8", TaskStatus.SUBMITTED, external_task_id=named)
        stages.api.submits, stages.api.queries = [Created(task)], [NOT_FOUND]
        return await stages.submit(attempt())

    reached = play(tmp_path, story)
    assert reached is not None
    assert isinstance(reached.state, Open) is is_taken


@pytest.mark.parametrize("is_known", [False, True])
def test_pages_stop_runs_at_wrong_addresses_only(tmp_path: Path, is_known: bool) -> None:
    """Where a task was never seen, pages in a row are no API: nothing was created."""

    async def story(stages: Stages) -> tuple[str | None, StopReason | None]:
        page = replace(SAID, http_status=404)
        stages.run.lookup.address = Address(is_known=is_known)
        stages.api.submits = [Ambiguous(page, is_page=True)]
        stages.api.queries = [Unavailable(page, is_page=True)]
        await stages.submit(attempt())
        return stages.phase_of(), stages.stop.reason

    expected = ("Lost", None) if is_known else (None, StopReason.ACCOUNT)
    assert play(tmp_path, story) == expected


def test_an_answer_about_another_task_is_looked_up(tmp_path: Path) -> None:
    """A gateway that mixes up its answers must not give two jobs the same video."""

    async def story(stages: Stages) -> tuple[Attempt | None, Stages]:
        await stages.state.commit(Put(attempt(opened("8"), name="kb-other", job_id="b")))
        stages.api.submits, stages.api.queries = [CREATED], [NOT_FOUND, found(task_id="9")]
        return await stages.submit(attempt()), stages

    reached, stages = play(tmp_path, story)
    assert reached is not None
    assert (reached.task_id, stages.api.count("submit")) == ("9", 1)
    assert stages.events[0] == AnswerLost("a", "kb-1", ANOTHERS)


def test_not_found_without_proof_leads_to_unconfirmed(tmp_path: Path) -> None:
    """Look-up that was never seen to work proves nothing: nothing is sent again."""
    reached, stages = submitted(tmp_path, [Ambiguous(SAID)], [NOT_FOUND])
    assert isinstance(reached.state, Unconfirmed)
    assert stages.api.count("submit") == 1
    assert stages.phase_of() == "Lost"


def test_not_found_with_proof_resends_the_id(tmp_path: Path) -> None:
    reached, stages = submitted(tmp_path, [Ambiguous(SAID), CREATED], [NOT_FOUND], proved_at=EPOCH)
    assert isinstance(reached.state, Open)
    assert [what for _, kind, what in stages.api.calls if kind == "submit"] == ["kb-1", "kb-1"]
    first, second = stages.api.times("submit")
    assert second - first >= 30.0, "a fresh task may be invisible for the settle time"


def test_an_id_that_exists_is_never_sent_again(tmp_path: Path) -> None:
    """Even where look-up is proved and finds nothing: the provider has said that it is there."""
    reached, stages = submitted(tmp_path, [Exists(SAID), CREATED], [NOT_FOUND], proved_at=EPOCH)
    assert reached.doubt.exists
    assert stages.api.count("submit") == 1


@pytest.mark.parametrize("answer", [TOO_FAST, Saturated(SAID), Unsent(SAID)])
def test_an_unsent_request_is_retried_under_its_id(tmp_path: Path, answer: Any) -> None:
    reached, stages = submitted(tmp_path, [answer, answer, CREATED], [NOT_FOUND])
    assert isinstance(reached.state, Open)
    assert stages.api.count("submit") == 3


def test_patience_ends(tmp_path: Path) -> None:
    """A provider that only ever says "too fast" fails the job, unpaid; the next run tries again."""
    reached, stages = submitted(tmp_path, [TOO_FAST], [NOT_FOUND], task_timeout_s=300.0)
    assert isinstance(reached.state, Failed)
    assert reached.task_id is None
    assert stages.phase_of() is None


def test_patience_with_unclear_answers_ends(tmp_path: Path) -> None:
    """A gateway that always answers so must not hold a slot, and the run, for ever."""
    reached, stages = submitted(
        tmp_path, [Ambiguous(SAID)], [NOT_FOUND], proved_at=EPOCH, task_timeout_s=300.0
    )
    assert isinstance(reached.state, Unconfirmed)
    assert stages.phase_of() == "Lost"
    assert stages.api.count("submit") < 300 / 30 + 2


def test_a_refusal_is_the_jobs_own(tmp_path: Path) -> None:
    reached, stages = submitted(tmp_path, [Refused(SAID)], [NOT_FOUND])
    assert isinstance(reached.state, Failed)
    assert reached.state.failure == SAID
    assert reached.state.failed_at >= EPOCH
    assert not stages.stop.feeding.is_set()


def test_a_refused_account_stops_feeding_without_a_trace(tmp_path: Path) -> None:
    reached, stages = submitted(tmp_path, [CREDIT], [NOT_FOUND])
    assert reached is None
    assert stages.phase_of() is None
    assert stages.stop.reason is StopReason.ACCOUNT
    assert not stages.stop.leaving.is_set(), "open tasks are still collected"


def test_a_stop_during_look_up_leaves_it_lost(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        stages.api.submits, stages.api.queries = [Ambiguous(SAID)], [NOT_FOUND]
        stages.loop.call_later(3.0, stages.stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        return await stages.submit(attempt()), stages.phase_of()

    reached, on_disk = play(tmp_path, story)
    assert isinstance(reached.state, Lost)
    assert on_disk == "Lost"


@pytest.mark.parametrize("between", [True, False])
def test_only_a_lasting_outage_stops_the_run(tmp_path: Path, between: bool) -> None:
    """Two single hiccups a long time apart are none."""
    hiccup = Unsent(SAID)

    async def story(stages: Stages) -> StopReason | None:
        answers = [hiccup, CREATED] if between else [hiccup]
        stages.api.queries = [NOT_FOUND]
        stages.api.submits = list(answers)
        await stages.submit(attempt())
        await asyncio.sleep(700.0)
        stages.api.submits = [hiccup, Created(Task("9", TaskStatus.SUBMITTED))]
        await stages.submit(attempt(name="kb-2", job_id="b"))
        return stages.stop.reason

    reason = play(tmp_path, story, task_timeout_s=600.0)
    assert reason is (None if between else StopReason.UNREACHABLE)
