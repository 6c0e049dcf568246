"""Attempts in short, read from rows that both databases answer alike, and packed where there are many."""

from __future__ import annotations

import itertools
import marshal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from batch.attempt import Phase
from batch.job import PLAIN
from batch.plan import History, Known

Row = tuple[Any, ...]  # as `Known`, with the phase by name
PHASES = {phase.value: phase for phase in Phase}
_JOB, _NUMBER = attrgetter("job_id"), attrgetter("number")
_BY_NUMBER = itemgetter(2)


def to_known(row: Row) -> Known:
    """Return the attempt that a row stands for."""
    values = list(row)
    values[4] = PHASES[row[4]]
    return tuple.__new__(Known, values)  # as Known._make does, a call less for each of a million


def by_job(rows: Iterable[Row]) -> Iterator[list[Known]]:
    """Iterate over the jobs of rows that are sorted by job and number."""
    return (list(items) for _, items in itertools.groupby(map(to_known, rows), _JOB))


def all_known(rows: Iterable[Row]) -> History:
    """Return the attempts of all jobs, jobs by id and attempts by number, of rows in any order."""
    rows = iter(rows)
    first = list(itertools.islice(rows, PLAIN))
    if len(first) == PLAIN:
        return _Packed(itertools.chain(first, rows))
    found: dict[str, list[Known]] = {}
    for item in map(to_known, first):
        found.setdefault(item.job_id, []).append(item)
    for items in found.values():
        if len(items) > 1:
            items.sort(key=_NUMBER)
    return {job_id: found[job_id] for job_id in sorted(found)}


class _Packed(Mapping[str, Sequence[Known]]):
    """The same of many jobs, in a third of the memory; those of a job are unpacked when asked for."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._jobs: dict[str, bytes] = {}  # one row, or a list of them
        for row in rows:
            job_id = row[1]
            if job_id in self._jobs:
                rows_of = [*_rows(self._jobs[job_id]), row]
                self._jobs[job_id] = marshal.dumps(sorted(rows_of, key=_BY_NUMBER))
            else:
                self._jobs[job_id] = marshal.dumps(row)
        self._order = sorted(self._jobs)

    def __getitem__(self, job_id: str) -> Sequence[Known]:
        return list(map(to_known, _rows(self._jobs[job_id])))

    def get(self, job_id: str, default: Any = None) -> Any:
        """Return the attempts of a job: as a mapping does, which a plan asks for every job."""
        return self[job_id] if job_id in self._jobs else default

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


def _rows(packed: bytes) -> list[Row]:
    rows: list[Row] | Row = marshal.loads(packed)  # noqa: S302 - our own
    return rows if isinstance(rows, list) else [rows]
