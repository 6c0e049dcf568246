"""Submit: what may have been sent before stays in doubt, whatever the answer is now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import NOT_FOUND, SAID, TOO_FAST, Stages, attempt, play
from virtual_time import EPOCH

from batch.attempt import Doubt, Failed, Intended, Lost, Unconfirmed
from batch.job import Failure, FailureKind
from batch.output.state import Put
from batch.provider.answers import AccountRefused, Ambiguous, Refused, Unsent
from batch.run.lookup import SENT_BEFORE
from batch.run.stop import StopReason
from batch.run.submit import ANOTHERS

CREDIT = AccountRefused(Failure(FailureKind.ACCOUNT, "no credit", "1102", 429))
FIREWALL = AccountRefused(Failure(FailureKind.ACCOUNT, "go away", http_status=403))


async def resend(stages: Stages, answers: Iterable[Any], doubt: Doubt) -> Any:
    """Submit an unconfirmed attempt again, as a person has asked for."""
    await stages.state.commit(Put(attempt(Unconfirmed(1.0, doubt))))
    stages.api.submits, stages.api.queries = list(answers), [NOT_FOUND]
    return await stages.submit(attempt(Intended(1.0, replace(doubt, on_request=True))))


REFUSALS = {
    "429": TOO_FAST,
    "unsent": Unsent(SAID),
    "credit": CREDIT,
    "invalid": Refused(SAID),
    "a firewall": FIREWALL,
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_doubt_outlives_a_refusal_of_its_resubmission(tmp_path: Path, answer: Any) -> None:
    """`--resubmit-unconfirmed` sends what may exist already; a refusal now says nothing about then.

    Were the attempt withdrawn or called failed, a task that was paid for would be forgotten.
    """

    async def story(stages: Stages) -> tuple[Any, str | None]:
        stages.loop.call_later(5.0, stages.stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        return await resend(stages, [answer], Doubt(SAID)), stages.phase_of()

    reached, on_disk = play(tmp_path, story)
    assert on_disk == "Lost"
    assert reached is None or isinstance(reached.state, Unconfirmed)


def test_a_firewall_page_leaves_a_resubmission_doubtful(tmp_path: Path) -> None:
    """It may have been created before: no failure that a later run would pay for anew."""
    doubt = Doubt(SAID, exists=True, on_request=True)

    async def story(stages: Stages) -> tuple[Any, Any]:
        return await resend(stages, [FIREWALL], doubt), stages.state.attempts["kb-1"]

    reached, on_disk = play(tmp_path, story)
    assert isinstance(reached.state, Unconfirmed)
    assert isinstance(on_disk.state, Lost)
    assert reached.doubt == on_disk.doubt == doubt


@pytest.mark.parametrize("exists", [True, False])
def test_a_refused_resubmission_reports_both_answers(tmp_path: Path, exists: bool) -> None:
    async def story(stages: Stages) -> tuple[Any, float]:
        refusal = Refused(Failure(FailureKind.MODERATION, "not that", "1301", 400))
        doubt = Doubt(replace(SAID, kind=FailureKind.UNCONFIRMED), exists)
        return await resend(stages, [refusal], doubt), stages.clock.now()

    reached, now = play(tmp_path, story)
    failure = Failure(FailureKind.UNCONFIRMED, "sent again, it was refused (not that); said so")
    assert reached.state == Unconfirmed(now, Doubt(failure, exists, on_request=True))


@pytest.mark.parametrize("exists", [True, False])
def test_an_exhausted_resubmission_stays_unconfirmed(tmp_path: Path, exists: bool) -> None:
    """What was known of the first request is still known, on disk too while the second waits."""
    doubt = Doubt(SAID, exists, on_request=True)

    async def story(stages: Stages) -> tuple[Any, Any, float]:
        reached = await resend(stages, [TOO_FAST], doubt)
        return reached, stages.state.attempts["kb-1"].state, stages.clock.now()

    reached, on_disk, now = play(tmp_path, story, task_timeout_s=30.0)
    assert reached.state == Unconfirmed(now, doubt)
    assert isinstance(on_disk, Lost)
    assert on_disk.doubt == doubt


@pytest.mark.parametrize(
    ("doubt", "answers"),
    [(None, [Ambiguous(SAID), TOO_FAST]), (Doubt(SENT_BEFORE), [TOO_FAST])],
    ids=["in this run", "in an earlier one"],
)
def test_an_exhausted_resend_stays_unconfirmed(
    tmp_path: Path, doubt: Doubt | None, answers: list[Any]
) -> None:
    """A task may turn up after the settle time: that is no failure to pay anew for."""

    async def story(stages: Stages) -> tuple[Any, Any, float]:
        stages.api.submits, stages.api.queries = answers, [NOT_FOUND]
        reached = await stages.submit(attempt(Intended(1.0, doubt)))
        return reached, stages.state.attempts["kb-1"].state, stages.clock.now()

    reached, on_disk, now = play(tmp_path, story, proved_at=EPOCH, task_timeout_s=60.0)
    assert reached.state == Unconfirmed(now, Doubt(SENT_BEFORE))
    assert isinstance(on_disk, Lost)


def test_a_resubmission_lost_too_keeps_its_doubt(tmp_path: Path) -> None:
    """Look-up not finding it says nothing against what the provider had said: it exists."""

    async def story(stages: Stages) -> tuple[Any, int]:
        lost = Ambiguous(replace(SAID, message="the line was cut"))
        reached = await resend(stages, [lost, TOO_FAST], Doubt(SAID, exists=True))
        return reached, stages.api.count("submit")

    reached, sent = play(tmp_path, story, proved_at=EPOCH, task_timeout_s=60.0)
    assert isinstance(reached.state, Unconfirmed)
    assert (reached.doubt.exists, reached.doubt.on_request, sent) == (True, True, 1)


@pytest.mark.parametrize(
    "answer", [TOO_FAST, Unsent(SAID), CREDIT], ids=["429", "unsent", "credit"]
)
def test_an_absent_task_is_not_forgotten(tmp_path: Path, answer: Any) -> None:
    """A task may turn up after the settle time; until a request has gone through it is looked for."""

    async def story(stages: Stages) -> str | None:
        stages.api.submits, stages.api.queries = [Ambiguous(SAID), answer], [NOT_FOUND]
        stages.loop.call_later(60.0, stages.stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        await stages.submit(attempt())
        return stages.phase_of()

    assert play(tmp_path, story, proved_at=EPOCH) == "Lost"


def test_a_refusal_after_absence_fails_the_attempt(tmp_path: Path) -> None:
    """What is wrong with the request now was wrong with it when its answer was lost."""

    async def story(stages: Stages) -> Any:
        stages.api.submits, stages.api.queries = [Ambiguous(SAID), Refused(SAID)], [NOT_FOUND]
        return await stages.submit(attempt())

    assert isinstance(play(tmp_path, story, proved_at=EPOCH).state, Failed)


@pytest.mark.parametrize("failure", [Failure(FailureKind.PROVIDER, "no id", None, 200), ANOTHERS])
def test_what_was_accepted_thrice_is_not_absent(tmp_path: Path, failure: Failure) -> None:
    """A channel that keeps no external ids, behind a gateway that does, would be paid every 30 s."""

    async def story(stages: Stages) -> tuple[Any, int]:
        stages.api.submits, stages.api.queries = [Ambiguous(failure)] * 9, [NOT_FOUND]
        return await stages.submit(attempt()), stages.api.count("submit")

    reached, sent = play(tmp_path, story, proved_at=EPOCH)
    assert sent == 3, "max_attempts"
    assert isinstance(reached.state, Unconfirmed)
    assert reached.doubt.exists


def test_no_answer_at_all_says_nothing_of_acceptance(tmp_path: Path) -> None:
    async def story(stages: Stages) -> int:
        lost = Ambiguous(Failure(FailureKind.NETWORK, "reset"))
        page = Ambiguous(Failure(FailureKind.PROVIDER, "a page", None, 200), is_page=True)
        stages.api.submits, stages.api.queries = [lost, lost, page, page, lost, lost], [NOT_FOUND]
        stages.loop.call_later(150.0, stages.stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        await stages.submit(attempt())
        return stages.api.count("submit")

    assert play(tmp_path, story, proved_at=EPOCH) > 3
