"""Every path of an output folder, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE_FOLDER = ".kling-batch"  # everything in it is ours


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of the output folder at *root*. A `file` elsewhere is relative to that."""

    root: Path

    @property
    def state(self) -> Path:
        """The folder of what is ours: state, lock, part files, former versions."""
        return self.root / STATE_FOLDER

    @property
    def database(self) -> Path:
        """The state of all jobs."""
        return self.state / "state.db"

    @property
    def lock(self) -> Path:
        """The file that a run holds while it works on the folder."""
        return self.state / "lock"

    @property
    def parts(self) -> Path:
        """The folder of downloads under way."""
        return self.state / "parts"

    @property
    def results(self) -> Path:
        """One line per job that reached an outcome."""
        return self.root / "results.jsonl"

    @property
    def sandbox(self) -> Path:
        """What the embedded sandbox remembers of the tasks that it has made."""
        return self.state / "sandbox.jsonl"

    def part(self, external_task_id: str) -> Path:
        """Return where the download of an attempt grows."""
        return self.parts / f"{external_task_id}.part"


def former_file(job_id: str, owner: str) -> str:
    """Return where the video of a former version is kept; *owner* is its external id."""
    return f"{STATE_FOLDER}/former/{job_id}.{owner}.mp4"
