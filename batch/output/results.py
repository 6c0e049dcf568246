"""results.jsonl: derived from the database, appended to, repaired, never rewritten."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from batch.attempt import Attempt, Landed
from batch.errors import RefusedError, StateError
from batch.output.layout import version_file
from batch.output.recall import read_row, recall
from batch.output.state import FORGOT_AT, AddRow, Fact, Put
from batch.output.store import Store, last_run
from batch.redact import clean

CLOCKS_DIFFER_S = 2.0  # the file server's from ours; beyond that, the file is read in vain


class Row(NamedTuple):
    """A line of the file, and the attempt that it reports; whether the database knows that."""

    line: bytes
    attempt: Attempt
    is_known: bool


class ResultsFile:
    """The results file of one output folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_torn = False
        self._has_grown = False

    def unknown(self, database: Store) -> list[Row]:
        """Return the rows that the database lacks.

        If there are any, it is older than the file: a restored backup, a lost log. A row that somebody
        has changed is none of them: what it was is missing, or was appended behind it since.

        Raises:
            StateError: the file cannot be read, or a row names a task that the database does not
                know, and does not say enough to collect it.
        """
        try:
            if self._size() == database.result_bytes() and not self._is_touched(database):
                return []
            recorded = {_digest(line) for line in database.result_lines()}
            lines = enumerate(self._lines())
            said = [
                (at, line, read_row(line)) for at, line in lines if _digest(line) not in recorded
            ]
            if not any(row for _, _, row in said):
                return []
            places = self._places(recorded, database)
        except OSError as error:
            raise self._cannot_be_used(error) from error
        known = _ids_of(database)
        rows = []
        for at, line, row in said:
            if any(places.get(name, at) > at for name in _ids(row)):
                continue
            attempt = recall(row)
            if attempt is not None:
                rows.append(Row(line, attempt, is_known=attempt.external_task_id in known))
            elif _names_task(row) and known.isdisjoint({row["external_task_id"], row["task_id"]}):
                raise self._does_not_say_enough(row["task_id"], database)
        return rows

    def _places(self, recorded: set[bytes], database: Store) -> dict[str, float]:
        """Return where the last row of the state is that names an id; infinity if the file lacks one."""
        places: dict[str, float] = {}
        present = set()
        for at, line in enumerate(self._lines()):
            if (digest := _digest(line)) in recorded:
                present.add(digest)
                places |= dict.fromkeys(_ids(read_row(line)), at)
        for text in database.result_lines():
            if _digest(text) not in present:
                places |= dict.fromkeys(_ids(read_row(text.encode())), math.inf)
        return places

    def recall(self, rows: list[Row], database: Store, now: float) -> None:
        """Record what *rows* report, and that the database had forgotten it.

        Raises:
            StateError: that would give a task two owners, or a job two unfinished attempts.
        """
        numbers = {job_id: items[-1].number for job_id, items in database.known().items()}
        recalled: dict[str, Attempt] = {}
        for row in rows:
            attempt = row.attempt
            if row.is_known:
                continue
            before = recalled.get(attempt.external_task_id)
            if before is None or before.job_id != attempt.job_id:  # it was made, or has moved
                numbers[attempt.job_id] = numbers.get(attempt.job_id, 0) + 1
            recalled[attempt.external_task_id] = replace(attempt, number=numbers[attempt.job_id])
        lines = [AddRow(row.line.decode()) for row in rows]
        forgotten = Fact(FORGOT_AT, repr(now))
        recalled |= _displaced(rows, recalled, database)
        try:
            database.write([*(Put(attempt) for attempt in recalled.values()), *lines, forgotten])
        except RefusedError as error:
            task_id = rows[-1].attempt.task_id
            raise self._does_not_say_enough(str(task_id), database) from error

    def _does_not_say_enough(self, task_id: str, database: Store) -> StateError:
        return StateError(
            f"{self._path} names the paid task {clean(task_id)}, which the state in"
            f" {database.path.parent} does not know: that state is older than the results, and its"
            " row does not say enough to collect it; nothing was sent. Restore a newer state; or, to"
            " continue with this one and pay again for the tasks that it lacks, move results.jsonl"
            " away"
        )

    def repair(self, database: Store) -> int:
        """Cut off torn lines and append missing ones; return the number of those.

        Raises:
            StateError: the file cannot be read or written.
        """
        try:
            return self._repair(database)
        except OSError as error:
            raise self._cannot_be_used(error) from error

    def _size(self) -> int:
        if not self._path.exists():
            return 0
        if not self._path.is_file():  # to open a pipe is to wait for its writer
            raise OSError(errno.EINVAL, "it is not a regular file")
        return self._path.stat().st_size

    def _is_touched(self, database: Store) -> bool:
        """Return whether the file was written to since the last run ended, as far as clocks tell."""
        run = last_run(database)
        ended_at = None if run is None else run[2]
        if ended_at is None or not self._path.exists():
            return False
        return self._path.stat().st_mtime > ended_at + CLOCKS_DIFFER_S

    def _repair(self, database: Store) -> int:
        size = self._size()
        run = last_run(database)
        has_ended = run is None or run[2] is not None
        # After a death the size proves nothing: the machine may have died too, and unflushed bytes
        # be zeros.
        is_as_left = size == database.result_bytes() and not self._is_touched(database)
        if is_as_left and has_ended:
            return 0
        present = self._cut_torn_line() if size else set()
        missing: list[str] = []
        newest: dict[object, str] = {}  # of each job, from the first missing line on
        for line in database.result_lines():
            if _digest(line) not in present:
                missing.append(line)
            if missing:
                newest[_job_of(line)] = line
        # No job's older line may be its last: its newest is repeated behind an appended older one.
        appended = {_job_of(line): line for line in missing}
        again = [newest[job] for job, line in appended.items() if newest[job] != line]
        self.append([*missing, *again])
        # Flush the lines of a dead run now: the end of this run declares the file complete.
        self._has_grown = self._has_grown or size > 0
        self.flush()
        return len(missing)

    def append(self, lines: list[str]) -> None:
        """Append *lines* in one write.

        Raises:
            StateError: the last line may be torn; this object appends no more.
        """
        if not lines:
            return
        if self._is_torn:
            raise StateError(f"{self._path} ends in half a line; the next run repairs it")
        data = "".join(f"{line}\n" for line in lines).encode()
        self._has_grown = True
        self._is_torn = True  # until all is written: no line may follow half a line
        try:
            with self._path.open("ab", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise self._cannot_be_used(error) from error
        self._is_torn = False

    def flush(self) -> None:
        """Flush the file to the disk.

        Raises:
            StateError: that fails.
        """
        if not self._has_grown:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._cannot_be_used(error) from error

    def _cannot_be_used(self, error: OSError) -> StateError:
        return StateError(
            f"{self._path} cannot be used ({error.strerror or error}); correct that and run again:"
            " nothing is lost, the next run adds the missing lines"
        )

    def _lines(self) -> Iterator[bytes]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                yield _bare(line)

    def _cut_torn_line(self) -> set[bytes]:
        present: set[bytes] = set()
        with self._path.open("rb+") as file:
            end = 0
            for line in file:
                if not line.endswith(b"\n") or b"\0" in line:
                    file.truncate(end)
                    break
                end += len(line)
                present.add(_digest(_bare(line)))
        return present


def _displaced(
    rows: list[Row], recalled: dict[str, Attempt], database: Store
) -> dict[str, Attempt]:
    """Return the attempts whose video another one's has displaced, by what *rows* say, where it went.

    A former version has no row of its own for that.
    """
    stands = {
        row.attempt.state.file: row.attempt for row in rows if type(row.attempt.state) is Landed
    }
    forgotten: dict[str, list[Attempt]] = {}
    for one in recalled.values():
        if isinstance(one.state, Landed):
            forgotten.setdefault(one.state.file, []).append(one)
    displaced: dict[str, Attempt] = {}
    for file, latest in stands.items():
        before = list(forgotten.get(file, ()))
        if latest.external_task_id in recalled:  # else the state knows best where its own stand
            before += database.holders_of(file)
        for one in before:
            if one.external_task_id != latest.external_task_id and isinstance(one.state, Landed):
                place = version_file(one.job_id, one.state.came_at)
                displaced[one.external_task_id] = one.to(replace(one.state, file=place))
    return displaced


def _names_task(row: dict[str, Any]) -> bool:
    return all(isinstance(row.get(name), str) for name in ("external_task_id", "task_id"))


def _ids(row: dict[str, Any]) -> set[str]:
    """Return by which ids a row names its task."""
    ids = (row.get("external_task_id"), row.get("task_id"))
    return {value for value in ids if isinstance(value, str)}


def _ids_of(database: Store) -> set[str | None]:
    """Return the external ids and task ids of all attempts."""
    known = [item for items in database.known().values() for item in items]
    return {item.external_task_id for item in known} | {item.task_id for item in known}


def _bare(line: bytes) -> bytes:
    """Return a line of the file as the state has it: editors write line ends, and a mark, of their own."""
    return line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")


def _job_of(line: str) -> object:
    return json.loads(line).get("job_id")


def _digest(line: str | bytes) -> bytes:
    data = line.encode() if isinstance(line, str) else line
    return hashlib.blake2b(data, digest_size=16).digest()
