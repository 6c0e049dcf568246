"""results.jsonl: appended to, never rewritten, mended from the state that it is derived from."""

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
    """results.jsonl: appended to, never rewritten, mended from the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_torn = False
        self._has_grown = False

    def mend(self, database: Database) -> int:
        """Cut what is torn, append the rows that are missing; return how many were.

        Raises:
            StateError: the file cannot be read or written, or tells of tasks that the state has
                forgotten. Nothing was changed.
        """
        try:
            return self._mend(database)
        except OSError as error:
            raise self._cannot_be_used(error) from error

    def check(self, database: Database) -> None:
        """Compare the file with the state that it is derived from, without changing anything.

        Raises:
            StateError: it tells of a task that the state does not know. The state is older than the
                file then, a backup put back or a log lost: to go on would pay for that task again.
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
                    f"{self._path} tells of the paid task {clean(task_id)}, which the state in"
                    f" {database.path.parent} does not know: that state is older than the results;"
                    " nothing was sent. Restore a newer one; or, to go on with this one and pay again"
                    " for what it has forgotten, move results.jsonl away"
                )

    def _mend(self, database: Database) -> int:
        size = self._size()
        last_run = database.last_run()
        has_ended = last_run is None or last_run[2] is not None
        # After a death the size alone says nothing: the machine may have died, too, and what was
        # not flushed be zeros.
        if size == database.result_bytes() and has_ended:
            return 0
        self._check(database)
        present = self._cut_torn_line() if size else set()
        missing: list[str] = []
        newest: dict[object, str] = {}  # of each job; what is older than all that is missing is not
        for line in database.result_lines():
            if _digest(line) not in present:
                missing.append(line)
            if missing:
                newest[_job_of(line)] = line
        # No job's older line may come last: where one is appended behind its newest, that follows.
        appended = {_job_of(line): line for line in missing}
        again = [newest[job] for job, line in appended.items() if newest[job] != line]
        self.append([*missing, *again])
        # A dead run may have left its lines unflushed: whoever ends this one says that they are there.
        self._has_grown = self._has_grown or size > 0
        self.flush()
        return len(missing)

    def append(self, lines: list[str]) -> None:
        """Append *lines* in one write.

        Raises:
            StateError: some of it may be missing; nothing more is appended by this object.
        """
        if not lines:
            return
        if self._is_torn:
            raise StateError(f"{self._path} ends in half a line; the next run mends it")
        data = "".join(f"{line}\n" for line in lines).encode()
        self._has_grown = True
        self._is_torn = True  # until all of it is there: nothing may ever follow half a line
        try:
            with self._path.open("ab", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise self._cannot_be_used(error) from error
        self._is_torn = False

    def flush(self) -> None:
        """Bring what was appended through the operating system's cache.

        Raises:
            StateError: it cannot be.
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
            f"{self._path} cannot be used ({error.strerror or error}); mend that and run again:"
            " nothing is lost, the next run adds the lines that are missing"
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
    """Return task id and external id of a line; None where it does not say, or is torn."""
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
