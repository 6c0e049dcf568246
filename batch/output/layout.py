"""Every path of an output folder, once."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

STATE_FOLDER = ".kling-batch"  # users keep nothing in it
VERSIONS = "versions"
_LIKE_A_VERSION = r"(?ai)\d{8}T\d{6}Z(-\d+)?\.(mp4|json|mp4\.xmp)_*$"
_LATEST = 253_402_300_799.0  # the end of the year 9999, the last that a name can tell


class Layout(NamedTuple):
    """The paths of the output folder at *root*. A `file` elsewhere is relative to that.

    Each of several processes that write to it at once has part files of its own, under *process*.
    """

    root: Path
    process: str = ""

    @property
    def state(self) -> Path:
        """The folder of the database, the lock and part files (once also of former versions)."""
        return self.root / STATE_FOLDER

    @property
    def database(self) -> Path:
        """The state of all jobs."""
        return self.state / "state.db"

    @property
    def library(self) -> Path:
        """The file that marks a folder whose state is in Postgres, under the id in it."""
        return self.state / "library"

    @property
    def lock(self) -> Path:
        """The file that a run holds locked."""
        return self.state / "lock"

    @property
    def parts(self) -> Path:
        """The folder of part files."""
        return self.root.joinpath(STATE_FOLDER, "parts", self.process)

    @property
    def videos(self) -> Path:
        """The folder of the current videos."""
        return self.root / "videos"

    @property
    def kept(self) -> tuple[Path, ...]:
        """The folders of videos, current and former; the last is that of an older release."""
        return self.videos, self.root / VERSIONS, self.state / "former"

    @property
    def results(self) -> Path:
        """One row for each outcome of a job."""
        return self.root / "results.jsonl"

    @property
    def rescue(self) -> Path:
        """The paid tasks that could not be recorded in the database."""
        return self.state / "rescue.jsonl"

    @property
    def sandbox(self) -> Path:
        """The tasks of the embedded sandbox."""
        return self.state / "sandbox.jsonl"

    @property
    def derived_part(self) -> Path:
        """A file beside a video, or index.json, while it is written."""
        return self.state / "derived.part"

    def part(self, external_task_id: str) -> Path:
        """Return the part file of an attempt."""
        return self.parts / f"{external_task_id}.part"


def version_time(file: str) -> float | None:
    """Return when a former version landed, as its name tells; None if that is not one of ours."""
    name = file.rpartition("/")[2]
    if not re.match(_LIKE_A_VERSION, name):
        return None
    try:
        return datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:  # no such day
        return None


def version_folder(job_id: str) -> str:
    """Return the folder of a job's former versions."""
    # A folder must not have the name that another job's version, or a file beside it, may have.
    parts = [f"{part}_" if re.match(_LIKE_A_VERSION, part) else part for part in job_id.split("/")]
    return "/".join((VERSIONS, *parts))


def version_file(job_id: str, at: float, number: int = 1) -> str:
    """Return where a former version is kept that landed at *at*; *number* tells equal ones apart."""
    return f"{version_folder(job_id)}/{stamp(at)}{'' if number == 1 else f'-{number}'}.mp4"


def stamp(at: float) -> str:
    """Return a time as it stands in names: 20261120T023108Z."""
    return datetime.fromtimestamp(min(max(at, 0.0), _LATEST), UTC).strftime("%Y%m%dT%H%M%SZ")
