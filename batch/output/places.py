"""Places of videos: at their jobs' names, and under versions/ once another one has displaced them.

Where the state knows a video that has to make way, its new place is committed before the old one is
taken: at no moment does the state call one the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from batch.attempt import Attempt, Checked, Generated, Landed
from batch.clock import Clock
from batch.job import video_path
from batch.media.check import inspect
from batch.output.checked import look
from batch.output.layout import VERSIONS, version_file, version_folder
from batch.output.part import Part
from batch.output.state import Put, State
from batch.output.videos import Videos

Fill = Callable[[Part, frozenset[str]], Awaitable[bool]]


async def no_copies(_part: Part, _contents: frozenset[str]) -> bool:
    """Fill nothing: there is no other place."""
    return False


def left_behind(attempt: Attempt) -> str | None:
    """Return the name under versions/ that a video leaves, or has left and may still have."""
    if not isinstance(attempt.state, Landed):
        return None
    state = attempt.state
    return state.file if state.file.startswith(f"{VERSIONS}/") else state.came_from


async def is_own(state: State, landed: Landed, found: Checked) -> bool:
    """Return whether what is in the place of a landed video is that, or an edit of it.

    What another attempt is known to have made is no edit: the disk or the backup that it came with is
    older than the state.
    """
    return found.sha256 in landed.contents or not await state.owners_of_content(found.sha256)


class Places:
    """Gives whole videos their places, and keeps what is there.

    *copies* fills a part with a video of one of these contents from elsewhere, if there is one.
    """

    def __init__(self, *, state: State, videos: Videos, copies: Fill = no_copies) -> None:
        self._state = state
        self._videos = videos
        self._copies = copies

    async def bring_back(self, attempt: Attempt, file: str, clock: Clock) -> Attempt | None:
        """Bring a version that is still here, and whole, back to *file*; None if there is none.

        Nothing is touched before its hash was checked. Of the attempt itself nothing is committed.

        Raises:
            OSError: the disk.
            MediaError: it is not a whole video, in spite of its hash.
        """
        state = attempt.state
        assert isinstance(state, Landed)
        async with self._videos.part(attempt.external_task_id) as part:
            if not await self._copy_version(attempt, state, part, file):
                return None
            await self._videos.finish(part, inspect)
            await self.take(attempt, part, file)
        checked = None
        if part.sha256 != state.sha256:
            modified_at = self._videos.modified_at(file) or 0.0
            checked = Checked(part.size, modified_at, part.sha256)
        back = replace(state, file=file, landed_at=clock.now(), first_at=state.came_at)
        back = replace(back, came_from=left_behind(attempt))
        return attempt.to(replace(back, trouble=None, checked=checked))

    async def vacate(self, back: Attempt) -> None:
        """Drop the name under versions/ that a video had until it was brought back.

        To be called once its new place is committed; until then the name is needed. One of other
        content, or of another attempt, stays.
        """
        if not isinstance(back.state, Landed) or back.state.came_from is None:
            return
        old, new = back.state.came_from, back.state.file
        if not await self._state.holders_of(old):
            await self._videos.drop(old, new)

    async def clear_name(self, job_id: str) -> None:
        """Drop the video at a job's name that no attempt has, where it is kept as a former version.

        A run died, or the disk failed, before it was recorded there, or once it was recorded elsewhere.
        """
        file, holders_of = video_path(job_id), self._state.holders_of
        if self._videos.modified_at(file) is None or await holders_of(file):
            return
        there = self._videos.layout.root / file
        for twin in await self._videos.twins(there, version_folder(job_id)):
            if await holders_of(twin):
                await self._videos.drop(file, twin)
                return

    async def _copy_version(self, attempt: Attempt, state: Landed, part: Part, file: str) -> bool:
        """Fill *part* with a version that is not known to be at *file*; return whether there is one."""
        sizes = {state.bytes, state.latest.bytes}
        found = await self._videos.of_size(version_folder(attempt.job_id), sizes)
        # A state that has forgotten a move names the old place of a video that stands at its new one.
        for source in dict.fromkeys((state.file, *found, file)):
            if source == file == state.file or not self._videos.is_file(source):
                continue
            await self._videos.run(part.copy_from, self._videos.layout.root / source)
            if part.sha256 in state.contents:
                return True
            await part.restart()
        return await self._copies(part, state.contents)

    async def take(self, attempt: Attempt, part: Part, file: str | None) -> str:
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
        holders = [
            holder
            for holder in await self._state.holders_of(file)
            if holder.external_task_id != attempt.external_task_id
        ]
        if not holders:
            await self._keep_unknown(attempt, part, file)
            return
        await self.retire(file, holders)

    async def retire(self, file: str, holders: Sequence[Attempt]) -> str:
        """Link the video of *holders* at *file* into versions/, and commit that it is there.

        Returns:
            Its new place. The old name is still there: to be replaced, or unlinked.

        Raises:
            OSError: the disk does not let it be kept; nothing is committed then.
        """
        there, latest = self._videos.layout.root / file, holders[-1]
        assert isinstance(latest.state, Landed)
        name = await self._version_place(there, latest.job_id, latest.state.came_at, holders)
        moved = [await self._moved(holder, there, name) for holder in holders]
        await self._videos.keep(file, name)  # last: what fails before it leaves no second name
        # Another job may have brought a video that was missed here to a place of its own meanwhile.
        await self._state.commit()  # first what waits to be written
        still = {holder.external_task_id for holder in await self._state.holders_of(file)}
        await self._state.commit(*(Put(it) for it in moved if it.external_task_id in still))
        return name

    async def _moved(self, holder: Attempt, before: Path, name: str) -> Attempt:
        """Return a holder with the new place of its video, and with what was edited in that.

        A video that is missing there is fetched again when it is wanted.
        """
        assert isinstance(holder.state, Landed)
        found, checked = None, holder.state.checked
        with contextlib.suppress(OSError):  # it is not there any more
            found = await self._videos.run(look, before, holder)
        if found is not None and await is_own(self._state, holder.state, found):
            checked = found
        return holder.to(replace(holder.state, file=name, checked=checked, trouble=None))

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
