"""Hints: the effect of a callback, and how far callbacks are trusted."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from scripted import NOT_FOUND, SAID, Stages, attempt, found, play

from batch.attempt import Doubt, Lost, Open, Unconfirmed
from batch.callbacks.hints import PROVED_BY, STRETCH, Hint, Hints, News, hash_token, new_token
from batch.provider.answers import Found, Task, TaskStatus
from batch.waker import sleep


def test_tokens_cannot_be_guessed() -> None:
    """Each has 256 bits or more, in characters that a path takes as they are; no two are alike."""
    tokens = {new_token("kb-1") for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(len(token) * 6 >= 256 for token in tokens)
    assert all(token.replace("-", "").replace("_", "").isalnum() for token in tokens)


def test_token_leads_to_its_owner_only() -> None:
    """A token is known by its hash; another of the same beginning is none."""
    hints = Hints()
    token = new_token("kb-1")
    with hints.expect("kb-1", hash_token(token)):
        assert hints.owner(token) == "kb-1"
        wrong = (token[:-1], token + "x", token.upper(), "", hash_token(token), "\udcff", "ü" * 50)
        assert [hints.owner(other) for other in wrong] == [None] * len(wrong)


def test_token_of_earlier_request_stays_valid() -> None:
    """A request that went out again has another token; the first one's callbacks may still come."""
    hints = Hints()
    with hints.expect("kb-1", hash_token("first")):
        hints.renew("kb-1", hash_token("second"))
        assert hints.owner("first") == hints.owner("second") == "kb-1"
    assert hints.owner("first") == "kb-1", "the job is finished; its callbacks are no strangers"


def test_finished_job_takes_no_callback() -> None:
    """A callback that comes after the end changes nothing."""
    hints = Hints()
    with hints.expect("kb-1", hash_token("t")) as hint:
        pass
    assert not hints.record("kb-1", News("8", 1.0, has_ended=True))
    assert not hint.ended.is_set()


def test_older_callback_changes_nothing() -> None:
    """An overtaken callback is dropped, whatever it says."""
    hint = Hint()
    assert hint.record(News("8", 5.0, has_ended=False))
    assert not hint.record(News("9", 4.0, has_ended=True))
    assert (hint.task_id, hint.ended.is_set(), hint.announced_end) == ("8", False, False)


def test_callback_older_than_an_answer_is_dropped() -> None:
    hint = Hint()
    hint.correct(5.0)
    assert not hint.record(News("8", 4.0, has_ended=True))
    assert hint.record(News("8", 6.0, has_ended=True))


def test_forged_future_date_is_corrected() -> None:
    """The API's answer replaces the date, and the announced end is forgotten with it."""
    hint = Hint()
    hint.record(News("8", 1e12, has_ended=True))
    assert not hint.record(News("8", 7.0, has_ended=True))
    hint.correct(5.0)
    assert not hint.announced_end
    assert hint.record(News("8", 7.0, has_ended=True))


def test_only_an_end_wakes_the_poller() -> None:
    """The others name the task, which is enough for a lost answer."""
    hint = Hint()
    hint.record(News("8", None, has_ended=False))
    assert (hint.named.is_set(), hint.ended.is_set()) == (True, False)


def told(hints: Hints, announced: bool) -> None:
    """Let a task end, announced by a callback or not."""
    hint = Hint()
    if announced:
        hint.record(News("8", None, has_ended=True))
    hints.ended(hint)


def test_trust_needs_several_and_ends_with_one() -> None:
    """Polling is rarer only while callbacks keep announcing the ends."""
    hints = Hints()
    seen = []
    for announced in [*[True] * PROVED_BY, False, *[True] * PROVED_BY]:
        told(hints, announced)
        seen.append(hints.stretch)
    assert seen == [*[1.0] * (PROVED_BY - 1), STRETCH, *[1.0] * PROVED_BY, STRETCH]


def test_callbacks_of_several_tasks_are_trusted() -> None:
    """That they come is seen long before the first task ends; one task proves nothing."""
    hints, seen = Hints(), []
    names = ["kb-1", "kb-1", "kb-2", "kb-3"]
    with ExitStack() as expected:
        for name in names:
            expected.enter_context(hints.expect(name, None))
        for name in names:
            hints.record(name, News("8", None, has_ended=False))
            seen.append(hints.stretch)
        told(hints, announced=False)
        hints.record("kb-1", News("8", None, has_ended=False))
    assert seen == [1.0, 1.0, 1.0, STRETCH]
    assert hints.stretch == 1.0, "a missed end outweighs any other callback"


async def test_end_of_trust_wakes_long_sleepers() -> None:
    """One missed end wakes them, so that they wait as usual from then on."""
    hints = Hints()
    for _ in range(PROVED_BY):
        told(hints, announced=True)
    asleep = asyncio.create_task(sleep(10 * PATIENCE_S, hints.doubted))
    await asyncio.sleep(0)
    told(hints, announced=False)
    await asyncio.wait_for(asleep, PATIENCE_S)
    assert hints.stretch == 1.0
    assert not hints.doubted.is_set()


@pytest.mark.parametrize("order", [*itertools.permutations([1.0, 2.0, 3.0])])
def test_any_order_of_callbacks_announces_the_end(order: tuple[float, ...]) -> None:
    """The newest announces the end, whenever it arrives."""
    hint = Hint()
    for updated_at in order:
        hint.record(News("8", updated_at, has_ended=updated_at == 3.0))
    assert (hint.ended.is_set(), hint.announced_end, hint.task_id) == (True, True, "8")


# -- a lost answer whose task is named --------------------------------------------------------


def named(task_id: str, *, names_us: bool) -> Hint:
    """Return a hint that was recorded before the look-up begins."""
    hint = Hint()
    hint.record(News(task_id, None, has_ended=False, names_us=names_us))
    return hint


def hinted(
    root: Path, answers: list[Any], hint: Hint, *, proved_at: float | None = None
) -> tuple[Any, Stages]:
    async def story(stages: Stages) -> Any:
        stages.api.queries = list(answers)
        return await stages.run.lookup.find(attempt(Lost(1.0, Doubt(SAID))), hint), stages

    result: tuple[Any, Stages] = play(root, story, proved_at=proved_at)
    return result


def test_named_task_is_adopted_and_proves_nothing(tmp_path: Path) -> None:
    """It was found by its own id: whether look-up by ours works is as unknown as before."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    reached, stages = hinted(tmp_path, [answer], named("8", names_us=True))
    assert isinstance(reached.state, Open)
    assert reached.task_id == "8"
    assert not stages.run.lookup.is_proved


def test_named_task_is_queried_until_visible(tmp_path: Path) -> None:
    """The callback came before the task can be seen."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    answers = [NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND, answer]
    reached, _ = hinted(tmp_path, answers, named("8", names_us=False))
    assert isinstance(reached.state, Open)


@pytest.mark.parametrize(("names_us", "is_adopted"), [(True, True), (False, False)])
def test_task_of_unknown_owner_needs_its_callback(
    tmp_path: Path, names_us: bool, is_adopted: bool
) -> None:
    """Where the API's answer names no external id, the callback must have."""
    reached, _ = hinted(tmp_path, [found(), NOT_FOUND], named("8", names_us=names_us))
    assert isinstance(reached.state, Open) is is_adopted


def test_named_task_of_another_is_not_adopted(tmp_path: Path) -> None:
    """The API's answer names another external id."""
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
        return await stages.run.lookup.find(attempt(Lost(1.0, Doubt(SAID))), hint)

    return play(root, story), asked


def test_task_that_names_itself_is_adopted(tmp_path: Path) -> None:
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id="kb-1"))
    reached, asked = by_id(tmp_path, {"8": answer}, named("8", names_us=False))
    assert reached.task_id == "8"
    assert asked == ["8"]


@pytest.mark.parametrize("says", ["kb-somebody", None])
def test_named_foreign_task_is_queried_once(tmp_path: Path, says: str | None) -> None:
    """Then the look-up goes on as without the callback."""
    answer = Found(Task("8", TaskStatus.PROCESSING, external_task_id=says))
    reached, asked = by_id(tmp_path, {"8": answer}, named("8", names_us=False))
    assert isinstance(reached.state, Unconfirmed)
    assert asked[0] == "8"
    assert set(asked[1:]) == {"kb-1"}
