"""Fetch: whatever the file server does, the bytes of one video arrive, or the next run tries again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from downloads import (
    BROKEN,
    EXPIRED,
    FILE,
    LATE_S,
    LINK,
    SIZE,
    VIDEO,
    asked,
    gaps,
    land,
    landed,
    torn,
    whole,
)
from fake_provider import video
from scripted import NO_ANSWER, SAID, Body, Raises, Stages, attempt, generated, play

from batch.attempt import Generated, Landed
from batch.events import DownloadBroke
from batch.job import Failure, FailureKind
from batch.provider.protocol import BrokenFetchError, UselessPartError
from batch.run.fetch import OUTAGE_S, RETRY_BASE_S, TRIES, TRIES_IN_ALL
from batch.run.stop import StopReason

# -- what broke, in words

BROKE: dict[str, tuple[Any, FailureKind, str]] = {
    "ends early": (Body([VIDEO[:3000]], SIZE), FailureKind.DOWNLOAD, f"3000 of {SIZE} bytes came"),
    "empty": (Body([]), FailureKind.DOWNLOAD, "the file server sent an empty file"),
    "too long": (
        Body([VIDEO + b"<html>"], SIZE),
        FailureKind.DOWNLOAD,
        "the body is longer than announced",
    ),
    "too long in the end": (
        Body([VIDEO[:3000], VIDEO[3000:], b"<html>"], SIZE),
        FailureKind.DOWNLOAD,
        "the body is longer than announced",
    ),
    "no video": (
        Body([b"<html>" * 500]),
        FailureKind.MEDIA,
        "what was downloaded is no whole video: ",
    ),
    "refused": (BROKEN, SAID.kind, SAID.message),
    "expired": (EXPIRED, SAID.kind, SAID.message),
    "416": (Raises(UselessPartError(SAID)), SAID.kind, SAID.message),
}


@pytest.mark.parametrize(("trouble", "kind", "words"), [*BROKE.values()], ids=[*BROKE])
def test_broken_download_is_reported_and_retried(
    tmp_path: Path, trouble: Any, kind: FailureKind, words: str
) -> None:
    reached, stages = landed(tmp_path, [trouble, whole()])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    (told,) = stages.events
    assert isinstance(told, DownloadBroke)
    assert told.job_id == "a"
    assert told.failure.kind is kind
    assert told.failure.message.startswith(words)


TROUBLES = {
    **{name: case[0] for name, case in BROKE.items()},
    "ends early, without a length": Body([VIDEO[:3000]], validator=None),
    "zeros from the middle on": Body([VIDEO[:1500] + bytes(SIZE - 1500)], total=SIZE),
    "another file under the same link": Body(
        [VIDEO[:100]], total=SIZE, validator='"w"', breaks=True
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_trouble_mid_download_costs_one_try(tmp_path: Path, trouble: Any) -> None:
    reached, _ = landed(tmp_path, [torn(0, 1000), trouble, whole()])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO


def test_endless_body_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a length the disk would be filled."""
    monkeypatch.setattr("batch.run.fetch.MAX_VIDEO_BYTES", 5000)
    endless = Body([VIDEO[:2000], VIDEO[2000:4000], VIDEO[4000:]])
    _, stages = landed(tmp_path, [endless, BROKEN])
    assert stages.events[0].failure.message == "the body is longer than announced"


# -- what may be put together


def test_broken_connection_resumes_where_it_stopped(tmp_path: Path) -> None:
    rest = Body([VIDEO[2500:]], total=SIZE, start=2500)
    reached, stages = landed(tmp_path, [torn(0, 2500), rest])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert asked(stages) == ["https://cdn/first 0 None", 'https://cdn/first 2500 "v"']


@pytest.mark.parametrize(
    "other",
    [torn(1000, 3000, validator='"w"'), torn(500, 3000), torn(2000, 3000)],
    ids=["another validator", "from before", "from behind"],
)
def test_only_the_same_file_is_resumed(tmp_path: Path, other: Body) -> None:
    reached, stages = landed(tmp_path, [torn(0, 1000), other, whole()])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert stages.events[1].failure.message == "the server continues another file"
    assert asked(stages)[-1] == "https://cdn/first 0 None"


def test_received_bytes_are_told(tmp_path: Path) -> None:
    """Each once, also of a try that breaks."""
    rest = Body([VIDEO[2500:]], total=SIZE, start=2500)
    _, stages = landed(tmp_path, [torn(0, 2500), rest])
    assert stages.received == [2500, SIZE - 2500]


def test_download_without_validator_restarts(tmp_path: Path) -> None:
    """Nothing then proves that the rest belongs to the same file."""
    _, stages = landed(tmp_path, [torn(0, 1000, validator=None), whole()])
    assert asked(stages) == ["https://cdn/first 0 None"] * 2


def test_invalid_video_is_retried_with_fresh_link(tmp_path: Path) -> None:
    _, stages = landed(tmp_path, [Body([b"<html>" * 500]), whole()])
    assert asked(stages) == ["https://cdn/first 0 None", "https://cdn/fresh 0 None"]


def test_concurrent_downloads_do_not_mix(tmp_path: Path) -> None:
    videos = {name: video(name, 5_000_000) for name in ("8", "9")}

    class Slow(Body):
        async def __anext__(self) -> bytes:
            await asyncio.sleep(1.0)
            return await super().__anext__()

    async def story(stages: Stages) -> None:
        def fetch(url: str, **_how: Any) -> Any:
            data = videos[url]
            return Slow([data[:2_500_000], data[2_500_000:]], len(data))

        stages.api.fetch = fetch  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as group:
            for name in videos:
                of = attempt(generated(name), name=f"kb-{name}", job_id=name)
                group.create_task(stages.run.landing.land(of, name, file=f"videos/{name}.mp4"))

    play(tmp_path, story)
    for name, data in videos.items():
        assert (tmp_path / f"videos/{name}.mp4").read_bytes() == data


# -- how often, how soon


def test_dead_server_is_left_after_few_tries(tmp_path: Path) -> None:
    reached, stages = landed(tmp_path, [BROKEN])
    assert reached.state.trouble == SAID
    assert stages.api.count("fetch") == TRIES


@pytest.mark.parametrize("asked_s", [0.0, 1.0, 300.0])
def test_asked_waits_are_bounded_in_all(tmp_path: Path, asked_s: float) -> None:
    """Retry-After is no failed try, but a server that repeats it for ever is left."""
    reached, stages = landed(tmp_path, [Raises(BrokenFetchError(SAID, asked_s))])
    assert reached.state.trouble == SAID
    assert stages.api.count("fetch") <= TRIES_IN_ALL
    assert sum(gaps(stages, "fetch")) <= OUTAGE_S + 60.0
    assert min(gaps(stages, "fetch")) >= RETRY_BASE_S / 2


def test_breaking_server_is_retried_while_bytes_arrive(tmp_path: Path) -> None:
    step = SIZE // (3 * TRIES)
    pieces = [torn(at, at + step) for at in range(0, SIZE - step, step)]
    last = step * len(pieces)
    reached, stages = landed(tmp_path, [*pieces, Body([VIDEO[last:]], total=SIZE, start=last)])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert stages.api.count("fetch") > 2 * TRIES


def test_byte_at_a_time_is_given_up(tmp_path: Path) -> None:
    drops = [torn(at, at + 1) for at in range(3 * TRIES_IN_ALL)]
    reached, stages = landed(tmp_path, drops)
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble == SAID
    assert stages.api.count("fetch") == TRIES_IN_ALL


def test_good_link_is_retried_with_backoff(tmp_path: Path) -> None:
    """`poll_interval` is for asking about tasks; a file server that hiccups is asked sooner."""
    _, stages = landed(tmp_path, [BROKEN, BROKEN, whole()])
    for number, waited_s in enumerate(gaps(stages, "fetch")):
        most_s = RETRY_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1


# -- slow servers

LONG = video("long", 200_000)


def drops() -> Body:
    """Hand out the video byte by byte, each just before it would count as stalled."""
    return Body([VIDEO[i : i + 1] for i in range(SIZE)], total=SIZE, every_s=29.0)


def test_trickling_server_is_left_to_next_run(tmp_path: Path) -> None:
    reached, stages = landed(tmp_path, [drops() for _ in range(TRIES)])
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble is not None
    assert "next to nothing" in reached.state.trouble.message
    assert stages.loop.time() - LATE_S < 15 * 60


def test_trickle_that_speeds_up_is_resumed(tmp_path: Path) -> None:
    trickle = Body([VIDEO[:1], VIDEO[1:2], VIDEO[2:3]], total=SIZE, every_s=29.0)
    reached, stages = landed(tmp_path, [trickle, Body([VIDEO[2:]], total=SIZE, start=2)])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert stages.api.count("fetch") == 2


def test_slow_stream_is_no_trickle(tmp_path: Path) -> None:
    """Two thousand bytes a second for over a minute, three times the stall time-out."""
    slow = Body([LONG[at : at + 2000] for at in range(0, len(LONG), 2000)], every_s=1.0)
    reached, stages = landed(tmp_path, [slow])
    assert isinstance(reached.state, Landed)
    assert stages.events == []


def test_slow_start_is_judged_over_stall_timeout(tmp_path: Path) -> None:
    pieces = [LONG[at : at + 100] for at in range(0, 2000, 100)]
    pieces += [LONG[at : at + 20_000] for at in range(2000, len(LONG), 20_000)]
    reached, stages = landed(tmp_path, [Body(pieces, every_s=1.4)])
    assert isinstance(reached.state, Landed)
    assert stages.events == []


def test_earlier_bytes_do_not_excuse_a_trickle(tmp_path: Path) -> None:
    """Five hundred bytes a second are too few, however much of the file is here already."""
    first = Body([LONG[:100_000]], total=len(LONG), breaks=True)
    rest = [LONG[at : at + 500] for at in range(100_000, len(LONG), 500)]
    trickle = Body(rest, total=len(LONG), start=100_000, every_s=1.0)
    _, stages = landed(tmp_path, [first, trickle, BROKEN])
    assert stages.events[1].failure == Failure(
        FailureKind.DOWNLOAD, "the file server sends next to nothing"
    )


# -- a network that is gone, a run that is being left


def test_ten_minute_outage_fails_no_video(tmp_path: Path) -> None:
    """While not even the API can be reached, nothing is wrong with this video."""

    async def story(stages: Stages) -> Any:
        stages.api.fetches, stages.api.queries = [BROKEN], [NO_ANSWER]

        def come_back() -> None:
            stages.api.fetches, stages.api.queries = [whole()], [LINK]

        stages.loop.call_later(600.0, come_back)
        return await land(stages)

    assert isinstance(play(tmp_path, story).state, Landed)


def test_lasting_outage_leaves_video_to_next_run(tmp_path: Path) -> None:
    reached, stages = landed(tmp_path, [BROKEN], [NO_ANSWER])
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble is not None
    assert OUTAGE_S < stages.loop.time() - LATE_S < 2 * OUTAGE_S


def test_leaving_ends_the_tries(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        stages.api.queries, stages.api.fetches = [LINK], [BROKEN]
        stages.loop.call_later(1.0, stages.stop.ask, StopReason.INTERRUPTED, "Ctrl-C")
        return await land(stages)

    assert play(tmp_path, story) is None


@pytest.mark.parametrize(("every_s", "lands"), [(5.0, True), (12.0, False)])
def test_leaving_run_waits_a_minute_for_download(
    tmp_path: Path, every_s: float, lands: bool
) -> None:
    """A download that is nearly done finishes; none outlives a deadline or a signal by much."""
    step = SIZE // 9
    pieces = [VIDEO[i : i + step] for i in range(0, SIZE, step)]

    async def story(stages: Stages) -> Any:
        stages.api.queries, stages.api.fetches = [LINK], [Body(pieces, SIZE, every_s=every_s)]
        stages.loop.call_later(1.0, stages.stop.ask, StopReason.DEADLINE, "it is time")
        return await land(stages)

    reached = play(tmp_path, story, stall_timeout_s=1000.0)
    assert (reached is not None) == lands
    assert (tmp_path / FILE).exists() == lands


def test_run_left_late_still_waits_for_download(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        await asyncio.sleep(LATE_S)
        stages.loop.call_later(1.0, stages.stop.ask, StopReason.DEADLINE, "it is time")
        stages.api.fetches, stages.api.queries = [replace(whole(), every_s=9.0)], [LINK]
        return await land(stages)

    assert isinstance(play(tmp_path, story).state, Landed)
