"""results.jsonl: appended to, never rewritten, mended from the store that it is derived from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from batch.errors import StateError
from batch.store import Store


class ResultsFile:
    """results.jsonl: appended to, never rewritten, mended from the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_torn = False

    def mend(self, store: Store) -> int:
        """Cut a torn last line, append the rows that are missing; return how many were.

        Raises:
            StateError: the file cannot be read or written.
        """
        try:
            return self._mend(store)
        except OSError as error:
            raise self._cannot_be_used(error) from error

    def _mend(self, store: Store) -> int:
        size = self._path.stat().st_size if self._path.exists() else 0
        if size == store.result_bytes():
            return 0
        present = self._cut_torn_line() if size else set()
        missing: list[str] = []
        newest: dict[object, str] = {}  # of each job; what is older than all that is missing is not
        for line in store.result_lines():
            if _digest(line) not in present:
                missing.append(line)
            if missing:
                newest[_job_of(line)] = line
        # No job's older line may come last: where one is appended behind its newest, that follows.
        appended = {_job_of(line): line for line in missing}
        again = [newest[job] for job, line in appended.items() if newest[job] != line]
        self.append([*missing, *again])
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
        self._is_torn = True  # until all of it is there: nothing may ever follow half a line
        try:
            with self._path.open("ab", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise self._cannot_be_used(error) from error
        self._is_torn = False

    def _cannot_be_used(self, error: OSError) -> StateError:
        return StateError(
            f"{self._path} cannot be used ({error.strerror or error}); mend that and run again:"
            " nothing is lost, the next run adds the lines that are missing"
        )

    def _cut_torn_line(self) -> set[bytes]:
        present: set[bytes] = set()
        with self._path.open("rb+") as file:
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(end)
                    break
                end += len(line)
                present.add(_digest(line[:-1]))
        return present


def _job_of(line: str) -> object:
    return json.loads(line).get("job_id")


def _digest(line: str | bytes) -> bytes:
    data = line.encode() if isinstance(line, str) else line
    return hashlib.blake2b(data, digest_size=16).digest()
