"""Landing: a video takes its place, and what was there is kept as a former version."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from batch.job import STATE_FOLDER, Attempt, Failure, Generated, Landed
from batch.output.changes import Put
from batch.output.sqlite import Store
from batch.output.writer import Journal
from batch.run.download import Downloader
from batch.run.stop import Stop

SMALL_AT_ONCE = 32  # small videos that wait in memory for the disk, beside those that flow


class Landing:
    """Gives videos their places, a few at a time."""

    def __init__(
        self,
        *,
        downloader: Downloader,
        store: Store,
        journal: Journal,
        stop: Stop,
        max_downloads: int,
    ) -> None:
        self._downloader = downloader
        self._store = store
        self._journal = journal
        self._stop = stop
        self._downloads = asyncio.Semaphore(max_downloads)
        self._landings = asyncio.Semaphore(max_downloads + SMALL_AT_ONCE)

    async def land(self, attempt: Attempt, link: str | None, *, file: str) -> Attempt | None:
        """Download, and have what was there before kept as a former version."""
        async with self._landings:
            if self._stop.leaving.is_set():
                return None
            keep_as = await self._make_way(attempt, file)
            if isinstance(keep_as, Failure):
                state = attempt.state
                assert isinstance(state, Generated)
                return attempt.to(replace(state, trouble=keep_as))
            return await self._downloader.download(
                attempt, link, file=file, keep_as=keep_as, slot=self._downloads
            )

    async def restore(self, attempt: Attempt, *, file: str) -> Attempt | None:
        """Bring back a video that is kept as a former version; None if it is not here."""
        state = attempt.state
        if not isinstance(state, Landed) or state.file == file:
            return None
        async with self._downloads:
            keep_as = await self._make_way(attempt, file)
            if isinstance(keep_as, Failure):
                return None
            return await self._downloader.restore(attempt, file=file, keep_as=keep_as)

    async def _make_way(self, attempt: Attempt, file: str) -> str | Failure:
        """Keep the video that *attempt*'s will take the place of, and record where; return that.

        A failure instead, when the disk does not let it be kept: then nothing may take its place.

        Committed before the place is taken: at no moment does the state call one the other.
        """
        holders = [
            holder
            for holder in self._store.landed_at(attempt.job_id, file)
            if holder.external_task_id != attempt.external_task_id
        ]
        if not holders:
            return former_file(attempt.job_id, f"before-{attempt.external_task_id}")
        keep_as = former_file(attempt.job_id, holders[-1].external_task_id)
        failure = await self._downloader.keep(file, keep_as)
        if failure is not None:
            return failure
        await self._journal.commit(*(_moved(holder) for holder in holders))
        return keep_as


def former_file(job_id: str, owner: str) -> str:
    """Return where a former version's video is kept, relative to the output folder."""
    return f"{STATE_FOLDER}/former/{job_id}.{owner}.mp4"


def _moved(holder: Attempt) -> Put:
    state = holder.state
    assert isinstance(state, Landed)
    file = former_file(holder.job_id, holder.external_task_id)
    return Put(holder.to(replace(state, file=file)))
