"""Hints: what a callback may change, and how far callbacks are trusted."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from scripted import NOT_FOUND, SAID, Stages, attempt, found, play

from batch.callbacks.hints import PROVED_BY, STRETCH, Hint, Hints, hash_token, new_token
from batch.job import Lost, Open, Unconfirmed
from batch.provider.answers import Found, Task, TaskStatus
from batch.waker import sleep


def test_tokens_cannot_be_guessed() -> None:
    """Each has 256 bits or more, in characters that a path takes as they are; no two are alike."""
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(len(token) * 6 >= 256 for token in tokens)
    assert all(token.replace("-", "").replace("_", "").isalnum() for token in tokens)


def test_a_token_leads_to_its_owner_and_no_other_does() -> None:
    """A token is known by its hash; another of the same beginning is none."""
    hints = Hints()
    token = new_token()
    with hints.expect("kb-1", hash_token(token)):
        assert hints.owner(token) == "kb-1"
        wrong = (token[:-1], token + "x", token.upper(), "", hash_token(token), "\udcff", "ü" * 50)
        assert [hints.owner(other) for other in wrong] == [None] * len(wrong)


def test_a_token_of_an_earlier_request_goes_on_being_taken() -> None:
    """A request that went out again has another token; the first one's callbacks may still come."""
    hints = Hints()
    with hints.expect("kb-1", hash_token("first")):
        hints.renew("kb-1", hash_token("second"))
        assert hints.owner("first") == hints.owner("second") == "kb-1"
    assert hints.owner("first") == "kb-1", "the job is finished; its callbacks are no strangers"


def test_nobody_waits_for_a_finished_job() -> None:
    """A callback that comes after the end changes nothing."""
    hints = Hints()
    with hints.expect("kb-1", hash_token("t")) as hint:
        pass
    assert not hints.come("kb-1", "8", 1.0, has_ended=True)
    assert not hint.ended.is_set()


def test_older_news_change_nothing() -> None:
    """What was overtaken is dropped, whatever it says."""
    hint = Hint()
    assert hint.come("8", 5.0, has_ended=False)
    assert not hint.come("9", 4.0, has_ended=True)
    assert (hint.task_id, hint.ended.is_set(), hint.has_come) == ("8", False, False)


def test_what_the_api_says_is_known_too() -> None:
    """A callback older than the API's own answer is old."""
    hint = Hint()
    hint.know(5.0)
    assert not hint.come("8", 4.0, has_ended=True)
    assert hint.come("8", 6.0, has_ended=True)


def test_a_date_of_the_future_silences_nobody() -> None:
    """The API's answer puts a forged date right; what it announced is forgotten with it."""
    hint = Hint()
    hint.come("8", 1e12, has_ended=True)
    assert not hint.come("8", 7.0, has_ended=True)
    hint.know(5.0)
    assert not hint.has_come
    assert hint.come("8", 7.0, has_ended=True)


def test_only_an_end_wakes_the_poller() -> None:
    """The others name the task, which is enough for a lost answer."""
    hint = Hint()
    hint.come("8", None, has_ended=False)
    assert (hint.named.is_set(), hint.ended.is_set()) == (True, False)


def told(hints: Hints, announced: bool) -> None:
    """Let a task end, announced by a callback or not."""
    hint = Hint()
    if announced:
        hint.come("8", None, has_ended=True)
    hints.ended(hint)


def test_trust_is_earned_by_some_in_a_row_and_lost_by_one() -> None:
    """Polling is rarer only while callbacks keep announcing the ends."""
    hints = Hints()
    seen = []
    for announced in [*[True] * PROVED_BY, False, *[True] * PROVED_BY]:
        told(hints, announced)
        seen.append(hints.stretch)
    assert seen == [*[1.0] * (PROVED_BY - 1), STRETCH, *[1.0] * PROVED_BY, STRETCH]


async def test_those_who_wait_longer_hear_that_the_trust_has_ended() -> None:
    """One that was missed wakes them, so that they wait as usual from then on."""
    hints = Hints()
    for _ in range(PROVED_BY):
        told(hints, announced=True)
    asleep = asyncio.create_task(sleep(60.0, hints.doubted))
    await asyncio.sleep(0)
    told(hints, announced=False)
    await asyncio.wait_for(asleep, 1.0)
    assert hints.stretch == 1.0
    assert not hints.doubted.is_set()


@pytest.mark.parametrize("order", [*itertools.permutations([1.0, 2.0, 3.0])])
def test_any_order_ends_in_the_same_state(order: tuple[float, ...]) -> None:
    """The newest announces the end; wherever it comes, it is heard."""
    hint = Hint()
    for updated_at in order:
        hint.come("8", updated_at, has_ended=updated_at == 3.0)
    assert (hint.ended.is_set(), hint.has_come, hint.task_id) == (True, True, "8")


# -- a lost answer whose task is named --------------------------------------------------------


def named(task_id: str, *, names_us: bool) -> Hint:
    """Return a hint that has come before the look-up begins."""
    hint = Hint()
    hint.come(task_id, None, has_ended=False, names_us=names_us)
    return hint


def hinted(
    root: Path, answers: list[Any], hint: Hint, *, proved_at: float | None = None
) -> tuple[Any, Stages]:
    async def story(stages: Stages) -> Any:
        stages.api.queries = list(answers)
        return await stages.lookup.find(attempt(Lost(1.0, SAID)), hint), stages

    result: tuple[Any, Stages] = play(root, story, proved_at=proved_at)
    return result


def test_a_task_that_a_callback_names_comes_home_and_proves_nothing(tmp_path: Path) -> None:
    """It was found by its own id: whether look-up by ours works is as unknown as before."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    reached, stages = hinted(tmp_path, [answer], named("8", names_us=True))
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"
    assert not stages.lookup.is_proved


def test_a_named_task_that_appears_late_is_asked_for_again(tmp_path: Path) -> None:
    """The callback came before the task can be seen."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    answers = [NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND, answer]
    reached, _ = hinted(tmp_path, answers, named("8", names_us=False))
    assert isinstance(reached.state, Open)


@pytest.mark.parametrize(("names_us", "is_adopted"), [(True, True), (False, False)])
def test_somebody_must_say_that_a_named_task_is_ours(
    tmp_path: Path, names_us: bool, is_adopted: bool
) -> None:
    """Where the API's answer does not say whose it is, the callback must have."""
    reached, _ = hinted(tmp_path, [found(), NOT_FOUND], named("8", names_us=names_us))
    assert isinstance(reached.state, Open) is is_adopted


def test_a_named_task_of_somebody_else_is_not_adopted(tmp_path: Path) -> None:
    """The API's answer says whose it is."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-somebody"))
    reached, _ = hinted(tmp_path, [answer, NOT_FOUND], named("8", names_us=True))
    assert isinstance(reached.state, Unconfirmed)


def by_id(root: Path, tasks: dict[str, Any], hint: Hint) -> tuple[Any, list[str]]:
    """Look for a lost task at a provider that knows *tasks* by these ids and no others."""
    asked: list[str] = []

    async def story(stages: Stages) -> Any:
        async def query(identifier: str) -> Any:
            asked.append(identifier)
            return tasks.get(identifier, NOT_FOUND)

        stages.api.query = query  # type: ignore[method-assign]
        return await stages.lookup.find(attempt(Lost(1.0, SAID)), hint)

    return play(root, story), asked


def test_a_task_that_names_itself_comes_home_though_its_callback_did_not(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    reached, asked = by_id(tmp_path, {"8": answer}, named("8", names_us=False))
    assert reached.task_id == "8"
    assert asked == ["8"]


@pytest.mark.parametrize("says", ["kb-somebody", None])
def test_a_named_task_that_is_not_ours_is_asked_for_once(tmp_path: Path, says: str | None) -> None:
    """Then it is as if the callback had not come."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id=says))
    reached, asked = by_id(tmp_path, {"8": answer}, named("8", names_us=False))
    assert isinstance(reached.state, Unconfirmed)
    assert asked[0] == "8"
    assert set(asked[1:]) == {"kb-1"}
