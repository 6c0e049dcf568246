"""Tasks that were paid for and could not be recorded: kept in a file beside the state.

The file lies where the disk still takes one: in the output folder, in the manifest's folder or in
the temporary one. Outside of the output folder its name holds a hash of that folder's path, so that
two libraries do not read each other's. It holds no key, and one JSON object a line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch.attempt import Attempt
from batch.frozen import frozen
from batch.output import disk
from batch.output.layout import Layout

MAX_BYTES = 16 * 1024 * 1024  # thousands of tasks; nobody else's file is read further
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@frozen
class RescuedTask:
    """A task that an earlier run was told of and could not record."""

    external_task_id: str
    task_id: str
    job_id: str
    submitted_at: float


@frozen
class RescueFile:
    """A rescue file. *is_whole*: every line of it could be read."""

    path: Path
    tasks: tuple[RescuedTask, ...]
    is_whole: bool

    def remove(self) -> None:
        """Remove the file; one that stays is read again, and then nothing in it is new."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class Rescue:
    """The places for rescue files, the best first. Without any, nothing is kept."""

    def __init__(self, *places: _Place) -> None:
        self._places = places

    @classmethod
    def of(cls, layout: Layout, manifest: Path) -> Rescue:
        """Return the places for the folder of *layout* and the manifest at *manifest*."""
        root = layout.root.absolute()
        with contextlib.suppress(OSError):
            root = root.resolve()
        mark = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
        name = f"kling-batch-rescue-{mark}.jsonl"
        places = [_Place(layout.rescue), _Place(manifest.absolute().parent / name)]
        with contextlib.suppress(OSError):  # no temporary folder takes a file
            places.append(_Place(Path(tempfile.gettempdir(), name), is_public=True))
        return cls(*places)

    def keep(self, attempt: Attempt) -> Path | None:
        """Write down the task of *attempt*, flushed; return where, or None if no place takes it."""
        line = json.dumps(_to_json(attempt), ensure_ascii=False).encode() + b"\n"
        for place in self._places:
            with contextlib.suppress(OSError):
                place.append(line)
                return place.path
        return None

    def files(self) -> Iterator[RescueFile]:
        """Read every rescue file that there is."""
        for place in self._places:
            with contextlib.suppress(OSError):
                tasks, is_whole = _parse(place.read())
                yield RescueFile(place.path, tasks, is_whole)


class _Place:
    """A path for a rescue file. In a *public* folder only a file of our own is believed."""

    def __init__(self, path: Path, *, is_public: bool = False) -> None:
        self.path = path
        self._is_public = is_public
        self._folder = _identity(path.parent)

    def append(self, line: bytes) -> None:
        if self._folder is None or _identity(self.path.parent) != self._folder:
            raise NotADirectoryError(self.path.parent)  # replaced by another since the run began
        mode = 0o600 if self._is_public else 0o666
        with self._open(os.O_RDWR | os.O_CREAT, mode) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)  # no line may follow half a line
                raise
        disk.flush(self.path.parent)

    def read(self) -> bytes:
        with self._open(os.O_RDONLY) as file:
            return bytes(file.read(MAX_BYTES))

    def _open(self, flags: int, mode: int = 0) -> Any:
        descriptor = os.open(self.path, flags | _NO_LINK, mode)
        found = os.fstat(descriptor)
        is_ours = not self._is_public or not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        if not stat.S_ISREG(found.st_mode) or not is_ours:
            os.close(descriptor)
            raise PermissionError(self.path)
        return os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "rb", buffering=0)


def _to_json(attempt: Attempt) -> dict[str, Any]:
    task = attempt.paid_task
    return {
        "external_task_id": attempt.external_task_id,
        "task_id": task.task_id,
        "job_id": attempt.job_id,
        "fingerprint": attempt.fingerprint,
        "base_url": attempt.account.base_url,
        "request": attempt.body(),
        "submitted_at": datetime.fromtimestamp(task.submitted_at, UTC).isoformat(),
    }


def _parse(data: bytes) -> tuple[tuple[RescuedTask, ...], bool]:
    tasks: list[RescuedTask] = []
    is_whole = True
    for line in data.splitlines():
        try:
            found = json.loads(line)
            submitted_at = datetime.fromisoformat(found["submitted_at"]).timestamp()
            external_task_id, task_id = found["external_task_id"], found["task_id"]
            job_id = found["job_id"]
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            is_whole = False
            continue
        if isinstance(external_task_id, str) and isinstance(task_id, str) and task_id:
            tasks.append(RescuedTask(external_task_id, task_id, str(job_id), submitted_at))
        else:
            is_whole = False
    return tuple(tasks), is_whole


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
