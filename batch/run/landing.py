"""Landing: a generated video takes its place, and what was there is kept as a former version."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

from batch.attempt import Attempt, Generated, Landed
from batch.job import Failure, FailureKind, Video
from batch.media.check import MediaError, compare, inspect
from batch.output.layout import former_file
from batch.output.state import Put, State
from batch.output.videos import Videos
from batch.run.context import RunContext
from batch.run.fetch import FetchAbandonedError, Fetcher, FetchFailedError
from batch.run.stop import StopReason

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Landing:
    """Gives videos their places, a few at a time."""

    def __init__(
        self, context: RunContext, *, state: State, videos: Videos, fetcher: Fetcher
    ) -> None:
        self._context = context
        self._state = state
        self._videos = videos
        self._fetcher = fetcher
        self._downloads = asyncio.Semaphore(context.limits.max_downloads)

    async def land(self, attempt: Attempt, link: str | None, *, file: str) -> Attempt | None:
        """Fetch the video of an attempt to *file*: *Generated*, or *Landed* and its file is missed.

        A former video at *file* is kept. Of the attempt itself nothing is committed here.

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
                return self._not_fetched(error)
            except OSError as error:
                return _troubled(attempt, self._disk_failure(error))

    async def _land(self, attempt: Attempt, link: str | None, file: str) -> Attempt:
        keep_as: str | None = None
        async with self._videos.part(attempt.external_task_id) as part:

            async def settle() -> Video:
                # Only now: a download that fails must leave the former video where it is. And once:
                # a second time, the state would not know whose video is in the way.
                nonlocal keep_as
                keep_as = keep_as or await self._make_way(attempt, file)
                return await self._videos.land(part, file, keep_as=keep_as, check=inspect)

            attempt, video = await self._fetcher.fetch(attempt, link, part, settle)
            assert isinstance(attempt.state, Generated | Landed)
            return attempt.to(
                Landed(
                    task=attempt.paid_task,
                    generated_at=attempt.state.generated_at,
                    landed_at=self._context.clock.now(),
                    file=file,
                    bytes=part.size,
                    sha256=part.sha256,
                    video=video,
                    warnings=_warnings(attempt, video),
                )
            )

    async def restore(self, attempt: Attempt, *, file: str) -> Attempt | None:
        """Bring a former version that is still here, and whole, back to *file*; None if it is not."""
        state = attempt.state
        if not isinstance(state, Landed) or state.file == file:
            return None
        if not self._videos.is_present(state.file, state.bytes):
            return None
        async with self._downloads:
            try:
                async with self._videos.part(attempt.external_task_id) as part:
                    source = self._videos.layout.root / state.file
                    await self._videos.run(part.copy_from, source)
                    if part.sha256 != state.sha256:
                        return None
                    keep_as = await self._make_way(attempt, file)
                    await self._videos.land(part, file, keep_as=keep_as, check=inspect)
            except (OSError, MediaError):
                return None  # it is fetched then, as if it were not here
        now = self._context.clock.now()
        return attempt.to(replace(state, file=file, landed_at=now, trouble=None))

    async def _make_way(self, attempt: Attempt, file: str) -> str:
        """Keep the video that *attempt*'s will take the place of, and record where; return that.

        Committed before the place is taken: at no moment does the state call one the other.

        Raises:
            OSError: the disk does not let it be kept; then nothing may take its place.
        """
        holders = [
            holder
            for holder in await self._state.holders_of(file)
            if holder.external_task_id != attempt.external_task_id
        ]
        if not holders:
            return former_file(attempt.job_id, f"before-{attempt.external_task_id}")
        keep_as = former_file(holders[-1].job_id, holders[-1].external_task_id)
        await self._videos.keep(file, keep_as)
        await self._state.commit(*(_moved(holder) for holder in holders))
        return keep_as

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
        what = "was changed and is not whole" if self._videos.is_there(file) else "is missing"
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


def _troubled(attempt: Attempt, failure: Failure) -> Attempt:
    assert isinstance(attempt.state, Generated | Landed)
    return attempt.to(replace(attempt.state, trouble=failure))


def _moved(holder: Attempt) -> Put:
    assert isinstance(holder.state, Landed)
    file = former_file(holder.job_id, holder.external_task_id)
    return Put(holder.to(replace(holder.state, file=file)))


def _warnings(attempt: Attempt, video: Video) -> tuple[str, ...]:
    body = attempt.body()
    asked_s = body.get("duration")
    return compare(
        video,
        aspect_ratio=body.get("aspect_ratio"),
        duration=None if asked_s is None else float(asked_s),
    )
