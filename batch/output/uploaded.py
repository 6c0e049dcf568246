"""What the state says of a bucket: what is there, what is only there, and what is still to be done.

Nothing here asks the bucket, so that a plan and a quiet night need neither network nor obstore.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.errors import ExitCode
from batch.output.stale import DERIVED_UPTO
from batch.output.state import Fact, Uploaded
from batch.output.store import Store
from batch.target import FACT, Target

VERIFIED = "verified"  # the fact that says when each bucket was listed last, as JSON
SHOWN = 3  # files that a warning names
DERIVED_THERE = "derived_uploaded"  # the same, as it was when those files were last uploaded


def target_of(database: Store) -> Target | None:
    """Return where the latest run uploaded to."""
    return Target.of_fact(database.fact(FACT))


def away(database: Store, target: Target | None) -> frozenset[str]:
    """Return the attempts whose videos need not be here: the bucket has them, under any name."""
    if target is None or not target.removes:
        return frozenset()
    return frozenset(str(item.external_task_id) for item in videos_in(database, target.url))


def videos_in(database: Store, url: str) -> Iterator[Uploaded]:
    """Yield the videos in the bucket at *url*, by file."""
    return (item for item in database.uploads(url) if item.external_task_id is not None)


def to_upload(database: Store, root: Path, target: Target) -> Iterator[str]:
    """Yield the files of videos that are to be uploaded, and can be: they are here, or there already."""
    for file in database.not_uploaded(target.url):
        if (root / file).is_file() or any(_copies(database, target, file)):
            yield file


def standing(database: Store, root: Path, target: Target) -> dict[str, Any]:
    """Return how a bucket stands, as plain JSON values."""
    there = list(videos_in(database, target.url))
    return {
        "target": target.url,
        "local": "remove" if target.removes else "keep",
        "uploaded": len(there),
        "bytes": sum(item.bytes for item in there),
        "pending": sum(1 for _ in to_upload(database, root, target)),
    }


def _copies(database: Store, target: Target, file: str) -> Iterator[Uploaded]:
    """Yield what the bucket has of the video at *file* under another name."""
    for holder in database.holders_of(file):
        for sha256 in getattr(holder.state, "contents", ()):
            yield from (
                item for item in database.uploads(target.url, sha256=sha256) if item.file != file
            )


def is_due(database: Store, root: Path, target: Target, now: float) -> bool:
    """Return whether a run has something to do at the bucket."""
    return (
        has_to_verify(database, target, now)
        or next(to_upload(database, root, target), None) is not None
        or bool(database.surplus(target.url))
        or database.fact(DERIVED_THERE) != derived_now(database, target)
        or next(to_remove(database, root, target), None) is not None
    )


def to_remove(database: Store, root: Path, target: Target) -> Iterator[Uploaded]:
    """Yield the videos in the bucket whose local copies are still to be removed."""
    for item in videos_in(database, target.url) if target.removes else ():
        if (root / item.file).is_file():
            yield item


def derived_now(database: Store, target: Target) -> str | None:
    """Return what `DERIVED_THERE` says once all files beside the videos are uploaded."""
    upto = database.fact(DERIVED_UPTO)
    return None if upto is None else f"{target.url} {upto}"


def has_to_verify(database: Store, target: Target, now: float) -> bool:
    """Return whether it is time to list the bucket."""
    at = _verified(database).get(target.url)
    return at is not None and not 0 <= now - at < target.verify_every_s


def verified(database: Store, target: Target, now: float) -> Fact:
    """Return the fact that the bucket was listed *now*."""
    return Fact(VERIFIED, json.dumps({**_verified(database), target.url: now}))


def is_unverified(database: Store, target: Target) -> bool:
    """Return whether the bucket was never listed."""
    return target.url not in _verified(database)


def _verified(database: Store) -> dict[str, float]:
    found: dict[str, float] = json.loads(database.fact(VERIFIED) or "{}")
    return found


@dataclass(slots=True)
class Found:
    """What became of a library's uploads.

    *uploaded* are files that were put or copied; *pending* are left to the next run, because of
    *trouble*; in the place of *foreign* ones is an object of another origin; *lost* are those that were
    in the bucket once, and are not any more.
    """

    target: str
    uploaded: int = 0
    bytes: int = 0
    pending: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    trouble: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the bucket holds what it should."""
        return not (self.pending or self.foreign or self.lost or self.trouble)

    def exit_code(self, so_far: ExitCode) -> ExitCode:
        """Return how a run ends that ended with *so_far* but for its uploads."""
        is_spoilt = so_far is ExitCode.OK and not self.is_whole
        return ExitCode.JOBS_FAILED if is_spoilt else so_far

    def add(self, record: Uploaded | None) -> None:
        """Count what was uploaded."""
        if record is not None:
            self.uploaded += 1
            self.bytes += record.bytes

    def to_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "target": self.target,
            "uploaded": self.uploaded,
            "bytes": self.bytes,
            "pending": len(self.pending),
            "foreign": list(self.foreign),
            "lost": list(self.lost),
            "trouble": self.trouble,
        }

    def warnings(self) -> Iterator[str]:
        """Yield sentences about what is not as it should be."""
        if self.foreign:
            names = _named(f"{self.target}/{file}" for file in self.foreign)
            yield (
                f"{names}: an object of another origin is there, and is not overwritten. Move it away, or"
                " give output.target a place of its own"
            )
        if self.lost:
            names = _named(self.lost)
            yield (
                f"{names}: no longer in {self.target} as uploaded; what is not here, the next run fetches"
                " again, as long as the provider keeps it"
            )
        if self.pending or self.trouble:
            count = f"{len(self.pending)} {'file' if len(self.pending) == 1 else 'files'}"
            what = f"{count} not uploaded" if self.pending else "not all was done"
            yield f"{self.target}: {what} ({self.trouble}); the next run tries again"


def _named(files: Iterable[str]) -> str:
    names = list(files)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
