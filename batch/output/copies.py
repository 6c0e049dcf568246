"""What the buckets of a library still have of a video: asked before the provider."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from batch.errors import BatchError
from batch.output.bucket import Bucket, GoneError
from batch.output.part import Part
from batch.output.state import State, Uploaded


class Copies:
    """The copies of videos in the buckets *urls*. Use as a context manager; opens them when needed."""

    def __init__(self, state: State, urls: list[str], library: str) -> None:
        self._state = state
        self._urls = urls
        self._library = library
        self._exits = ExitStack()
        self._open: dict[str, Bucket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._exits.close()

    async def fill(self, part: Part, contents: frozenset[str]) -> bool:
        """Fill a part with a copy of one of *contents*; return whether there was one."""
        for url in list(self._urls):
            for sha256 in contents:
                for record in await self._state.uploads(url, sha256=sha256):
                    if await self._fill(part, url, record):
                        return True
        return False

    async def _fill(self, part: Part, url: str, record: Uploaded) -> bool:
        try:
            await self._bucket(url).get(record.file, part.fill)
        except GoneError:
            pass
        except BatchError:  # it does not answer, or obstore is not installed: not asked again
            self._urls = [other for other in self._urls if other != url]
        if part.sha256 == record.sha256:
            return True
        await part.restart()
        return False

    def _bucket(self, url: str) -> Bucket:
        if url not in self._open:
            bucket = Bucket.open(url, library=self._library)
            self._open[url] = self._exits.enter_context(bucket)
        return self._open[url]
