"""Landing: a generated video takes its place, and what was there is kept as a former version."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace

from batch.attempt import Attempt, Generated, Landed
from batch.job import Failure, FailureKind, Video
from batch.media.check import MediaError, compare, inspect
from batch.output.layout import version_file
from batch.output.places import Fill, Places, left_behind, no_copies
from batch.output.state import State
from batch.output.videos import Videos
from batch.plan import Action, Decision
from batch.run.context import RunContext
from batch.run.fetch import FetchAbandonedError, Fetcher, FetchFailedError
from batch.run.stop import StopReason

NOTHING_TO_MAKE = frozenset({Action.RESTING, Action.UNCHANGED, Action.ORPHANED})
MAKES_WAY = frozenset({Action.CHANGED, Action.FORCED})  # for them a former video gets another name
LARGEST = 999  # of the numbers that tell former versions of one second apart
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Landing:
    """Gives videos their places, a few at a time: as many as *downloads* lets, or the limits."""

    def __init__(
        self,
        context: RunContext,
        *,
        state: State,
        videos: Videos,
        fetcher: Fetcher,
        downloads: asyncio.Semaphore | None = None,
        copies: Fill = no_copies,
    ) -> None:
        self._context = context
        self._videos = videos
        self._state = state
        self._places = Places(state=state, videos=videos, copies=copies)
        self._fetcher = fetcher
        self._downloads = downloads or asyncio.Semaphore(context.limits.max_downloads)

    async def land(self, attempt: Attempt, link: str | None, *, file: str | None) -> Attempt | None:
        """Fetch the video of an attempt to *file*: *Generated*, or *Landed* and its file is missed.

        A former video at *file* is kept. Of the attempt itself nothing is committed here. Without
        *file* it is a former version itself, and gets a place under versions/.

        Returns:
            The attempt *Landed*; as it was, with its trouble (the next run tries again); *Failed*
            (it never landed, and the provider no longer has it); or None when the run is being left.
        """
        async with self._downloads:
            if self._context.stop.leaving.is_set():
                return None
            try:
                return await self._land(attempt, link, file)
            except FetchAbandonedError:
                return None
            except FetchFailedError as error:
                return await self._where_it_is(self._not_fetched(error))
            except OSError as error:
                return await self._where_it_is(_troubled(attempt, self._disk_failure(error)))

    async def _land(self, attempt: Attempt, link: str | None, file: str | None) -> Attempt:
        async with self._videos.part(attempt.external_task_id) as part:
            # What fails the check is downloaded again. Nothing else has happened until then: a
            # download that fails must leave the former video where it is.
            attempt, video = await self._fetcher.fetch(
                attempt, link, part, lambda: self._videos.finish(part, inspect)
            )
            assert isinstance(attempt.state, Generated | Landed)
            place = await self._places.take(attempt, part, file)
            return attempt.to(
                Landed(
                    task=attempt.paid_task,
                    generated_at=attempt.state.generated_at,
                    landed_at=self._context.clock.now(),
                    file=place,
                    bytes=part.size,
                    sha256=part.sha256,
                    video=video,
                    warnings=_warnings(attempt, video),
                    pin=getattr(attempt.state, "pin", None),
                    first_at=getattr(attempt.state, "came_at", None),
                    came_from=left_behind(attempt),
                )
            )

    async def _where_it_is(self, attempt: Attempt) -> Attempt:
        """Return an attempt with the place that is recorded now: another may have taken its own.

        Two attempts recorded in one file would each be taken for an edit of the other.
        """
        if not isinstance(attempt.state, Landed):
            return attempt
        now = (await self._state.attempt(attempt.external_task_id)).state
        assert isinstance(now, Landed)
        return attempt.to(replace(attempt.state, file=now.file, checked=now.checked))

    async def restore(self, attempt: Attempt, *, file: str) -> Attempt | None:
        """Bring a version that is still here, and whole, back to *file*; None if there is none.

        It is known by its hash, also if a person has given it another name under versions/.
        """
        if not isinstance(attempt.state, Landed):
            return None
        async with self._downloads:
            try:
                return await self._places.bring_back(attempt, file, self._context.clock)
            except (OSError, MediaError):
                return None  # it is fetched then, as if it were not here

    async def vacate(self, back: Attempt) -> None:
        """Drop the name that a version had until it came *back*, copied or fetched: see `Places`."""
        with contextlib.suppress(OSError):
            await self._places.vacate(back)

    async def clear_name(self, job_id: str) -> None:
        """Drop the video at a job's name that no attempt has: see `Places`."""
        with contextlib.suppress(OSError):
            await self._places.clear_name(job_id)

    def _not_fetched(self, error: FetchFailedError) -> Attempt:
        """Return the attempt whose video could not be fetched.

        What has landed stays so, whatever the provider says: the file may come back.
        """
        attempt, failure = error.attempt, error.failure
        if isinstance(attempt.state, Landed):
            return _troubled(
                attempt, self._missed(attempt.state.file, failure, is_gone=error.is_gone)
            )
        if error.is_gone:
            return attempt.failed(self._context.clock.now(), failure)
        return _troubled(attempt, failure)

    def _missed(self, file: str, failure: Failure, *, is_gone: bool) -> Failure:
        """Return *failure* with the words for a video that was here once."""
        is_there = self._videos.modified_at(file) is not None
        what = "was changed and is not whole" if is_there else "is missing"
        hint = "" if self._videos.had_any else " (as are all others: is a disk not mounted?)"
        if is_gone:
            message = (
                f"{file} {what}{hint}, and the provider no longer keeps it (30 days). Mount its disk or"
                " restore it from a backup, and run again; or pay for it again with --force"
            )
        else:
            message = (
                f"{file} {what}{hint}, and could not be downloaded again: {failure.message}."
                " It stays paid for, and the next run looks for it again"
            )
        return replace(failure, message=message)

    def _disk_failure(self, error: OSError) -> Failure:
        """Return what the disk reported; a full one stops the run from paying for more."""
        what = error.strerror or type(error).__name__
        if error.errno not in NO_ROOM:
            message = (
                f"the video cannot be written ({what}); correct that and run again, it is paid for"
            )
            return Failure(FailureKind.DISK, message)
        self._context.stop.ask(
            StopReason.DISK, f"the disk takes no more videos ({what}); nothing more is submitted"
        )
        message = f"no space left for the video ({what}); make room and run again, it is paid for"
        return Failure(FailureKind.DISK, message)


def files_of(decisions: Iterable[Decision]) -> Iterator[str]:
    """Yield the files, relative to the output folder, that carrying out *decisions* may write."""
    for decision in decisions:
        if decision.former or decision.action in MAKES_WAY:
            yield version_file(decision.job_id, 0.0, LARGEST)
        if decision.job is not None and decision.action not in NOTHING_TO_MAKE:
            yield decision.job.video_path


def _troubled(attempt: Attempt, failure: Failure) -> Attempt:
    assert isinstance(attempt.state, Generated | Landed)
    return attempt.to(replace(attempt.state, trouble=failure))


def _warnings(attempt: Attempt, video: Video) -> tuple[str, ...]:
    body = attempt.body()
    asked_s = body.get("duration")
    return compare(
        video,
        aspect_ratio=body.get("aspect_ratio"),
        duration=None if asked_s is None else float(asked_s),
    )
