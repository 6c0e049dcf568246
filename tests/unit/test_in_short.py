"""The attempts of many jobs in short: what they take in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from batch.output.in_short import PLAIN, Row, all_known

MANY = PLAIN + 1
SMALL = 420  # bytes for each attempt; as it is, one takes 850


def rows() -> Iterator[Row]:
    """Yield the rows of jobs that have their video."""
    for number in range(MANY):
        name = f"scene-{number:06}"
        ids = (f"kb-{number:032}", name, 1, f"v2:{number:032}", "Landed", f"{number:018}")
        landed = (None, f"videos/{name}.mp4", 5_000_000, number / 7, number + 0.5)
        yield (*ids, *landed, None, 0, None, None, None, None, number + 0.25)


def test_known_attempts_of_many_jobs_are_small() -> None:
    tracemalloc.start()
    try:
        known = all_known(rows())
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(known) == MANY
    assert used < SMALL * MANY, f"{used / MANY:.0f} bytes for each attempt"
