"""Landing: a whole video takes its place, and the former one is kept and recorded before."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from downloads import BROKEN, FILE, LINK, SIZE, VIDEO, land, landed, whole
from fake_provider import video
from scripted import SAID, Body, Stages, attempt, generated, play
from scripted import landed as landed_state

from batch.attempt import Generated, Landed, PaidTask
from batch.events import Stopping
from batch.job import FailureKind, canonical_request
from batch.output import disk
from batch.output.state import Put
from batch.run.stop import StopReason

OLD = b"what was paid for before"
OLD_AT = 1_700_000_000.0
STRANGER = "versions/a/20231114T221320Z.mp4"  # a video of then that the state does not know
FORMER = ".kling-batch/former/a.kb-1.mp4"  # where an earlier release has kept one
DISPLACED = "versions/a/19700101T000003Z.mp4"  # it landed then


def test_video_lands_with_size_and_hash(tmp_path: Path) -> None:
    reached, _ = landed(tmp_path, [whole()])
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert isinstance(reached.state, Landed)
    assert (reached.state.bytes, reached.state.sha256) == (SIZE, hashlib.sha256(VIDEO).hexdigest())
    assert names(tmp_path) == [FILE]


def test_landed_keeps_what_is_known_of_the_task(tmp_path: Path) -> None:
    task = PaidTask("8", generated().task.submitted_at, "r-8")
    before = replace(generated(), task=task)
    reached, _ = landed(tmp_path, [whole()], of=attempt(before), offset_s=3600.0)
    assert reached.state.task == task
    assert reached.state.generated_at == before.generated_at
    assert reached.state.landed_at > before.generated_at
    assert reached.state.file == FILE


def test_failed_download_leaves_no_file(tmp_path: Path) -> None:
    """Nothing at the final name, no part file; the next run fetches it without paying."""
    reached, stages = landed(tmp_path, [BROKEN])
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble == SAID
    assert reached.task_id == "8"
    assert not (tmp_path / FILE).exists()
    assert list(stages.videos.layout.parts.iterdir()) == []


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
def test_unexpected_video_lands_with_warning(
    tmp_path: Path, options: dict[str, str], told: list[str]
) -> None:
    request = canonical_request({"prompt": "a cat", **options})
    reached, _ = landed(tmp_path, [whole()], of=replace(attempt(generated()), request=request))
    assert [warning.partition(",")[0] for warning in reached.state.warnings] == told


# -- what the disk does not take


def test_disk_failure_is_reported_and_task_kept(tmp_path: Path) -> None:
    (tmp_path / "videos").write_text("no folder")
    reached, _ = landed(tmp_path, [whole()])
    assert isinstance(reached.state, Generated)
    assert reached.state.trouble.kind is FailureKind.DISK


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_full_device_stops_submissions(tmp_path: Path) -> None:
    async def story(stages: Stages) -> Any:
        stages.videos.layout.part("kb-1").symlink_to("/dev/full")
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        return await land(stages), stages

    reached, stages = play(tmp_path, story)
    assert isinstance(reached.state, Generated)
    assert "no space left" in reached.state.trouble.message
    assert stages.stop.feeding.is_set()
    assert not stages.stop.leaving.is_set(), "open tasks are still polled to their end"
    assert any(isinstance(event, Stopping) for event in stages.events)


def hold(stages: Stages, data: bytes = OLD, *, name: str = "kb-0", task_id: str = "7") -> None:
    """Let an earlier attempt of the job have its video at `FILE`."""
    place = stages.videos.layout.root / FILE
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    stages.state.attempts[name] = attempt(landed_state(task_id, FILE, len(data)), name=name)


def refused(root: Path, error: OSError, step: str, *, videos: int = 1) -> tuple[Any, Stages]:
    """Land some videos on a disk that refuses *step*: `keep` the former one, or `finish` or `place` the new one."""

    async def story(stages: Stages) -> tuple[Any, Stages]:
        async def refuse(*_args: Any, **_how: Any) -> Any:
            raise error

        setattr(stages.videos, step, refuse)
        hold(stages)
        reached = None
        for number in range(videos):
            stages.api.fetches, stages.api.queries = [whole()], [LINK]
            reached = await land(stages, of=attempt(generated(f"8{number}")))
        return reached, stages

    return play(root, story)


@pytest.mark.parametrize("step", ["finish", "keep", "place"])
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
def test_disk_failure_says_what_to_do(tmp_path: Path, error: OSError, told: str, step: str) -> None:
    reached, _ = refused(tmp_path, error, step)
    assert isinstance(reached.state, Generated)
    failure = reached.state.trouble
    assert failure.kind is FailureKind.DISK
    assert failure.message.startswith(told)
    assert failure.message.endswith("and run again, it is paid for")
    assert (tmp_path / FILE).read_bytes() == OLD


@pytest.mark.parametrize("step", ["finish", "keep", "place"])
@pytest.mark.parametrize(
    ("number", "stops"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)]
)
def test_only_full_disk_stops_submissions_once(
    tmp_path: Path, number: int, stops: bool, step: str
) -> None:
    _, stages = refused(tmp_path, OSError(number, "so says the disk"), step, videos=2)
    assert stages.stop.feeding.is_set() is stops
    assert not stages.stop.leaving.is_set()
    assert stages.stop.reason is (StopReason.DISK if stops else None)
    assert stages.events == ([Stopping(stages.stop.sentence)] if stops else [])
    assert ("so says the disk" in stages.stop.sentence) is stops


# -- what was there before


def put(root: Path, file: str, data: bytes = OLD) -> None:
    place = root / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    os.utime(place, (OLD_AT, OLD_AT))


def test_unrecorded_former_video_is_kept(tmp_path: Path) -> None:
    put(tmp_path, FILE)
    landed(tmp_path, [whole()])
    assert (tmp_path / STRANGER).read_bytes() == OLD
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert names(tmp_path) == [STRANGER, FILE]


def test_unrecorded_video_kept_already_is_kept_once(tmp_path: Path) -> None:
    """By a run that died afterwards."""
    put(tmp_path, FILE)
    put(tmp_path, DISPLACED)
    landed(tmp_path, [whole()])
    assert names(tmp_path) == [DISPLACED, FILE]


@pytest.mark.parametrize("is_folder", [True, False])
def test_taken_name_of_a_version_gets_a_number(tmp_path: Path, is_folder: bool) -> None:
    """Also where a job of that very id has its folder."""
    put(tmp_path, FILE)
    if is_folder:
        (tmp_path / STRANGER).mkdir(parents=True)
    else:
        put(tmp_path, STRANGER, b"another")
    landed(tmp_path, [whole()])
    assert (tmp_path / STRANGER.replace(".mp4", "-2.mp4")).read_bytes() == OLD


def test_name_recorded_for_another_attempt_is_taken(tmp_path: Path) -> None:
    """Although its file is not there: it may come back."""

    async def story(stages: Stages) -> Stages:
        hold(stages)
        gone = attempt(landed_state("6", DISPLACED, 9), name="kb-9")
        stages.state.attempts["kb-9"] = gone
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        await land(stages)
        return stages

    stages = play(tmp_path, story)
    assert file_of(stages) == DISPLACED.replace(".mp4", "-2.mp4")
    assert file_of(stages, "kb-9") == DISPLACED
    assert (tmp_path / file_of(stages)).read_bytes() == OLD


def test_superseded_video_becomes_a_version(tmp_path: Path) -> None:
    """Its name tells when it was generated."""

    async def story(stages: Stages) -> Any:
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        return await stages.run.landing.land(attempt(generated()), "https://cdn/8", file=None)

    reached = play(tmp_path, story)
    assert reached.state.file == "versions/a/20260921T141420Z.mp4"
    assert (tmp_path / reached.state.file).read_bytes() == VIDEO
    again = play(tmp_path, story)
    assert again.state.file == reached.state.file, "a run that died before its commit"
    assert names(tmp_path) == [reached.state.file]


def test_edited_former_video_is_known_by_its_content(tmp_path: Path) -> None:
    """It was edited and replaced between two nights: the state learns what is kept."""
    edited = video("7", 7000)

    async def story(stages: Stages) -> Stages:
        hold(stages, edited)
        held = stages.state.attempts["kb-0"]
        state = replace(held.state, bytes=SIZE)
        stages.state.attempts["kb-0"] = replace(held, state=state)
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        await land(stages)
        back = await stages.run.landing.restore(stages.state.attempts["kb-0"], file="videos/b.mp4")
        assert back is not None
        assert back.state.is_edited
        return stages

    stages = play(tmp_path, story)
    kept = stages.state.attempts["kb-0"].state
    assert isinstance(kept, Landed)
    assert kept.contents == {"00", hashlib.sha256(edited).hexdigest()}
    assert (tmp_path / "videos/b.mp4").read_bytes() == edited


def test_video_of_another_attempt_is_no_edit(tmp_path: Path) -> None:
    """A disk that was away has brought it back: it is kept, and not taken for the one displaced."""
    other = video("7", 7000)

    async def story(stages: Stages) -> Stages:
        hold(stages, other)
        state = replace(landed_state("6", FORMER, 7000), sha256=hashlib.sha256(other).hexdigest())
        await stages.state.commit(Put(attempt(state, name="kb-7", job_id="b")))
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        await land(stages)
        return stages

    stages = play(tmp_path, story)
    kept = stages.state.attempts["kb-0"].state
    assert isinstance(kept, Landed)
    assert kept.checked is None
    assert (tmp_path / kept.file).read_bytes() == other


def replaced(root: Path, fetches: list[Any]) -> Stages:
    """Land a video where an earlier attempt of the job has its own."""

    async def story(stages: Stages) -> Stages:
        hold(stages)
        stages.api.fetches, stages.api.queries = fetches, [LINK]
        await land(stages)
        return stages

    return play(root, story)


def file_of(stages: Stages, name: str = "kb-0") -> str:
    state = stages.state.attempts[name].state
    assert isinstance(state, Landed)
    return state.file


def names(root: Path) -> list[str]:
    """Return the files of videos that are here."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.mp4"))


def test_displaced_video_keeps_its_new_place(tmp_path: Path) -> None:
    """Its job has another id now, and could not fetch it while another job's took its former place."""

    async def story(stages: Stages) -> tuple[Any, Stages]:
        hold(stages)
        before = stages.state.attempts["kb-0"]
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        await land(stages)
        stages.videos.layout.part("kb-0").mkdir()  # the disk refuses it
        return await land(stages, of=before), stages

    reached, stages = play(tmp_path, story)
    assert reached.state.trouble.kind is FailureKind.DISK
    assert reached.state.file == file_of(stages) == DISPLACED


def test_recorded_former_video_is_kept_as_recorded(tmp_path: Path) -> None:
    stages = replaced(tmp_path, [whole()])
    assert file_of(stages) == DISPLACED
    assert (tmp_path / DISPLACED).read_bytes() == OLD
    assert names(tmp_path) == [DISPLACED, FILE]


def test_failed_download_leaves_former_in_place(tmp_path: Path) -> None:
    """Else the next run would keep it once more, under a name that the state does not know."""
    stages = replaced(tmp_path, [BROKEN])
    assert file_of(stages) == FILE
    assert names(tmp_path) == [FILE]


def test_second_try_keeps_former_video_once(tmp_path: Path) -> None:
    page = replace(whole(), pieces=[bytes(SIZE)])
    stages = replaced(tmp_path, [page, whole()])
    assert file_of(stages) == DISPLACED
    assert names(tmp_path) == [DISPLACED, FILE]


def test_video_never_whole_leaves_former_in_place(tmp_path: Path) -> None:
    """Nothing is moved before the new one has passed its check."""
    pages = [replace(whole(), pieces=[bytes(SIZE)]) for _ in range(9)]
    stages = replaced(tmp_path, pages)
    assert file_of(stages) == FILE
    assert names(tmp_path) == [FILE]


class Killed(BaseException):
    """The process ends here."""


STEPS = ["make", "link", "flush", "move", "commit"]


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 10))
def test_killed_landing_keeps_each_video_once(
    tmp_path: Path, number: int, is_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step on the disk and in the state; the next run ends with two files, both known."""
    known: dict[str, Any] = {}
    left = number

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **how: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not is_after:
                raise Killed
            result = work(*arguments, **how)
            if left == 0 and is_after:
                raise Killed
            return result

        return step

    async def story(stages: Stages) -> None:
        if known:
            stages.state.attempts = known
        else:
            hold(stages)
            known.update(stages.state.attempts)
            stages.state.attempts = known
            stages.state.write = dying(stages.state.write)  # type: ignore[method-assign]
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        try:
            reached = await land(stages)
            await stages.state.commit(Put(reached))
        finally:
            known.update(stages.state.attempts)

    for name in STEPS[:-1]:
        monkeypatch.setattr(disk, name, dying(getattr(disk, name)))
    with contextlib.suppress(Killed):
        play(tmp_path, story)
    monkeypatch.undo()
    assert OLD in {(tmp_path / name).read_bytes() for name in names(tmp_path)}
    assert (tmp_path / FILE).read_bytes() in {OLD, VIDEO}
    play(tmp_path, story)
    assert names(tmp_path) == [DISPLACED, FILE]
    assert {name: found.state.file for name, found in known.items()} == {
        "kb-0": DISPLACED,
        "kb-1": FILE,
    }
    assert (tmp_path / DISPLACED).read_bytes() == OLD
    assert (tmp_path / FILE).read_bytes() == VIDEO


@pytest.mark.parametrize("number", range(1, 9))
def test_refusing_disk_leaves_no_version_unrecorded(tmp_path: Path, number: int) -> None:
    """The job may have another name, and so another folder there, when the next run lands it."""

    async def story(stages: Stages) -> str:
        work, numbers = stages.videos.run, itertools.count(1)

        async def run(*what: Any) -> Any:
            if next(numbers) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return await work(*what)

        setattr(stages.videos, "run", run)  # noqa: B010 - a method
        hold(stages)
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        await land(stages)
        return file_of(stages)

    recorded = play(tmp_path, story)
    assert set(names(tmp_path)) == {recorded, FILE}


# -- a former version that comes back


def former(data: bytes = VIDEO, task_id: str = "8") -> Landed:
    state = landed_state(task_id, FORMER, len(data))
    return replace(state, sha256=hashlib.sha256(data).hexdigest())


def restored(root: Path, state: Landed, make: Callable[[Path], Any]) -> tuple[Any, Stages]:
    """Restore a video that *make* puts where the state says."""

    async def story(stages: Stages) -> tuple[Any, Stages]:
        (root / FORMER).parent.mkdir(parents=True, exist_ok=True)
        make(root / FORMER)
        reached = await stages.run.landing.restore(attempt(state), file=FILE)
        assert stages.api.calls == []
        return reached, stages

    return play(root, story)


def test_former_version_is_restored_without_requests(tmp_path: Path) -> None:
    reached, stages = restored(tmp_path, former(), lambda place: place.write_bytes(VIDEO))
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert (tmp_path / FORMER).read_bytes() == VIDEO, "it is kept until its place is on record"
    now = pytest.approx(stages.clock.now(), abs=0.1)
    came_at = former().landed_at
    assert reached.state == replace(former(), file=FILE, landed_at=now, first_at=came_at)


@pytest.mark.parametrize("recorded", [FORMER, FILE], ids=["a former one", "the current one"])
def test_version_under_another_name_is_restored(tmp_path: Path, recorded: str) -> None:
    """A person, or a disk that came back, has put it there: its hash tells what it is."""
    put(tmp_path, "versions/a/mine.mp4", VIDEO)
    put(tmp_path, "versions/a/other.mp4", bytes(SIZE))

    async def story(stages: Stages) -> Any:
        state = replace(former(), file=recorded)
        return await stages.run.landing.restore(attempt(state), file=FILE)

    reached = play(tmp_path, story)
    assert reached.state.file == FILE
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert names(tmp_path) == ["versions/a/mine.mp4", "versions/a/other.mp4", FILE]


def test_restored_version_keeps_an_unrecorded_video(tmp_path: Path) -> None:
    put(tmp_path, FILE, b"a stranger")
    restored(tmp_path, former(), lambda place: place.write_bytes(VIDEO))
    assert (tmp_path / FILE).read_bytes() == VIDEO
    assert (tmp_path / STRANGER).read_bytes() == b"a stranger"


SPOILT: dict[str, tuple[Landed, Callable[[Path], Any]]] = {
    "gone": (former(), lambda place: None),
    "cut": (former(), lambda place: place.write_bytes(VIDEO[:-1])),
    "altered": (former(), lambda place: place.write_bytes(VIDEO[:-1] + b"?")),
    "never a video": (former(b"<html>"), lambda place: place.write_bytes(b"<html>")),
}


@pytest.mark.parametrize(("state", "spoil"), SPOILT.values(), ids=SPOILT.keys())
def test_spoilt_former_version_is_not_restored(
    tmp_path: Path, state: Landed, spoil: Callable[[Path], Any]
) -> None:
    """It is fetched then, as if it were not here."""
    reached, _ = restored(tmp_path, state, spoil)
    assert reached is None
    assert not (tmp_path / FILE).exists()


def test_version_that_comes_and_goes_is_kept_once(tmp_path: Path) -> None:
    """Back at its place and displaced again, it is where it was."""
    other = video("7", 5000)

    async def story(stages: Stages) -> Stages:
        state = replace(former(), file=DISPLACED)
        put(tmp_path, DISPLACED, VIDEO)
        back = await stages.run.landing.restore(attempt(state), file=FILE)
        assert back is not None
        await stages.state.commit(Put(back))
        stages.api.queries = [LINK]
        stages.api.fetches = [Body([other], total=len(other))]
        await land(stages, of=attempt(generated("7"), name="kb-2"))
        return stages

    stages = play(tmp_path, story)
    assert file_of(stages, "kb-1") == DISPLACED
    assert names(tmp_path) == [DISPLACED, FILE]


@pytest.mark.parametrize("spoilt", ["gone", "cut", "altered", "never a video"])
def test_spoilt_former_version_leaves_no_second_name(tmp_path: Path, spoilt: str) -> None:
    """Fetched instead, it displaces the newer video once, to the place that the state records."""
    state, spoil = SPOILT[spoilt]

    async def story(stages: Stages) -> Stages:
        hold(stages)
        (tmp_path / FORMER).parent.mkdir(parents=True)
        spoil(tmp_path / FORMER)
        of = attempt(state)
        assert await stages.run.landing.restore(of, file=FILE) is None
        assert stages.state.commits == []
        assert file_of(stages) == FILE
        (tmp_path / FORMER).unlink(missing_ok=True)
        stages.api.fetches, stages.api.queries = [whole()], [LINK]
        assert await land(stages, of=of) is not None
        return stages

    stages = play(tmp_path, story)
    assert file_of(stages) == DISPLACED
    assert names(tmp_path) == [DISPLACED, FILE]


def test_concurrent_restores_do_not_mix(tmp_path: Path) -> None:
    videos = {name: video(name, 6000) for name in ("8", "9")}

    async def story(stages: Stages) -> list[Any]:
        def back(name: str) -> Awaitable[Any]:
            place = f"versions/{name}/20261120T023108Z.mp4"
            (tmp_path / place).parent.mkdir(parents=True)
            (tmp_path / place).write_bytes(videos[name])
            state = replace(former(videos[name], name), file=place)
            of = attempt(state, name=f"kb-{name}", job_id=name)
            return stages.run.landing.restore(of, file=f"videos/{name}.mp4")

        return await asyncio.gather(*map(back, videos))

    assert None not in play(tmp_path, story)
    for name, data in videos.items():
        assert (tmp_path / f"videos/{name}.mp4").read_bytes() == data
