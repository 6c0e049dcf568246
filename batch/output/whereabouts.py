"""Where the bytes of a video are: here, in the library's bucket, in another one, or nowhere.

What is in a bucket, the state says: nothing here asks one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from batch.output.state import Uploaded
from batch.output.store import Store
from batch.output.uploaded import videos_in
from batch.target import Target


class Where(StrEnum):
    """Where a video is found first."""

    HERE = "here"
    IN_BUCKET = "in_bucket"  # and not here
    ELSEWHERE = "elsewhere"  # only a bucket has it that is not the library's any more
    NOWHERE = "nowhere"


class Bytes(NamedTuple):
    """Where a video is. *record* is that of its bucket; of the library's own, if it is here, too."""

    where: Where
    record: Uploaded | None = None

    @property
    def url(self) -> str | None:
        """Its address in the bucket."""
        return None if self.record is None else f"{self.record.target}/{self.record.file}"


class Whereabouts:
    """Tells where videos are, in a library whose bucket is *target*.

    The state is read when something is asked for the first time.
    """

    def __init__(self, database: Store, target: Target | None) -> None:
        self._database = database
        self._target = target

    def of(self, file: str, *attempts: str, is_here: bool) -> Bytes:
        """Return where the video of *attempts* is, under whatever name a bucket has it.

        Args:
            file: where it is recorded to be in the folder, and belongs in a bucket.
            attempts: their external ids.
            is_here: whether it is there.
        """
        own = self._own.of(file, attempts)
        if is_here:
            return Bytes(Where.HERE, own)
        if own is not None:
            return Bytes(Where.IN_BUCKET, own)
        for bucket in self._others:
            if (record := bucket.of(file, attempts)) is not None:
                return Bytes(Where.ELSEWHERE, record)
        return Bytes(Where.NOWHERE)

    def unnamed(self, files: Container[str]) -> Iterator[Uploaded]:
        """Yield the videos in the library's bucket that have none of these names."""
        return (item for item in self._own.by_file.values() if item.file not in files)

    @cached_property
    def _own(self) -> _Records:
        return _Records(self._database, None if self._target is None else self._target.url)

    @cached_property
    def _others(self) -> list[_Records]:
        own = None if self._target is None else self._target.url
        return [_Records(self._database, url) for url in self._database.targets() if url != own]


class _Records:
    """The videos in one bucket, by their names and by their attempts."""

    def __init__(self, database: Store, url: str | None) -> None:
        found = () if url is None else videos_in(database, url)
        self.by_file = {item.file: item for item in found}
        self._by_attempt = {str(item.external_task_id): item for item in self.by_file.values()}

    def of(self, file: str, attempts: tuple[str, ...]) -> Uploaded | None:
        there = self.by_file.get(file)
        if there is not None and there.external_task_id in attempts:
            return there  # not what it was before it was edited, which has another name
        return next(filter(None, map(self._by_attempt.get, attempts)), None)
