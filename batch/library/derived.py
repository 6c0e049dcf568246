"""What is derived from the state: the files beside the videos, and index.json.

    which rows are new since the fact `derived_upto`, and which jobs does it call stale?  →  the files
    of their jobs, each whole or not at all  →  index.json  →  the fact

A death in between leaves the fact as it was, and the next session does all of it again: what is right
already is not written. A night that adds no row, and finds no video edited, writes nothing: a version
deleted by hand is listed until the next one that writes index.json, and so looks for all versions.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from batch.attempt import Attempt, Landed
from batch.frozen import frozen
from batch.job import Job, video_path
from batch.library.ledger import iso
from batch.library.planned import Planned
from batch.manifest.model import Derived
from batch.output import disk, sidecar
from batch.output.folder import OutputFolder
from batch.output.layout import version_folder
from batch.output.stale import DERIVED_UPTO, stale
from batch.output.state import Fact
from batch.output.store import Store
from batch.output.uploaded import target_of
from batch.output.whereabouts import Where, Whereabouts
from batch.target import Target

SCHEMA = 1
JOB = attrgetter("job_id")
LISTED = frozenset({Where.HERE, Where.IN_BUCKET})


@frozen
class Listing:
    """What index.json says beside the videos: the manifest's name, jobs and bucket, and the run."""

    name: str
    run_id: str
    jobs: Sequence[Job]
    target: Target | None


def has_to_derive(database: Store, wanted: Derived, target: Target | None) -> bool:
    """Return whether `derive` has something to write, as far as the state says."""
    upto = _Upto.read(database, wanted, target)
    return bool(upto.stale) or next(iter(database.result_lines(after=upto.rows)), None) is not None


def derive(folder: OutputFolder, wanted: Derived, listing: Listing) -> list[str]:
    """Write what the state's new rows change; return sentences about what could not be written."""
    target = listing.target
    upto = _Upto.read(folder.database, wanted, target)
    rows, touched = _new_rows(folder.database, upto.rows)
    touched |= upto.stale
    if not touched:
        return []
    touched |= upto.lacking  # what they lacked then may be here again
    writer = _Writer(folder, wanted.sidecars, target)
    tags = {job.id: job.tags for job in listing.jobs}
    videos, lacking = {}, set()
    for job in writer.jobs(None if wanted.index else touched):
        if job.lacks:
            lacking.add(job.id)
        if job.id in touched or job.lacks:
            writer.write_sidecars(job, tags.get(job.id))
        if job.current is not None:
            videos[job.id] = _entry(job, tags.get(job.id, ()))
    writer.drop_left(touched)
    if wanted.index:
        writer.write("index.json", _index(listing, videos))
    if writer.end():
        folder.database.write(
            [_Upto(rows, upto.renewed, lacking=frozenset(lacking)).to_fact(wanted, target)]
        )
    return writer.complaints


def renew(folder: OutputFolder, job_ids: Iterable[str]) -> list[str]:
    """Rewrite the files beside the videos of some jobs, of the kinds that the last run wrote.

    For commands that change which version stands, without a manifest. The next run writes index.json.
    """
    jobs = set(job_ids)
    folder.database.write(stale(folder.database, jobs))
    fact = json.loads(folder.database.fact(DERIVED_UPTO) or "{}")
    kinds = frozenset(fact.get("sidecars", ()))
    writer = _Writer(folder, kinds, target_of(folder.database))
    planned = Planned(folder.database)
    for job in writer.jobs(jobs):
        writer.write_sidecars(job, planned.tags_of(job.id))
    writer.end()
    return writer.complaints


@frozen
class _Upto:
    """How many rows are derived, which jobs' files are older, how often; and whose versions were away."""

    rows: int = 0
    renewed: int = 0
    stale: frozenset[str] = frozenset()
    lacking: frozenset[str] = frozenset()

    @classmethod
    def read(cls, database: Store, wanted: Derived, target: Target | None) -> _Upto:
        """Return how far the files that are *wanted* are derived: no row, where others were.

        Nor where they were with another bucket: what only that one has is listed no more.
        """
        fact = json.loads(database.fact(DERIVED_UPTO) or "{}")
        renewed = fact.get("renewed", 0)
        asked = (sorted(wanted.sidecars), wanted.index, _url(target))
        if (fact.get("sidecars"), fact.get("index"), fact.get("bucket")) != asked:
            return cls(renewed=renewed)
        stale, lacking = (frozenset(fact.get(name, ())) for name in ("stale", "lacking"))
        return cls(fact["rows"], renewed, stale, lacking)

    def to_fact(self, wanted: Derived, target: Target | None) -> Fact:
        """Return what is recorded once everything *wanted* is written."""
        found = {"rows": self.rows, "sidecars": sorted(wanted.sidecars), "index": wanted.index}
        found |= {"renewed": self.renewed, "bucket": _url(target), "lacking": sorted(self.lacking)}
        return Fact(DERIVED_UPTO, json.dumps(found))


@dataclass(slots=True)
class _Job:
    """The videos of a job that are here, or in the bucket: what stands, and former ones, newest first."""

    id: str
    lacks: bool = False  # some former ones
    current: Attempt | None = None
    former: list[Attempt] = field(default_factory=list)


class _Writer:
    """Writes derived files, and collects what could not be written."""

    def __init__(self, folder: OutputFolder, kinds: frozenset[str], target: Target | None) -> None:
        self._folder = folder
        self._target = target
        self._kinds = sorted(kinds)
        self._seqs: dict[str, int] | None = None
        self._folders: set[Path] = set()
        self._failed: list[str] = []
        self._foreign: list[str] = []

    def jobs(self, ids: set[str] | None) -> Iterator[_Job]:
        """Yield the jobs of *ids* (None for all) with their videos."""
        root, database = self._folder.layout.root, self._folder.database
        whereabouts = Whereabouts(database, self._target)

        def is_there(file: str, attempt: Attempt) -> bool:
            is_here = (root / file).is_file()
            found = whereabouts.of(file, attempt.external_task_id, is_here=is_here)
            return found.where in LISTED

        for job_id, attempts in itertools.groupby(_landed(database, ids), JOB):
            job = _Job(job_id)
            landed = {_state(item).file: item for item in attempts}
            here = {file: item for file, item in landed.items() if is_there(file, item)}
            job.lacks = not landed.keys() <= here.keys() | {video_path(job_id)}
            job.current = here.pop(video_path(job_id), None)
            job.former = sorted(here.values(), key=lambda item: -_state(item).landed_at)
            yield job

    def write_sidecars(self, job: _Job, tags: Iterable[str] | None) -> None:
        """Write the files beside all videos of a job."""
        versions = [_version(item) for item in job.former]
        for attempt in (job.current, *job.former):
            row = None if attempt is None or not self._kinds else self._row(attempt)
            if attempt is None or row is None:
                continue
            if tags is not None:
                row["tags"] = list(tags)
            listed = versions if attempt is job.current else []
            for kind in self._kinds:
                data = sidecar.to_json(row, listed) if kind == "json" else sidecar.to_xmp(row)
                self.write(next(sidecar.beside(_state(attempt).file, [kind])), data)

    def drop_left(self, job_ids: Iterable[str]) -> None:
        """Remove what is beside no video of these jobs: one was missed, and came back elsewhere."""
        root, database = self._folder.layout.root, self._folder.database
        for job_id in job_ids:
            for file in (video_path(job_id), *sidecar.versions(root, version_folder(job_id))):
                if (root / file).is_file() or database.holders_of(file):
                    continue
                try:
                    sidecar.drop(root, file)
                except OSError as error:
                    self._failed.append(f"what is beside {file} ({error.strerror or error})")

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        try:
            written = sidecar.write(self._folder.layout, name, data)
        except sidecar.NotOursError:
            self._foreign.append(name)
        except OSError as error:
            self._failed.append(f"{name} ({error.strerror or error})")
        else:
            self._folders |= set() if written is None else {written}

    def end(self) -> bool:
        """Flush what was written; return whether all is as it should be."""
        for folder in sorted(self._folders):
            try:
                disk.flush(folder)
            except OSError as error:
                self._failed.append(f"what is new in {folder} ({error.strerror or error})")
        return not self._failed

    @property
    def complaints(self) -> list[str]:
        """What could not be written, in sentences."""
        foreign, failed = _in_short(self._foreign), _in_short(self._failed)
        said = [f"{name} was not written by kling-batch, and stays as it is" for name in foreign]
        return said + [f"{name} cannot be written; the next run tries again" for name in failed]

    def _row(self, attempt: Attempt) -> dict[str, Any] | None:
        """Return the last row that reports the video of an attempt, with its place and content now."""
        database = self._folder.database
        if self._seqs is None:
            self._seqs = {
                row["external_task_id"]: seq
                for seq, row in enumerate(map(json.loads, database.result_lines()), 1)
                if row["file"] is not None
            }
        seq = self._seqs.get(attempt.external_task_id)
        if seq is None:
            return None
        row: dict[str, Any] = json.loads(next(database.result_lines(after=seq - 1)))
        return {**row, "job_id": attempt.job_id, **_content(attempt)}


def _new_rows(database: Store, upto: int) -> tuple[int, set[str]]:
    """Return how many rows there are, and the jobs of those behind the first *upto*."""
    touched, count = set(), upto
    for line in database.result_lines(after=upto):
        touched.add(json.loads(line)["job_id"])
        count += 1
    return count, touched


def _landed(database: Store, ids: set[str] | None) -> Iterator[Attempt]:
    """Yield the attempts whose video has landed, by job and number."""
    if ids is None:
        yield from (item for item in database.attempts() if isinstance(item.state, Landed))
        return
    for job_id, items in database.known().items():
        if job_id in ids:
            attempts = (database.attempt(item.external_task_id) for item in items)
            yield from (item for item in attempts if isinstance(item.state, Landed))


def _state(attempt: Attempt) -> Landed:
    assert isinstance(attempt.state, Landed)
    return attempt.state


def _content(attempt: Attempt) -> dict[str, Any]:
    """Return where a video is, and what it holds: what a person made of it, if that is known."""
    state = _state(attempt)
    return {"file": state.file, "bytes": state.latest.bytes, "sha256": state.latest.sha256}


def _version(attempt: Attempt) -> dict[str, Any]:
    landed_at = iso(_state(attempt).landed_at)
    return {**_content(attempt), "landed_at": landed_at, "task_id": attempt.task_id}


def _entry(job: _Job, tags: Iterable[str]) -> dict[str, Any]:
    """Return what index.json says of a job."""
    assert job.current is not None
    state, options = _state(job.current), job.current.body()
    return {
        "job_id": job.id,
        **_content(job.current),
        "video": state.video.to_json(),
        "prompt": options.pop("prompt", None),
        "options": options,
        "fingerprint": job.current.fingerprint,
        "tags": list(tags),
        "task_id": job.current.task_id,
        "generated_at": iso(state.generated_at),
        "landed_at": iso(state.landed_at),
        "versions": [_version(item) for item in job.former],
    }


def _index(listing: Listing, videos: dict[str, dict[str, Any]]) -> bytes:
    """Return index.json: the manifest's videos in its order, its jobs without one, and orphans."""
    ids = [job.id for job in listing.jobs]
    index = {
        "schema": SCHEMA,
        "name": listing.name,
        "run_id": listing.run_id,
        "videos": [videos[job_id] for job_id in ids if job_id in videos],
        "missing": [job_id for job_id in ids if job_id not in videos],
        "orphans": sorted(videos.keys() - set(ids)),
    }
    return f"{json.dumps(index, ensure_ascii=False, indent=1)}\n".encode()


def _url(target: Target | None) -> str | None:
    return None if target is None else target.url


def _in_short(names: list[str]) -> list[str]:
    return [f"{names[0]} (and {len(names) - 1} more)"] if len(names) > 1 else names
