"""Landing: a generated video takes its place, and what was there is kept as a former version."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from batch.attempt import Attempt, Checked, Generated, Landed
from batch.job import Failure, FailureKind, Video
from batch.media.check import MediaError, compare, inspect
from batch.output.layout import version_file, version_folder
from batch.output.part import Part
from batch.output.state import Put, State
from batch.output.videos import Videos
from batch.plan import Action, Decision
from batch.run.context import RunContext
from batch.run.fetch import FetchAbandonedError, Fetcher, FetchFailedError
from batch.run.presence import look
from batch.run.stop import StopReason

NOTHING_LANDS = frozenset({Action.UNCHANGED, Action.RESTING, Action.ORPHANED})
MAKES_WAY = frozenset({Action.CHANGED, Action.FORCED})  # for them a former video gets another name
LARGEST = 999  # of the numbers that tell former versions of one second apart
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
                return self._not_fetched(error)
            except OSError as error:
                return _troubled(attempt, self._disk_failure(error))

    async def _land(self, attempt: Attempt, link: str | None, file: str | None) -> Attempt:
        async with self._videos.part(attempt.external_task_id) as part:
            # What fails the check is downloaded again. Nothing else has happened until then: a
            # download that fails must leave the former video where it is.
            attempt, video = await self._fetcher.fetch(
                attempt, link, part, lambda: self._videos.finish(part, inspect)
            )
            assert isinstance(attempt.state, Generated | Landed)
            place = await self._take_place(attempt, part, file)
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
                )
            )

    async def restore(self, attempt: Attempt, *, file: str) -> Attempt | None:
        """Bring a version that is still here, and whole, back to *file*; None if there is none.

        It is known by its hash, also if a person has given it another name under versions/.
        """
        state = attempt.state
        if not isinstance(state, Landed):
            return None
        async with self._downloads:
            try:
                async with self._videos.part(attempt.external_task_id) as part:
                    if not await self._copy(attempt, state, part, file):
                        return None
                    await self._videos.finish(part, inspect)
                    await self._take_place(attempt, part, file)
            except (OSError, MediaError):
                return None  # it is fetched then, as if it were not here
        checked = None
        if part.sha256 != state.sha256:
            modified_at = self._videos.modified_at(file) or 0.0
            checked = Checked(part.size, modified_at, part.sha256)
        now = self._context.clock.now()
        return attempt.to(replace(state, file=file, landed_at=now, trouble=None, checked=checked))

    async def _copy(self, attempt: Attempt, state: Landed, part: Part, file: str) -> bool:
        """Fill *part* with a version that is not at *file*; return whether there is one."""
        sizes = {state.bytes, state.bytes if state.checked is None else state.checked.bytes}
        found = await self._videos.of_size(version_folder(attempt.job_id), sizes)
        for source in dict.fromkeys((state.file, *found)):
            if source == file or self._videos.modified_at(source) is None:
                continue
            await self._videos.run(part.copy_from, self._videos.layout.root / source)
            if part.sha256 in state.contents:
                return True
            await part.restart()
        return False

    # -- places

    async def _take_place(self, attempt: Attempt, part: Part, file: str | None) -> str:
        """Move a checked video to *file*, or to a place under versions/; return where it is.

        Raises:
            OSError: the disk; what was at *file* is still there.
        """
        if file is None:
            assert isinstance(attempt.state, Generated | Landed)
            at, own = attempt.state.generated_at, (attempt,)
            file = await self._version_place(part.path, attempt.job_id, at, own)
        else:
            await self._make_way(attempt, part, file)
        await self._videos.place(part, file)
        return file

    async def _make_way(self, attempt: Attempt, part: Part, file: str) -> None:
        """Keep the video that *attempt*'s will take the place of under versions/.

        Where the state knows it, its new place is committed before the old one is taken: at no
        moment does the state call one the other.

        Raises:
            OSError: the disk does not let it be kept; then nothing may take its place.
        """
        there = self._videos.layout.root / file
        holders = [
            holder
            for holder in await self._state.holders_of(file)
            if holder.external_task_id != attempt.external_task_id
        ]
        if not holders:
            await self._keep_unknown(attempt, part, file)
            return
        latest = holders[-1]
        assert isinstance(latest.state, Landed)
        name = await self._version_place(there, latest.job_id, latest.state.landed_at, holders)
        await self._videos.keep(file, name)
        moved = [await self._videos.run(_moved, holder, there, name) for holder in holders]
        await self._state.commit(*moved)

    async def _keep_unknown(self, attempt: Attempt, part: Part, file: str) -> None:
        """Keep a file that the state does not know, unless the same is here under another name."""
        modified_at = self._videos.modified_at(file)
        if modified_at is None or await self._videos.is_same(part, file):
            return
        # The state may know its content all the same: a run recorded the new place of a former
        # version and died before this one was taken.
        there = self._videos.layout.root / file
        if not await self._videos.twins(there, version_folder(attempt.job_id)):
            name = await self._version_place(there, attempt.job_id, modified_at, ())
            await self._videos.keep(file, name)

    async def _version_place(
        self, video: Path, job_id: str, at: float, own: Sequence[Attempt]
    ) -> str:
        """Return where a former version belongs: where it is already, or a name that is not taken.

        Args:
            video: the file itself, wherever it is now.
            job_id: whose version it is.
            at: when it landed.
            own: the attempts that it belongs to; no other may be recorded to be there.
        """
        ids = {attempt.external_task_id for attempt in own}

        async def is_free(name: str) -> bool:
            return all(h.external_task_id in ids for h in await self._state.holders_of(name))

        for twin in await self._videos.twins(video, version_folder(job_id)):
            if await is_free(twin):
                return twin
        name, number = version_file(job_id, at), 1
        while self._videos.modified_at(name) is not None or not await is_free(name):
            number += 1
            name = version_file(job_id, at, number)
        return name

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


def files_of(decisions: Iterable[Decision]) -> set[str]:
    """Return the files, relative to the output folder, that carrying out *decisions* may write."""
    files: set[str] = set()
    for decision in decisions:
        if decision.former or decision.action in MAKES_WAY:
            files.add(version_file(decision.job_id, 0.0, LARGEST))
        if decision.job is not None and decision.action not in NOTHING_LANDS:
            files.add(decision.job.video_path)
    return files


def _troubled(attempt: Attempt, failure: Failure) -> Attempt:
    assert isinstance(attempt.state, Generated | Landed)
    return attempt.to(replace(attempt.state, trouble=failure))


def _moved(holder: Attempt, before: Path, name: str) -> Put:
    """Return the change that records the new place of a former version, and edits found in it."""
    assert isinstance(holder.state, Landed)
    checked = holder.state.checked
    with contextlib.suppress(OSError):  # it is not there any more
        checked = look(before, holder) or checked
    return Put(holder.to(replace(holder.state, file=name, checked=checked, trouble=None)))


def _warnings(attempt: Attempt, video: Video) -> tuple[str, ...]:
    body = attempt.body()
    asked_s = body.get("duration")
    return compare(
        video,
        aspect_ratio=body.get("aspect_ratio"),
        duration=None if asked_s is None else float(asked_s),
    )
