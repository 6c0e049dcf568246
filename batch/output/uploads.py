"""The files of a library go to its bucket, and the state records what is there.

    what is there now is copied to where it belongs by now, and that is committed
      →  put, unless something else has come in between (or copied, if the bucket has it elsewhere)
      →  head: size and sha256 are right  →  commit Uploaded  →  the local copy goes, if it is to

A death before the commit leaves an object that the next run knows again by its metadata, or puts again.
An object of another origin is never overwritten or deleted. Workers that share a state share all this:
a local copy is then no more than a spool.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Self, TypeGuard

from batch.attempt import Attempt, Discarded, Landed
from batch.clock import Clock
from batch.frozen import frozen
from batch.output import disk, poster
from batch.output.bucket import Bucket, GoneError, Stored, TakenError
from batch.output.layout import version_file
from batch.output.state import NotUploaded, State, Uploaded

ROUNDS = 4  # in which what is in the way is looked at again


class ForeignError(Exception):
    """An object of another origin is where a file belongs; it stays."""


@frozen
class Item:
    """A file, what it holds, and the attempt whose video it is: None for a file beside a video."""

    file: str
    sha256: str
    attempt: str | None = None

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """Return the video of an attempt that has landed, as it is now."""
        state = attempt.state
        assert isinstance(state, Landed)
        return cls(state.file, state.latest.sha256, attempt.external_task_id)


class Uploads:
    """Uploads the files of the folder *root* to the bucket at *url*."""

    def __init__(
        self, bucket: Bucket, state: State, *, root: Path, url: str, library: str, clock: Clock
    ) -> None:
        self._bucket = bucket
        self._state = state
        self._root = root
        self._url = url
        self._library = library
        self._clock = clock
        self._copying = asyncio.Lock()  # a copy is not conditional: no other may come in between

    async def bring(self, item: Item) -> Uploaded | None:
        """Upload a file; return its record, None if it is there already.

        Raises:
            BucketError: the bucket cannot be used.
            ChangedError: the file was changed since, which the next plan finds.
            ForeignError: another object is in its place.
            OSError: the file cannot be read.
        """
        for _ in range(ROUNDS):
            record = await self._record(item.file)
            if record is not None and record.sha256 == item.sha256:
                return None
            try:
                if record is not None:
                    await self._make_way(record)
                stored = await self._transfer(item, record)
            except (TakenError, GoneError):
                await self._look_again(item.file)
            else:
                return await self._commit(item.file, stored)
        raise ForeignError(item.file)

    async def _record(self, file: str) -> Uploaded | None:
        found = await self._state.uploads(self._url, file=file)
        return found[0] if found else None

    async def _elsewhere(self, sha256: str, file: str) -> list[Uploaded]:
        """Return the records of a content under other names than *file*."""
        found = await self._state.uploads(self._url, sha256=sha256)
        return [record for record in found if record.file != file]

    async def _transfer(self, item: Item, record: Uploaded | None) -> Stored:
        """Copy what the bucket has already, or put the local file."""
        for twin in await self._elsewhere(item.sha256, item.file):
            stored = await self._copy(twin, item.file, record)
            return replace(stored, attempt=item.attempt)  # not the one whose video is the same
        replaces = None if record is None else _as_stored(record)
        stored = await self._bucket.put(
            item.file,
            self._root / item.file,
            sha256=item.sha256,
            attempt=item.attempt,
            replaces=replaces,
        )
        if stored.sha256 != item.sha256:
            raise TakenError(item.file)  # somebody was quicker
        return stored

    async def _copy(self, source: Uploaded, file: str, over: Uploaded | None) -> Stored:
        """Copy an object to *file*, in the place of what is *over*written."""
        async with self._copying:
            if not await self._is_there(source):
                raise GoneError(source.file)
            if not _is(await self._bucket.head(file), over):
                raise TakenError(file)
            stored = await self._bucket.copy(source.file, file)
            if (stored.sha256, stored.bytes) != (source.sha256, source.bytes):
                raise TakenError(file)
            return stored

    async def _commit(self, file: str, stored: Stored) -> Uploaded:
        record = Uploaded(
            self._url,
            file,
            str(stored.sha256),
            stored.bytes,
            self._clock.now(),
            stored.attempt,
            stored.e_tag,
            stored.version,
        )
        await self._state.commit(record)
        return record

    # -- what is in the way

    async def _make_way(self, record: Uploaded) -> None:
        """Copy what will be overwritten to where it belongs by now, unless the bucket has it there."""
        if await self._may_go(record):
            return
        owner = await self._attempt(str(record.external_task_id))
        place = await self._place_of(owner, record)
        there = await self._bucket.head(place)
        if not self._is_copy(there, record):
            there = await self._copy(record, place, None)
        await self._commit(place, there)

    async def _place_of(self, owner: Attempt | None, record: Uploaded) -> str:
        """Return where a video goes that makes way: its own place, or a name that is not taken."""
        state = None if owner is None else owner.state
        file, at = getattr(state, "file", record.file), getattr(state, "landed_at", None)
        if file != record.file and await self._record(file) is None:
            return str(file)
        job_id = record.file.removesuffix(".mp4").partition("/")[2]
        job_id, at = job_id if owner is None else owner.job_id, at or record.uploaded_at
        for number in count(1):
            name = version_file(job_id, at, number)
            is_free = not await self._state.holders_of(name) and await self._record(name) is None
            if is_free:
                found = await self._bucket.head(name)
                if found is None or self._is_copy(found, record):
                    return name
        raise AssertionError

    def _is_copy(self, found: Stored | None, record: Uploaded) -> TypeGuard[Stored]:
        """Return whether an object is a copy that was made and, by a death, not recorded."""
        if found is None or found.library != self._library:
            return False
        return _is(found, record) and found.attempt == record.external_task_id

    async def _look_again(self, file: str) -> None:
        """Record what is really there, if it is ours.

        Raises:
            ForeignError: it is not.
        """
        found, record = await self._bucket.head(file), await self._record(file)
        if found is None:
            if record is not None:
                await self._state.commit(NotUploaded(self._url, file))
        elif not _is(found, record) or found.e_tag != getattr(record, "e_tag", None):
            if not await self._is_ours(found):
                raise ForeignError(file)
            await self._commit(file, found)

    async def _is_ours(self, found: Stored) -> bool:
        if found.library != self._library or found.sha256 is None:
            return False
        return found.attempt is None or await self._attempt(found.attempt) is not None

    async def _attempt(self, external_task_id: str) -> Attempt | None:
        try:
            return await self._state.attempt(external_task_id)
        except KeyError:
            return None

    # -- what goes

    async def drop(self, record: Uploaded) -> bool:
        """Delete an object that is no longer wanted under its name, unless it is another by now.

        Returns:
            False where the bucket turns out to have that video nowhere else: it stays.

        Raises:
            BucketError: the bucket cannot be used.
        """
        if not await self._may_go(record):
            return False
        if await self._is_there(record):
            await self._bucket.delete(record.file)
            await self._state.commit(NotUploaded(self._url, record.file))
        return True

    async def _may_go(self, record: Uploaded) -> bool:
        """Return whether nothing is lost with an object: its video is elsewhere, too, or discarded."""
        if record.external_task_id is None:
            return True
        for twin in await self._elsewhere(record.sha256, record.file):
            if await self._is_there(twin):
                return True
        owner = await self._attempt(record.external_task_id)
        return owner is not None and isinstance(owner.state, Discarded)

    async def _is_there(self, record: Uploaded) -> bool:
        """Return whether an object is there as recorded; a record that is wrong is forgotten."""
        if _is(await self._bucket.head(record.file), record):
            return True
        if await self._record(record.file) == record:  # no other was put there meanwhile
            await self._state.commit(NotUploaded(self._url, record.file))
        return False

    async def remove_local(self, record: Uploaded) -> bool:
        """Remove the local copy of what is in the bucket; a file that holds something else stays.

        The picture of a video is kept, for the page.

        Returns:
            Whether no file is there any more.

        Raises:
            OSError: it cannot be removed.
        """
        path = self._root / record.file
        is_copy = await asyncio.to_thread(_holds, path, record.sha256)
        if is_copy:
            if record.external_task_id is not None and poster.has_pyav():
                with contextlib.suppress(OSError):  # a page without it is no reason to keep a video
                    await asyncio.to_thread(poster.keep, self._root, record.sha256, path)
            await asyncio.to_thread(disk.remove, path)
        return is_copy or not path.exists()

    # -- what is there

    async def lost(self) -> list[Uploaded]:
        """List the bucket; return, and forget, what is recorded and not there any more.

        Raises:
            BucketError: the bucket cannot be used.
        """
        listed = await self._bucket.list()
        lost = [
            record
            for record in await self._state.uploads(self._url)
            if not _is_listed(listed.get(record.file), record)
            and not _is(await self._bucket.head(record.file), record)
        ]
        if lost:
            await self._state.commit(*(NotUploaded(self._url, record.file) for record in lost))
        return lost


def _is(found: Stored | None, record: Uploaded | None) -> bool:
    """Return whether an object is what the record says."""
    if found is None or record is None:
        return found is None and record is None
    return record.sha256 == found.sha256 and record.bytes == found.bytes


def _is_listed(found: Stored | None, record: Uploaded) -> bool:
    """Return whether a listing shows what the record says; it does not tell the metadata."""
    names = (record.bytes, record.e_tag)
    return found is not None and (found.bytes, found.e_tag) == names


def _as_stored(record: Uploaded) -> Stored:
    return Stored(record.bytes, record.e_tag, record.version, record.sha256)


def _holds(path: Path, sha256: str) -> bool:
    try:
        return disk.sha256_of(path) == sha256
    except FileNotFoundError:
        return False
