"""Download: how often and how soon it is tried again, what is told of it, what comes back from here."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from batch.run.download import LINK_TRIES, RETRY_BASE_S, TRIES, TRIES_IN_ALL
from fake_provider import video
from scripted import SAID, Body, Raises, Stages, attempt, found, generated, landed, play

from batch.events import DownloadBroke, Stopping
from batch.job import Attempt, Failed, Failure, FailureKind, Generated, Landed, canonical_request
from batch.provider.answers import Found, NotFound, TaskStatus, Unavailable
from batch.provider.protocol import BrokenFetchError, ExpiredLinkError, UselessPartError
from batch.run.stop import StopReason

VIDEO = video("8", 6000)
SIZE = len(VIDEO)
LINK = found(TaskStatus.SUCCEEDED, url="https://cdn/fresh")
FILE, KEPT = "videos/a.mp4", ".kling-batch/former/a.kb-0.mp4"
BROKEN, EXPIRED = Raises(BrokenFetchError(SAID)), Raises(ExpiredLinkError(SAID))
GONE = NotFound(Failure(FailureKind.PROVIDER, "no such task", "1203", 404, "r-9"))
LATE_S = 5000.0
DOWN = Unavailable(Failure(FailureKind.PROVIDER, "maintenance", None, 503))


def whole() -> Body:
    return Body([VIDEO[:2000], VIDEO[2000:]], total=SIZE)


def torn(first: int, last: int, **how: Any) -> Body:
    """Return a body from one byte to another that breaks there."""
    return Body([VIDEO[first:last]], total=SIZE, start=first, breaks=True, **how)


def downloaded(
    root: Path,
    fetches: list[Any],
    queries: list[Any] | None = None,
    *,
    of: Attempt | None = None,
    link: str | None = "https://cdn/first",
    **how: Any,
) -> tuple[Any, Stages]:
    offset_s = how.pop("offset_s", 0.0)

    async def story(stages: Stages) -> Any:
        await asyncio.sleep(LATE_S)  # what is measured from time zero by mistake shall be seen
        stages.clock.offset = offset_s - LATE_S
        stages.api.fetches, stages.api.queries = list(fetches), list(queries or [LINK])
        reached = await stages.downloader.download(
            of or attempt(generated()), link, file=FILE, keep_as=KEPT
        )
        return reached, stages

    result: tuple[Any, Stages] = play(root, story, **how)
    return result


def asked(stages: Stages, kind: str = "fetch") -> list[str]:
    return [what for _, called, what in stages.api.calls if called == kind]


def gaps(stages: Stages, kind: str) -> list[float]:
    return [after - before for before, after in pairwise(stages.api.times(kind))]


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


@pytest.mark.parametrize("case", BROKE.values(), ids=BROKE.keys())
def test_what_broke_is_told_when_it_is_tried_again(tmp_path: Path, case: Any) -> None:
    trouble, kind, words = case
    if isinstance(trouble, Body):
        trouble = replace(trouble, pieces=list(trouble.pieces))
    reached, stages = downloaded(tmp_path, [trouble, whole()])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    (told,) = stages.events
    assert isinstance(told, DownloadBroke)
    assert told.job_id == "a"
    assert told.failure.kind is kind
    assert told.failure.message.startswith(words)


def test_a_body_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a length the disk would be filled."""
    monkeypatch.setattr("batch.run.download.MAX_VIDEO_BYTES", 5000)
    endless = Body([VIDEO[:2000], VIDEO[2000:4000], VIDEO[4000:]])
    _, stages = downloaded(tmp_path, [endless, BROKEN])
    assert stages.events[0].failure.message == "the body is longer than announced"


# -- what may be put together


@pytest.mark.parametrize(
    "other",
    [torn(1000, 3000, validator='"w"'), torn(500, 3000), torn(2000, 3000)],
    ids=["another validator", "from before", "from behind"],
)
def test_only_the_rest_of_the_same_file_is_put_behind_what_is_here(
    tmp_path: Path, other: Body
) -> None:
    other = replace(other, pieces=list(other.pieces))
    reached, stages = downloaded(tmp_path, [torn(0, 1000), other, whole()])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert stages.events[1].failure.message == "the server continues another file"
    assert asked(stages)[-1] == "https://cdn/first 0 None"


def test_what_a_server_cannot_vouch_for_is_fetched_from_the_start(tmp_path: Path) -> None:
    """Without a validator nobody knows whether the rest is that of the same file."""
    _, stages = downloaded(tmp_path, [torn(0, 1000, validator=None), whole()])
    assert asked(stages) == ["https://cdn/first 0 None"] * 2


def test_after_what_is_no_video_a_fresh_link_is_asked_for(tmp_path: Path) -> None:
    page = Body([b"<html>" * 500])
    _, stages = downloaded(tmp_path, [page, whole()])
    assert asked(stages) == ["https://cdn/first 0 None", "https://cdn/fresh 0 None"]


def test_two_videos_that_come_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
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
                group.create_task(
                    stages.downloader.download(of, name, file=f"videos/{name}.mp4", keep_as=KEPT)
                )

    play(tmp_path, story)
    for name, data in videos.items():
        assert (tmp_path / f"videos/{name}.mp4").read_bytes() == data


# -- how often, how soon


def test_a_server_that_gives_nothing_is_left_after_a_few_tries(tmp_path: Path) -> None:
    reached, stages = downloaded(tmp_path, [BROKEN])
    assert reached.state.trouble == SAID
    assert stages.api.count("fetch") == TRIES


def test_a_server_that_always_breaks_off_is_stayed_with_as_long_as_bytes_come(
    tmp_path: Path,
) -> None:
    step = SIZE // (3 * TRIES)
    pieces = [torn(at, at + step) for at in range(0, SIZE - step, step)]
    last = step * len(pieces)
    reached, stages = downloaded(tmp_path, [*pieces, Body([VIDEO[last:]], total=SIZE, start=last)])
    assert isinstance(reached.state, Landed)
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert stages.api.count("fetch") > 2 * TRIES


def test_a_server_that_gives_a_byte_at_a_time_is_left_in_the_end(tmp_path: Path) -> None:
    drops = [torn(at, at + 1) for at in range(3 * TRIES_IN_ALL)]
    reached, stages = downloaded(tmp_path, drops)
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble == SAID
    assert stages.api.count("fetch") == TRIES_IN_ALL


def test_a_link_that_is_good_is_tried_again_soon_and_then_less_soon(tmp_path: Path) -> None:
    """`poll_interval` is for asking about tasks; a file server that hiccups is asked sooner."""
    _, stages = downloaded(tmp_path, [BROKEN, BROKEN, whole()])
    for number, waited_s in enumerate(gaps(stages, "fetch")):
        most_s = RETRY_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1


def test_links_that_are_no_good_are_not_asked_for_more_often_than_poll_interval(
    tmp_path: Path,
) -> None:
    expired = [EXPIRED, EXPIRED, EXPIRED, whole()]
    _, stages = downloaded(tmp_path, expired, poll_interval_s=7.0, offset_s=3600.0)
    assert len(gaps(stages, "query")) == 2
    assert all(gap >= 7.0 for gap in gaps(stages, "query"))


@pytest.mark.parametrize(
    ("since_s", "wait_s"), [(-9.0, 5.0), (0.0, 5.0), (2.0, 3.0), (5.0, 0.0), (3600.0, 0.0)]
)
def test_the_first_question_for_a_link_keeps_its_distance_from_the_last_poll(
    tmp_path: Path, since_s: float, wait_s: float
) -> None:
    """The task was generated a minute after virtual time began; a clock may be set back, too."""
    _, stages = downloaded(tmp_path, [whole()], link=None, offset_s=60.0 + since_s)
    assert stages.api.times("query")[0] == pytest.approx(LATE_S + wait_s, abs=0.1)


# -- slow servers

LONG = video("long", 200_000)


def test_a_slow_stream_is_no_trickle(tmp_path: Path) -> None:
    """Two thousand bytes a second for over a minute, three times the stall time-out."""
    slow = Body([LONG[at : at + 2000] for at in range(0, len(LONG), 2000)], every_s=1.0)
    reached, stages = downloaded(tmp_path, [slow])
    assert isinstance(reached.state, Landed)
    assert stages.events == []


def test_a_stream_that_begins_slowly_is_judged_by_the_whole_stall_time_out(tmp_path: Path) -> None:
    pieces = [LONG[at : at + 100] for at in range(0, 2000, 100)]
    pieces += [LONG[at : at + 20_000] for at in range(2000, len(LONG), 20_000)]
    reached, stages = downloaded(tmp_path, [Body(pieces, every_s=1.4)])
    assert isinstance(reached.state, Landed)
    assert stages.events == []


def test_what_came_before_does_not_excuse_a_trickle(tmp_path: Path) -> None:
    """Five hundred bytes a second are too few, however much of the file is here already."""
    first = Body([LONG[:100_000]], total=len(LONG), breaks=True)
    rest = [LONG[at : at + 500] for at in range(100_000, len(LONG), 500)]
    trickle = Body(rest, total=len(LONG), start=100_000, every_s=1.0)
    _, stages = downloaded(tmp_path, [first, trickle, BROKEN])
    assert stages.events[1].failure == Failure(
        FailureKind.DOWNLOAD, "the file server sends next to nothing"
    )


def test_a_run_that_is_being_left_late_still_waits_for_a_download(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        await asyncio.sleep(LATE_S)
        stages.loop.call_later(1.0, stages.stop.ask, StopReason.DEADLINE, "it is time")
        stages.api.fetches, stages.api.queries = [replace(whole(), every_s=9.0)], [LINK]
        of = attempt(generated())
        return await stages.downloader.download(of, "https://cdn", file=FILE, keep_as=KEPT)

    assert isinstance(play(tmp_path, story).state, Landed)


# -- asking for a link


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
def test_a_link_that_never_comes_leaves_the_video_to_the_next_run(
    tmp_path: Path, answer: Any, trouble: Failure
) -> None:
    """The last answer is the trouble that is told; and there is an end to asking."""
    reached, stages = downloaded(tmp_path, [whole()], [answer], link=None)
    assert reached.state == replace(generated(), trouble=trouble)
    assert asked(stages, "query") == ["8"] * LINK_TRIES


def test_questions_for_a_link_become_rarer(tmp_path: Path) -> None:
    _, stages = downloaded(tmp_path, [whole()], [DOWN], link=None, poll_interval_s=0.1)
    for number, waited_s in enumerate(gaps(stages, "query")):
        most_s = RETRY_BASE_S * 2.0**number
        assert most_s / 2 <= waited_s <= most_s + 0.1


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
def test_only_not_found_three_times_in_a_row_ends_an_old_task(
    tmp_path: Path, answers: list[Any], is_kept: bool
) -> None:
    reached, _ = downloaded(tmp_path, [whole()], answers, link=None, offset_s=31 * 86_400.0)
    assert isinstance(reached.state, Landed if is_kept else Failed)


@pytest.mark.parametrize("days", [1, 29])
def test_a_young_task_is_never_taken_for_cleared(tmp_path: Path, days: int) -> None:
    reached, _ = downloaded(tmp_path, [whole()], [GONE], link=None, offset_s=days * 86_400.0)
    assert isinstance(reached.state, Generated)


def test_without_a_network_it_is_asked_for_longer_than_a_few_times(tmp_path: Path) -> None:
    """Nobody answers at all: that is no trouble of this video's."""
    silence = Unavailable(Failure(FailureKind.NETWORK, "no route"))
    answers = [silence] * 3 * LINK_TRIES + [LINK]
    reached, _ = downloaded(tmp_path, [whole()], answers, link=None)
    assert isinstance(reached.state, Landed)


def test_an_answer_that_says_it_is_anothers_is_not_taken(tmp_path: Path) -> None:
    """Not even under the right task id."""
    foreign = replace(LINK.task, url="https://cdn/foreign", external_task_id="kb-somebody")
    reached, stages = downloaded(tmp_path, [whole()], [Found(foreign), LINK], link=None)
    assert isinstance(reached.state, Landed)
    assert asked(stages) == ["https://cdn/fresh 0 None"]


def test_a_video_that_is_no_longer_kept_is_a_failure_that_says_so(tmp_path: Path) -> None:
    reached, _ = downloaded(tmp_path, [whole()], [GONE], link=None, offset_s=31 * 86_400.0)
    assert isinstance(reached.state, Failed)
    assert reached.state.failure == Failure(
        FailureKind.DOWNLOAD,
        "the provider no longer keeps this video (30 days)",
        "1203",
        404,
        "r-9",
    )
    assert (reached.state.task_id, reached.state.submitted_at) == ("8", generated().submitted_at)
    assert reached.state.failed_at > generated().submitted_at + 30 * 86_400.0


# -- what lands


def test_what_is_known_of_a_task_is_known_of_its_video(tmp_path: Path) -> None:
    task = replace(generated(), request_id="r-8")
    reached, _ = downloaded(tmp_path, [whole()], of=attempt(task), offset_s=3600.0)
    state = reached.state
    assert (state.task_id, state.request_id) == ("8", "r-8")
    assert (state.submitted_at, state.generated_at) == (task.submitted_at, task.generated_at)
    assert state.landed_at > task.generated_at
    assert state.file == FILE


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"duration": "5", "aspect_ratio": "1:1"}, []),
        ({"duration": "10", "aspect_ratio": "1:1"}, ["asked for 10 s"]),
        ({"duration": "5", "aspect_ratio": "16:9"}, ["asked for 16:9"]),
        ({"duration": "10", "aspect_ratio": "16:9"}, ["asked for 16:9", "asked for 10 s"]),
        ({}, []),
    ],
)
def test_a_video_that_is_not_what_was_asked_for_lands_with_a_warning(
    tmp_path: Path, options: dict[str, str], told: list[str]
) -> None:
    request = canonical_request({"prompt": "a cat", **options})
    of = replace(attempt(generated()), request=request)
    reached, _ = downloaded(tmp_path, [whole()], of=of)
    assert [warning.partition(",")[0] for warning in reached.state.warnings] == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "no space left for the video (No space left on device)",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left for the video (Disk quota"),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "the video cannot be written (Permission denied)",
        ),
        (OSError("short"), "the video cannot be written (OSError)"),
    ],
)
def test_what_the_disk_says_is_told_with_what_to_do(
    tmp_path: Path, error: OSError, told: str
) -> None:
    """Both where a new video is to land and where a former one is to be kept."""

    async def story(stages: Stages) -> tuple[Any, Any]:
        async def refuse(*_args: Any, **_how: Any) -> Any:
            raise error

        stages.folder.land = stages.folder.land_small = refuse  # type: ignore[method-assign]
        stages.folder.keep = refuse  # type: ignore[method-assign]
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        of = attempt(generated())
        reached = await stages.downloader.download(of, "https://cdn", file=FILE, keep_as=KEPT)
        return reached.state, await stages.downloader.keep(FILE, KEPT)

    state, failure = play(tmp_path, story)
    assert isinstance(state, Generated)
    assert state.trouble == failure
    assert failure.kind is FailureKind.DISK
    assert failure.message.startswith(told)
    assert failure.message.endswith("and run again, it is paid for")


@pytest.mark.parametrize(
    ("number", "stops"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)]
)
def test_only_a_disk_without_room_stops_the_feeding_and_says_so_once(
    tmp_path: Path, number: int, stops: bool
) -> None:
    async def story(stages: Stages) -> Stages:
        async def refuse(*_args: Any, **_how: Any) -> Any:
            raise OSError(number, "so says the disk")

        stages.folder.land = stages.folder.land_small = refuse  # type: ignore[method-assign]
        for name in ("8", "9"):
            stages.api.fetches, stages.api.queries = [whole()], [LINK]
            of = attempt(generated(name))
            await stages.downloader.download(of, "https://cdn", file=FILE, keep_as=KEPT)
        return stages

    check_stop(play(tmp_path, story), stops=stops)


@pytest.mark.parametrize(("number", "stops"), [(errno.ENOSPC, True), (errno.EACCES, False)])
def test_a_disk_without_room_for_a_former_video_stops_the_feeding_too(
    tmp_path: Path, number: int, stops: bool
) -> None:
    async def story(stages: Stages) -> Stages:
        async def refuse(*_args: Any, **_how: Any) -> Any:
            raise OSError(number, "so says the disk")

        stages.folder.keep = refuse  # type: ignore[method-assign]
        assert await stages.downloader.keep(FILE, KEPT) is not None
        return stages

    check_stop(play(tmp_path, story), stops=stops)


def check_stop(stages: Stages, *, stops: bool) -> None:
    assert stages.stop.feeding.is_set() is stops
    assert not stages.stop.leaving.is_set()
    assert stages.stop.reason is (StopReason.DISK if stops else None)
    assert stages.events == ([Stopping(stages.stop.sentence)] if stops else [])
    assert ("so says the disk" in stages.stop.sentence) is stops


# -- a former version that comes back

FORMER = ".kling-batch/former/a.kb-1.mp4"


def former(data: bytes = VIDEO, task_id: str = "8") -> Landed:
    state = landed(task_id, FORMER, len(data))
    return replace(state, sha256=hashlib.sha256(data).hexdigest())


def restored(root: Path, state: Landed, spoil: Callable[[Path], Any] | None = None) -> Any:
    async def story(stages: Stages) -> Any:
        place = root / state.file
        place.parent.mkdir(parents=True, exist_ok=True)
        if spoil is None:
            place.write_bytes(VIDEO)
        else:
            spoil(place)
        reached = await stages.downloader.restore(attempt(state), file=FILE, keep_as=KEPT)
        assert stages.api.calls == []
        return reached, stages.clock.now()

    return play(root, story)


def test_a_former_version_that_is_whole_comes_back_without_asking_anybody(tmp_path: Path) -> None:
    reached, now = restored(tmp_path, former())
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert (tmp_path / FORMER).read_bytes() == VIDEO, "it is kept until its place is on record"
    assert reached.state == replace(former(), file=FILE, landed_at=now)


def test_what_a_former_version_takes_the_place_of_is_kept(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / FILE).write_bytes(b"a stranger")
    restored(tmp_path, former())
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert (tmp_path / KEPT).read_bytes() == b"a stranger"


@pytest.mark.parametrize(
    ("state", "spoil"),
    [
        (former(), lambda place: None),
        (former(), lambda place: place.write_bytes(VIDEO[:-1])),
        (former(), lambda place: place.write_bytes(VIDEO[:-1] + b"?")),
        (former(b"<html>"), lambda place: place.write_bytes(b"<html>")),
    ],
    ids=["gone", "cut", "altered", "never a video"],
)
def test_a_former_version_that_is_not_whole_is_left_where_it_is(
    tmp_path: Path, state: Landed, spoil: Callable[[Path], Any]
) -> None:
    """It is fetched then, as if it were not here."""
    reached, _ = restored(tmp_path, state, spoil)
    assert reached is None
    assert not (tmp_path / FILE).exists()


def test_two_former_versions_that_come_back_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    videos = {name: video(name, 6000) for name in ("8", "9")}

    async def story(stages: Stages) -> list[Any]:
        def back(name: str) -> Awaitable[Any]:
            place = f".kling-batch/former/{name}.mp4"
            (tmp_path / place).parent.mkdir(exist_ok=True)
            (tmp_path / place).write_bytes(videos[name])
            state = replace(former(videos[name], name), file=place)
            of = attempt(state, name=f"kb-{name}", job_id=name)
            return stages.downloader.restore(of, file=f"videos/{name}.mp4", keep_as=KEPT)

        return await asyncio.gather(*map(back, videos))

    assert None not in play(tmp_path, story)
    for name, data in videos.items():
        assert (tmp_path / f"videos/{name}.mp4").read_bytes() == data
