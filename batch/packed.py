"""Long lists of plain values, kept in a fraction of their memory."""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Iterator
from typing import Any

BLOCK = 1_024  # items packed together: a short list is kept as it is
FAST = 1  # zlib's level: half a step smaller would take three times as long


class Packed:
    """A list of tuples of texts, numbers and such tuples; what was appended does not change."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._last: list[tuple[Any, ...]] = []
        self._open: tuple[int, list[tuple[Any, ...]]] = (-1, [])  # the block that was read last

    def append(self, item: tuple[Any, ...]) -> None:
        """Add an item at the end."""
        self._last.append(item)
        if len(self._last) == BLOCK:
            self._blocks.append(zlib.compress(marshal.dumps(self._last), FAST))
            self._last = []

    def __len__(self) -> int:
        return len(self._blocks) * BLOCK + len(self._last)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for packed in self._blocks:
            yield from _unpacked(packed)
        yield from self._last

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        """Return the item at *place*, from 0; quick for one after the other."""
        number, within = divmod(place, BLOCK)
        if number == len(self._blocks):
            return self._last[within]
        if number != self._open[0]:
            self._open = number, _unpacked(self._blocks[number])
        return self._open[1][within]


def _unpacked(packed: bytes) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, ...]] = marshal.loads(zlib.decompress(packed))  # noqa: S302 - our own
    return items
