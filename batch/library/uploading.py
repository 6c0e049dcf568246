"""A library's bucket is brought up to date: what landed, moved, was displaced or discarded since.

    list, where that is due or local copies are to go: what is lost is uploaded again, or fetched by the next run
      →  videos, former ones, too  →  what is there under an old name goes
      →  the files beside the videos  →  index.json, last and only once all videos are there
      →  local copies go, where they are to

What cannot be done is left to the next run; nothing here ever leads to a new task.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from pathlib import Path

from batch.attempt import Landed
from batch.clock import Clock
from batch.output import sidecar
from batch.output.bucket import AT_ONCE, Bucket, BucketError, ChangedError
from batch.output.checked import check
from batch.output.direct import DirectState
from batch.output.folder import OutputFolder
from batch.output.places import is_own
from batch.output.stale import stale
from batch.output.state import Fact, Put, State, Uploaded
from batch.output.uploaded import (
    DERIVED_THERE,
    Found,
    derived_now,
    has_to_verify,
    is_unverified,
    to_remove,
    to_upload,
    verified,
)
from batch.output.uploads import ForeignError, Item, Uploads
from batch.target import Target

INDEX = "index.json"
NOT_IT = "is not what landed there: put that back, or delete it"


async def settle(
    folder: OutputFolder, target: Target, clock: Clock, found: Found | None = None
) -> Found:
    """Bring the bucket up to date with the folder, as far as that goes now.

    Args:
        folder: the folder; nobody else commits to its state meanwhile.
        target: the bucket.
        clock: the time.
        found: what a run has uploaded already.
    """
    found = found or Found(target.url)
    try:
        state = DirectState(folder.database, folder.results)
        with Bucket.open(target.url, library=folder.library) as bucket:
            uploads = uploads_of(folder, target, bucket, state, clock)
            await _Settling(folder, target, state, uploads, found).run(clock.now())
    except BucketError as error:
        found.trouble = str(error)
        found.pending = list(to_upload(folder.database, folder.layout.root, target))
    return found


def uploads_of(
    folder: OutputFolder, target: Target, bucket: Bucket, state: State, clock: Clock
) -> Uploads:
    """Return what uploads the files of a folder."""
    root, library = folder.layout.root, folder.library
    return Uploads(bucket, state, root=root, url=target.url, library=library, clock=clock)


class _Settling:
    """One time that a bucket is brought up to date."""

    def __init__(
        self, folder: OutputFolder, target: Target, state: State, uploads: Uploads, found: Found
    ) -> None:
        self._folder, self._database = folder, folder.database
        self._root = folder.layout.root
        self._target = target
        self._state = state
        self._uploads = uploads
        self._found = found

    async def run(self, now: float) -> None:
        """Do all that is due."""
        await self._verify(now)
        await self._bring_videos()
        surplus = self._database.surplus(self._target.url)
        if not all([await self._uploads.drop(record) for record in surplus]):
            await self._bring_videos()  # what they are copies of is not there any more
        await self._bring_derived()
        for record in list(to_remove(self._database, self._root, self._target)):
            if not await self._uploads.remove_local(record):
                await self._bring_edited(record)

    async def _verify(self, now: float) -> None:
        # Before a local copy goes on the word of an earlier run, the bucket is asked.
        is_relied_on = next(to_remove(self._database, self._root, self._target), None) is not None
        if is_relied_on or has_to_verify(self._database, self._target, now):
            # One that is to go is no loss: a run may have died once it had deleted it.
            surplus = {record.file for record in self._database.surplus(self._target.url)}
            lost = await self._uploads.lost()
            self._found.lost = [
                record.file
                for record in lost
                if record.external_task_id is not None
                and record.file not in surplus
                and not (self._root / record.file).is_file()
            ]
        elif not is_unverified(self._database, self._target):
            return
        await self._state.commit(verified(self._database, self._target, now))

    async def _bring_videos(self) -> None:
        slots, errors = asyncio.Semaphore(AT_ONCE), list[BucketError]()

        async def bring(file: str) -> None:
            async with slots:
                if not errors:  # else the rest would wait for nothing
                    try:
                        await self._bring(Item.of((await self._state.holders_of(file))[-1]))
                    except BucketError as error:
                        errors.append(error)

        files = list(to_upload(self._database, self._root, self._target))
        await all_of(map(bring, files))
        if errors:
            raise errors[0]

    async def _bring(self, item: Item) -> None:
        """Upload a file; what stands in its way is noted."""
        try:
            self._found.add(await self._uploads.bring(item))
        except ForeignError:
            self._found.foreign.append(item.file)
        except ChangedError:
            edited = await self._edited(item)
            if edited is not None:
                await self._bring(edited)
                return
            self._found.pending.append(item.file)
            what = "was changed meanwhile" if item.attempt is None else NOT_IT
            self._found.trouble = f"{item.file} {what}"
        except OSError as error:
            self._found.pending.append(item.file)
            self._found.trouble = f"it cannot be read: {error.strerror or error}"

    async def _bring_edited(self, record: Uploaded) -> None:
        """Upload a video that was put where only the bucket had it, if it is whole, and remove it here.

        Else it stays: it is not known.
        """
        for holder in await self._state.holders_of(record.file):
            edited = await self._edited(Item.of(holder))
            if edited is not None:
                await self._bring(edited)
                for now in await self._state.uploads(self._target.url, file=record.file):
                    await self._uploads.remove_local(now)

    async def _edited(self, item: Item) -> Item | None:
        """Return an edited video as it is now, and record it; None if it is not whole, or another's.

        A plan looks only at videos that stand: a former version, or an orphan, is read first here.
        """
        if item.attempt is None:
            return None
        owner = await self._state.attempt(item.attempt)
        assert isinstance(owner.state, Landed)
        try:
            checked = await asyncio.to_thread(check, self._root / item.file, owner)
        except OSError:
            return None
        if checked is None or checked.sha256 == item.sha256:
            return None
        if not await is_own(self._state, owner.state, checked):
            return None
        edited = owner.to(replace(owner.state, checked=checked))
        await self._state.commit(Put(edited), *stale(self._database, [owner.job_id]))
        return Item.of(edited)

    async def _bring_derived(self) -> None:
        """Upload the files beside the videos that are there, then index.json."""
        there = derived_now(self._database, self._target)
        if there is None or self._database.fact(DERIVED_THERE) == there:
            return
        records = {item.file: item for item in await self._state.uploads(self._target.url)}
        beside = [
            name
            for file, record in records.items()
            if record.external_task_id is not None
            for name in sidecar.beside(file)
        ]
        for name in beside:
            if (sha256 := await asyncio.to_thread(_hash_of_ours, self._root / name)) is not None:
                await self._bring(Item(name, sha256))
        for name, record in records.items():
            is_beside = record.external_task_id is None and name != INDEX
            if is_beside and not (self._root / name).is_file():
                await self._uploads.drop(record)
        if not self._found.is_whole:
            return  # index.json names videos that are not there yet
        if (sha256 := await asyncio.to_thread(_hash_of_ours, self._root / INDEX)) is not None:
            await self._bring(Item(INDEX, sha256))
        if self._found.is_whole:
            await self._state.commit(Fact(DERIVED_THERE, there))


def _hash_of_ours(path: Path) -> str | None:
    """Return the hash of a file beside a video; None unless it is there and written here."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return hashlib.sha256(data).hexdigest() if data and sidecar.is_ours(data) else None


async def all_of(works: Iterable[Awaitable[None]]) -> None:
    """Do all *works*; raise the first error once no other is under way."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if result is not None:
            raise result
