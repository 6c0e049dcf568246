"""Files among the videos that the state does not name: what they hold, and whether they may go.

the name of a video that the state knows               no stray
of a job that has a task to collect                     left: a run died over it
a video of its job's own folder under versions/         no stray: a restored version uses it again
a second copy of a video that is here                   stray
the only copy of a video that the state knows           left
anything else                                           stray
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from batch.attempt import Attempt, Discarded, Landed
from batch.frozen import frozen
from batch.job import folded, video_path
from batch.output import disk
from batch.output.layout import Layout, version_folder

ENDS = frozenset({".mp4", ".part"})  # a part that a death has left on another disk


@frozen
class Stray:
    """A file that the state does not name. *left* says why it is not to be touched."""

    file: str
    reason: str
    left: bool = False
    copy_of: Attempt | None = None


class Known:
    """What the state knows of files."""

    def __init__(self, layout: Layout, attempts: Iterable[Attempt]) -> None:
        self._layout = layout
        self._names: set[str] = set()
        self._sizes: set[int] = set()
        self._owners: dict[str, list[Attempt]] = {}
        self._discarded: set[str] = set()
        self._open: set[str] = set()
        for attempt in attempts:
            match attempt.state:
                case Landed() as state:
                    self._names.add(folded(state.file))
                    for sha256 in state.contents:
                        self._owners.setdefault(sha256, []).append(attempt)
                    self._sizes |= {state.bytes, state.latest.bytes}
                case Discarded() as state:
                    self._sizes.add(state.bytes)
                    self._discarded.add(state.sha256)
                case _ if not attempt.phase.is_finished:
                    self._open.add(attempt.job_id)

    def strays(self) -> Iterator[Stray]:
        """Yield the files that the state does not name, by name, but for copies that are used."""
        for folder in self._layout.kept:
            for path in sorted(folder.rglob("*")):
                file = path.relative_to(self._layout.root).as_posix()
                is_ours = path.suffix.lower() in ENDS and not path.is_symlink() and path.is_file()
                if is_ours and folded(file) not in self._names:
                    stray = self._judge(path, file)
                    if stray is not None:
                        yield stray

    def _judge(self, path: Path, file: str) -> Stray | None:
        if any(_is_of(file, job_id) for job_id in self._open):
            return Stray(file, "its job has a task to collect", left=True)
        sha256 = ""
        if path.stat().st_size in self._sizes:
            sha256 = disk.sha256_of(path)
        owners = self._owners.get(sha256, [])
        if not owners:
            was = "was discarded before" if sha256 in self._discarded else "unknown to the state"
            return Stray(file, was)
        if any(file.startswith(f"{version_folder(owner.job_id)}/") for owner in owners):
            return None
        for owner in owners:
            assert isinstance(owner.state, Landed)
            if (self._layout.root / owner.state.file).is_file():
                return Stray(file, f"a second copy of {owner.state.file}", copy_of=owner)
        return Stray(file, f"the only copy of a video of {owners[0].job_id!r}", left=True)


def job_of(file: str) -> str:
    """Return the id of the job that a file among the videos seems to belong to."""
    name = file.removeprefix(".kling-batch/").partition("/")[2]
    return name.removesuffix(".mp4") if file.startswith("videos/") else name.rpartition("/")[0]


def _is_of(file: str, job_id: str) -> bool:
    return file == video_path(job_id) or file.startswith(f"{version_folder(job_id)}/")
