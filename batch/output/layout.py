"""Every path of an output folder, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE_FOLDER = ".kling-batch"  # users keep nothing in it


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of the output folder at *root*. A `file` elsewhere is relative to that."""

    root: Path

    @property
    def state(self) -> Path:
        """The folder of the database, the lock, part files and former versions."""
        return self.root / STATE_FOLDER

    @property
    def database(self) -> Path:
        """The state of all jobs."""
        return self.state / "state.db"

    @property
    def lock(self) -> Path:
        """The file that a run holds locked."""
        return self.state / "lock"

    @property
    def parts(self) -> Path:
        """The folder of part files."""
        return self.state / "parts"

    @property
    def videos(self) -> Path:
        """The folder of the current videos."""
        return self.root / "videos"

    @property
    def results(self) -> Path:
        """One row for each outcome of a job."""
        return self.root / "results.jsonl"

    @property
    def sandbox(self) -> Path:
        """The tasks of the embedded sandbox."""
        return self.state / "sandbox.jsonl"

    def part(self, external_task_id: str) -> Path:
        """Return the part file of an attempt."""
        return self.parts / f"{external_task_id}.part"


def former_file(job_id: str, owner: str) -> str:
    """Return where a former video is kept; *owner* is the external id of its attempt."""
    return f"{STATE_FOLDER}/former/{job_id}.{owner}.mp4"
