"""Download: whatever the file server does, a video lands whole or the task waits for the next run."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from batch.run.download import OUTAGE_S, TRIES
from fake_provider import video
from scripted import (
    NO_ANSWER,
    NOT_FOUND,
    SAID,
    URL,
    Body,
    Raises,
    Stages,
    attempt,
    found,
    generated,
    play,
)

from batch.events import Stopping
from batch.job import Failed, FailureKind, Generated, Landed
from batch.provider.answers import Found, Task, TaskStatus
from batch.provider.protocol import BrokenFetchError, ExpiredLinkError, UselessPartError
from batch.run.stop import StopReason

VIDEO = video("8", 6000)
SIZE = len(VIDEO)
LINK = found(TaskStatus.SUCCEEDED, url="https://cdn/fresh")
FILE, KEPT = "videos/a.mp4", ".kling-batch/former/a.kb-0.mp4"


def whole(**how: Any) -> Body:
    return Body([VIDEO[:2000], VIDEO[2000:]], total=SIZE, **how)


def downloaded(root: Path, fetches: list[Any], queries: list[Any] | None = None) -> Any:
    async def story(stages: Stages) -> Any:
        stages.api.fetches = list(fetches)
        stages.api.queries = list(queries or [LINK])
        reached = await stages.downloader.download(
            attempt(generated()), "https://cdn/first", file=FILE, keep_as=KEPT
        )
        return reached, stages

    return play(root, story)


def test_a_whole_video_lands_with_its_size_and_hash(tmp_path: Path) -> None:
    reached, _ = downloaded(tmp_path, [whole()])
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert isinstance(reached.state, Landed)
    assert (reached.state.bytes, reached.state.sha256) == (SIZE, hashlib.sha256(VIDEO).hexdigest())
    assert not (tmp_path / KEPT).exists()


def test_a_broken_connection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    torn = Body([VIDEO[:2500]], total=SIZE, breaks=True)
    rest = Body([VIDEO[2500:]], total=SIZE, start=2500)
    reached, stages = downloaded(tmp_path, [torn, rest])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    asked = [what for _, kind, what in stages.api.calls if kind == "fetch"]
    assert asked == ["https://cdn/first 0 None", 'https://cdn/first 2500 "v"']


TROUBLES = {
    "ends early without a word": Body([VIDEO[:3000]], total=SIZE),
    "ends early, without a length": Body([VIDEO[:3000]], validator=None),
    "empty": Body([], total=None),
    "longer than announced": Body([VIDEO, b"<html>"], total=SIZE),
    "a page instead of a video": Body([b"<html>" * 500]),
    "zeros from the middle on": Body([VIDEO[:1500] + bytes(SIZE - 1500)], total=SIZE),
    "refused": Raises(BrokenFetchError(SAID)),
    "expired": Raises(ExpiredLinkError(SAID)),
    "another file under the same link": Body(
        [VIDEO[:100]], total=SIZE, validator='"w"', breaks=True
    ),
    "416": Raises(UselessPartError(SAID)),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_every_trouble_is_got_over(tmp_path: Path, trouble: Any) -> None:
    """One trouble, met in the middle of a download, costs a try and nothing else."""
    if isinstance(trouble, Body):
        trouble = Body(list(trouble.pieces), trouble.total, 0, trouble.validator, trouble.breaks)
    torn = Body([VIDEO[:1000]], total=SIZE, breaks=True)
    reached, _ = downloaded(tmp_path, [torn, trouble, whole()])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO


def test_what_fails_for_good_leaves_no_file_and_keeps_the_task(tmp_path: Path) -> None:
    """Nothing at the final name, no part file; the next run fetches it without paying."""
    reached, _ = downloaded(tmp_path, [Raises(BrokenFetchError(SAID))])
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble == SAID
    assert reached.task_id == "8"
    assert not (tmp_path / FILE).exists()
    assert list((tmp_path / ".kling-batch/parts").iterdir()) == []


def test_looks_that_brought_no_link_are_counted_too(tmp_path: Path) -> None:
    """`polls` in the row says how often the task was asked for, whatever came of it."""
    expired = Raises(ExpiredLinkError(SAID))
    reached, stages = downloaded(tmp_path, [expired], [found(TaskStatus.PROCESSING)])
    assert isinstance(reached.state, Generated)
    assert reached.polls == stages.api.count("query") > 0


def test_an_expired_link_is_asked_for_afresh(tmp_path: Path) -> None:
    _, stages = downloaded(tmp_path, [Raises(ExpiredLinkError(SAID)), whole()])
    asked = [what for _, kind, what in stages.api.calls if kind == "fetch"]
    assert asked[-1].startswith("https://cdn/fresh ")


@pytest.mark.parametrize(
    "answers",
    [
        [NO_ANSWER, NOT_FOUND, LINK],
        [found(TaskStatus.SUCCEEDED), LINK],
        [found(TaskStatus.PROCESSING), LINK],
        [Found(Task("9", TaskStatus.SUCCEEDED, "https://cdn/foreign")), LINK],
    ],
    ids=["trouble", "no link", "a step backwards", "another task"],
)
def test_a_link_is_asked_for_until_it_comes(tmp_path: Path, answers: list[Any]) -> None:
    """Success without a URL, or with that of another task, is no reason to give up."""
    expired = Raises(ExpiredLinkError(SAID))
    reached, stages = downloaded(tmp_path, [expired, whole()], answers)
    assert isinstance(reached.state, Landed)
    asked = [what for _, kind, what in stages.api.calls if kind == "fetch"]
    assert asked[-1].startswith("https://cdn/fresh ")


def test_a_link_is_not_asked_for_more_often_than_poll_interval(tmp_path: Path) -> None:
    """`poll_interval` is a promise about every look at a task, for its link too (5 s here)."""
    expired = Raises(ExpiredLinkError(SAID))
    _, stages = downloaded(tmp_path, [expired, whole()], [NO_ANSWER, NO_ANSWER, LINK])
    assert all(after - before >= 5.0 for before, after in pairwise(stages.api.times("query")))


def test_a_video_that_the_provider_cleared_is_a_failure_without_a_new_task(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        stages.api.queries, stages.api.fetches = [NOT_FOUND], [Raises(ExpiredLinkError(SAID))]
        stages.clock.offset = 31 * 86_400.0
        return await stages.downloader.download(attempt(generated()), None, file=FILE, keep_as=KEPT)

    reached = play(tmp_path, story)
    assert isinstance(reached.state, Failed)
    assert reached.state.failure.kind is FailureKind.DOWNLOAD
    assert reached.task_id == "8"


def test_a_full_disk_is_told_and_the_task_kept(tmp_path: Path) -> None:
    (tmp_path / "videos").write_text("no folder")
    reached, _ = downloaded(tmp_path, [whole()])
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble.kind is FailureKind.DISK


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_nothing_more_is_paid_for_that_there_is_no_room_for(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        (tmp_path / ".kling-batch/parts/kb-1.part").symlink_to("/dev/full")
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        reached = await stages.downloader.download(
            attempt(generated()), "https://cdn/first", file=FILE, keep_as=KEPT
        )
        return reached, stages

    reached, stages = play(tmp_path, story)
    assert isinstance(reached.state, Generated)
    assert "no space left" in reached.state.trouble.message
    assert stages.stop.feeding.is_set()
    assert not stages.stop.leaving.is_set(), "what is open is still watched to its end"
    assert any(isinstance(event, Stopping) for event in stages.events)


def test_a_former_video_is_kept(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / FILE).write_bytes(b"what was paid for before")
    downloaded(tmp_path, [whole()])
    assert (tmp_path / KEPT).read_bytes() == b"what was paid for before"
    assert (tmp_path / FILE).read_bytes() == VIDEO


def test_leaving_ends_the_tries(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        stages.api.queries, stages.api.fetches = [LINK], [Raises(BrokenFetchError(SAID))]
        stages.loop.call_later(1.0, stages.stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        return await stages.downloader.download(
            attempt(generated()), "https://cdn/first", file=FILE, keep_as=KEPT
        )

    assert play(tmp_path, story) is None


def test_a_network_that_is_gone_for_ten_minutes_fails_no_video(tmp_path: Path) -> None:
    """While not even the API can be reached, nothing is wrong with this video."""
    gone = Raises(BrokenFetchError(SAID))

    async def story(stages: Stages) -> Any:
        stages.api.fetches = [gone]
        stages.api.queries = [NO_ANSWER]

        def come_back() -> None:
            stages.api.fetches, stages.api.queries = [whole()], [LINK]

        stages.loop.call_later(600.0, come_back)
        return await stages.downloader.download(
            attempt(generated()), "https://cdn/first", file=FILE, keep_as=KEPT
        )

    assert isinstance(play(tmp_path, story).state, Landed)


def test_a_network_that_stays_away_leaves_the_video_to_the_next_run(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        begun = stages.loop.time()
        stages.api.fetches, stages.api.queries = [Raises(BrokenFetchError(SAID))], [NO_ANSWER]
        reached = await stages.downloader.download(
            attempt(generated()), "https://cdn/first", file=FILE, keep_as=KEPT
        )
        return reached, begun, stages.loop.time()

    reached, begun, ended = play(tmp_path, story)
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble is not None
    assert OUTAGE_S < ended - begun < 2 * OUTAGE_S


@pytest.mark.parametrize(
    ("answers", "base_url"),
    [([NOT_FOUND, NOT_FOUND, LINK], URL), ([NOT_FOUND], "https://elsewhere.example")],
    ids=["found at last", "sent to another address"],
)
def test_an_old_task_is_given_up_only_where_it_would_be_found(
    tmp_path: Path, answers: list[Any], base_url: str
) -> None:
    """Once or twice not found may be a lag; and another address never knew it."""

    async def story(stages: Stages) -> Any:
        stages.api.queries, stages.api.fetches = answers, [whole()]
        stages.clock.offset = 31 * 86_400.0
        elsewhere = replace(attempt(generated()), base_url=base_url)
        return await stages.downloader.download(elsewhere, None, file=FILE, keep_as=KEPT)

    reached = play(tmp_path, story)
    assert isinstance(reached.state, Landed if base_url == URL else Generated)


def drops(**how: Any) -> Body:
    """Hand out the video byte by byte, each just before it would count as stalled."""
    return Body([VIDEO[i : i + 1] for i in range(SIZE)], total=SIZE, every_s=29.0, **how)


def test_a_server_that_sends_a_byte_now_and_then_holds_nothing_up(tmp_path: Path) -> None:
    """It is tried a few times, like one that sends nothing, and left to the next run."""

    async def story(stages: Stages) -> Any:
        begun = stages.loop.time()
        stages.api.queries, stages.api.fetches = [LINK], [drops() for _ in range(TRIES)]
        reached = await stages.downloader.download(
            attempt(generated()), "https://cdn/first", file=FILE, keep_as=KEPT
        )
        return reached, stages.loop.time() - begun

    reached, took_s = play(tmp_path, story)
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble is not None
    assert "next to nothing" in reached.state.trouble.message
    assert took_s < 15 * 60


def test_a_trickle_that_becomes_a_stream_is_gone_on_with(tmp_path: Path) -> None:
    trickle = Body([VIDEO[:1], VIDEO[1:2], VIDEO[2:3]], total=SIZE, every_s=29.0)
    reached, stages = downloaded(tmp_path, [trickle, Body([VIDEO[2:]], total=SIZE, start=2)])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert stages.api.count("fetch") == 2


@pytest.mark.parametrize(("every_s", "lands"), [(5.0, True), (12.0, False)])
def test_a_run_that_is_being_left_waits_a_minute_for_a_download(
    tmp_path: Path, every_s: float, lands: bool
) -> None:
    """What is nearly home comes home; nothing outlives a deadline or a signal by much."""
    step = SIZE // 9
    pieces = [VIDEO[i : i + step] for i in range(0, SIZE, step)]

    async def story(stages: Stages) -> Any:
        stages.downloader = stages.make_downloader(stall_timeout_s=1000.0)
        stages.api.queries, stages.api.fetches = [LINK], [Body(pieces, SIZE, every_s=every_s)]
        stages.loop.call_later(1.0, stages.stop.ask, StopReason.DEADLINE, "it is time")
        return await stages.downloader.download(
            attempt(generated()), "https://cdn/first", file=FILE, keep_as=KEPT
        )

    reached = play(tmp_path, story)
    assert (reached is not None) == lands
    assert (tmp_path / FILE).exists() == lands
