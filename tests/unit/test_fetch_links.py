"""Fetch: a link that is missing or refused is asked for afresh, no sooner than a poll may come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from downloads import EXPIRED, LATE_S, LINK, asked, gaps, landed, whole
from scripted import ACCOUNT, NO_ANSWER, NOT_FOUND, SAID, attempt, found, generated

from batch.attempt import Failed, Generated, Landed
from batch.job import Failure, FailureKind
from batch.provider.answers import Found, NotFound, Task, TaskStatus, Unavailable
from batch.run.fetch import LINK_TRIES, RETRY_BASE_S

GONE = NotFound(Failure(FailureKind.PROVIDER, "no such task", "1203", 404, "r-9"))
DOWN = Unavailable(Failure(FailureKind.PROVIDER, "maintenance", None, 503))
A_MONTH_S = 31 * 86_400.0


@pytest.mark.parametrize(
    "answers",
    [
        [LINK],
        [NO_ANSWER, NOT_FOUND, LINK],
        [found(TaskStatus.SUCCEEDED), LINK],
        [found(TaskStatus.PROCESSING), LINK],
        [Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/foreign")), LINK],
    ],
    ids=["at once", "trouble", "no link", "a step backwards", "another task"],
)
def test_expired_link_is_replaced(tmp_path: Path, answers: list[Any]) -> None:
    """Success without a URL, or with that of another task, is no reason to give up."""
    reached, stages = landed(tmp_path, [EXPIRED, whole()], answers)
    assert isinstance(reached.state, Landed)
    assert asked(stages)[-1].startswith("https://cdn/fresh ")


def test_polls_without_a_link_are_counted(tmp_path: Path) -> None:
    """`polls` in the row says how often the task was asked for, whatever came of it."""
    reached, stages = landed(tmp_path, [EXPIRED], [found(TaskStatus.PROCESSING)])
    assert isinstance(reached.state, Generated)
    assert reached.polls == stages.api.count("query") > 0


def test_link_retries_keep_poll_interval(tmp_path: Path) -> None:
    """`poll_interval` is a promise about every poll of a task, for its link too (5 s here)."""
    _, stages = landed(tmp_path, [EXPIRED, whole()], [NO_ANSWER, NO_ANSWER, LINK])
    assert all(gap >= 5.0 for gap in gaps(stages, "query"))


def test_useless_links_keep_poll_interval(tmp_path: Path) -> None:
    expired = [EXPIRED, EXPIRED, EXPIRED, whole()]
    _, stages = landed(tmp_path, expired, poll_interval_s=7.0, offset_s=3600.0)
    assert len(gaps(stages, "query")) == 2
    assert all(gap >= 7.0 for gap in gaps(stages, "query"))


@pytest.mark.parametrize(
    ("since_s", "wait_s"), [(-9.0, 5.0), (0.0, 5.0), (2.0, 3.0), (5.0, 0.0), (3600.0, 0.0)]
)
def test_first_link_query_waits_after_last_poll(
    tmp_path: Path, since_s: float, wait_s: float
) -> None:
    """The task was generated a minute after virtual time began; a clock may be set back, too."""
    _, stages = landed(tmp_path, [whole()], link=None, offset_s=60.0 + since_s)
    assert stages.api.times("query")[0] == pytest.approx(LATE_S + wait_s, abs=0.1)


def test_link_queries_back_off(tmp_path: Path) -> None:
    _, stages = landed(tmp_path, [whole()], [DOWN], link=None, poll_interval_s=0.1)
    for number, waited_s in enumerate(gaps(stages, "query")):
        most_s = RETRY_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (DOWN, replace(DOWN.failure, kind=FailureKind.DOWNLOAD)),
        (NotFound(SAID), replace(SAID, kind=FailureKind.DOWNLOAD)),
        (
            found(TaskStatus.SUCCEEDED),
            Failure(FailureKind.DOWNLOAD, "the task has succeeded, but names no video"),
        ),
    ],
    ids=["down", "not found", "no link"],
)
def test_missing_link_leaves_video_to_next_run(
    tmp_path: Path, answer: Any, trouble: Failure
) -> None:
    """The last answer is the trouble that is reported; and there is an end to asking."""
    reached, stages = landed(tmp_path, [whole()], [answer], link=None)
    assert reached.state == replace(generated(), trouble=trouble)
    assert asked(stages, "query") == ["8"] * LINK_TRIES


def test_silence_is_retried_longer_than_refusals(tmp_path: Path) -> None:
    """Without a network nothing is wrong with this video."""
    silence = Unavailable(Failure(FailureKind.NETWORK, "no route"))
    answers = [silence] * 3 * LINK_TRIES + [LINK]
    reached, _ = landed(tmp_path, [whole()], answers, link=None)
    assert isinstance(reached.state, Landed)


def test_answer_for_another_attempt_is_not_taken(tmp_path: Path) -> None:
    """Not even under the right task id."""
    foreign = replace(LINK.task, url="https://cdn/foreign", external_task_id="kb-somebody")
    reached, stages = landed(tmp_path, [whole()], [Found(foreign), LINK], link=None)
    assert isinstance(reached.state, Landed)
    assert asked(stages) == ["https://cdn/fresh 0 None"]


# -- a video that the provider no longer keeps


@pytest.mark.parametrize(
    ("answers", "is_kept"),
    [
        ([GONE, GONE, LINK], True),
        ([GONE, DOWN, GONE, GONE, DOWN, LINK], True),
        ([DOWN, DOWN, DOWN, GONE, LINK], True),
        ([GONE, GONE, GONE, LINK], False),
    ],
    ids=["twice", "never three in a row", "once after silence", "three times"],
)
def test_three_not_founds_end_an_old_task(
    tmp_path: Path, answers: list[Any], is_kept: bool
) -> None:
    reached, _ = landed(tmp_path, [whole()], answers, link=None, offset_s=A_MONTH_S)
    assert isinstance(reached.state, Landed if is_kept else Failed)


def test_task_of_another_address_is_not_cleared(tmp_path: Path) -> None:
    """This address never knew it."""
    account = replace(ACCOUNT, base_url="https://elsewhere.example")
    of = replace(attempt(generated()), account=account)
    reached, _ = landed(tmp_path, [whole()], [NOT_FOUND], of=of, link=None, offset_s=A_MONTH_S)
    assert isinstance(reached.state, Generated)


@pytest.mark.parametrize("days", [1, 29])
def test_young_task_is_never_cleared(tmp_path: Path, days: int) -> None:
    reached, _ = landed(tmp_path, [whole()], [GONE], link=None, offset_s=days * 86_400.0)
    assert isinstance(reached.state, Generated)


@pytest.mark.parametrize("link", [None, "https://cdn/first"])
def test_cleared_video_fails_and_keeps_its_task(tmp_path: Path, link: str | None) -> None:
    reached, _ = landed(tmp_path, [EXPIRED], [GONE], link=link, offset_s=A_MONTH_S)
    assert isinstance(reached.state, Failed)
    assert reached.state.failure == Failure(
        FailureKind.DOWNLOAD,
        "the provider no longer keeps this video (30 days)",
        "1203",
        404,
        "r-9",
    )
    assert reached.state.task == generated().task
    assert reached.state.failed_at > generated().task.submitted_at + 30 * 86_400.0
