"""results.jsonl: derived from the database, appended to, repaired, never rewritten."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from batch.errors import StateError
from batch.output.sqlite import Database
from batch.redact import clean


class ResultsFile:
    """The results file of one output folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_torn = False
        self._has_grown = False

    def repair(self, database: Database) -> int:
        """Cut off torn lines and append missing ones; return the number of those.

        Raises:
            StateError: the file cannot be read or written, or names tasks that the database does
                not know. Nothing was changed.
        """
        try:
            return self._repair(database)
        except OSError as error:
            raise self._cannot_be_used(error) from error

    def check(self, database: Database) -> None:
        """Compare the file with the database, without changing anything.

        Raises:
            StateError: it names a task that the database does not know. The database is older than
                the file (a restored backup, a lost log), and a run would pay for that task again.
        """
        try:
            if self._size() != database.result_bytes():
                self._check(database)
        except OSError as error:
            raise self._cannot_be_used(error) from error

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _check(self, database: Database) -> None:
        known = {_digest(line) for line in database.result_lines()}
        for line in self._lines():
            if _digest(line) in known:
                continue
            task_id, external_task_id = _task_of(line)
            if task_id and external_task_id and not database.has_attempt(external_task_id):
                raise StateError(
                    f"{self._path} names the paid task {clean(task_id)}, which the state in"
                    f" {database.path.parent} does not know: that state is older than the results;"
                    " nothing was sent. Restore a newer one; or, to continue with this one and pay"
                    " again for the tasks that it lacks, move results.jsonl away"
                )

    def _repair(self, database: Database) -> int:
        size = self._size()
        last_run = database.last_run()
        has_ended = last_run is None or last_run[2] is not None
        # After a death the size proves nothing: the machine may have died too, and unflushed bytes
        # be zeros.
        if size == database.result_bytes() and has_ended:
            return 0
        self._check(database)
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
                yield line.removesuffix(b"\n")

    def _cut_torn_line(self) -> set[bytes]:
        present: set[bytes] = set()
        with self._path.open("rb+") as file:
            end = 0
            for line in file:
                if not line.endswith(b"\n") or b"\0" in line:
                    file.truncate(end)
                    break
                end += len(line)
                present.add(_digest(line[:-1]))
        return present


def _task_of(line: bytes) -> tuple[str | None, str | None]:
    """Return task id and external id of a line; None where it has none, or is torn."""
    try:
        row = json.loads(line)
    except ValueError:
        return None, None
    row = row if isinstance(row, dict) else {}
    ids = (row.get("task_id"), row.get("external_task_id"))
    task_id, external_task_id = (found if isinstance(found, str) else None for found in ids)
    return task_id, external_task_id


def _job_of(line: str) -> object:
    return json.loads(line).get("job_id")


def _digest(line: str | bytes) -> bytes:
    data = line.encode() if isinstance(line, str) else line
    return hashlib.blake2b(data, digest_size=16).digest()
