"""An earlier version of a job's video takes its name again, and stays there: it is pinned.

    check the version's hash  →  link the present video into versions/, commit where it is
      →  copy the version to the job's name, flush  →  one commit: its file, its pin, its row

A death after the second step leaves a job whose video the next run fetches from versions/, unpaid; one
after the third an unknown file, for which it does the same. In both cases: restore again.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from batch.attempt import Attempt, Landed, Pin
from batch.clock import Clock
from batch.errors import BatchError, UsageError
from batch.frozen import frozen
from batch.job import video_path
from batch.library.ledger import iso
from batch.library.planned import Planned
from batch.media.check import MediaError
from batch.output.copies import Copies
from batch.output.direct import DirectState
from batch.output.folder import OutputFolder
from batch.output.layout import version_time
from batch.output.places import Places
from batch.output.row import make_row, new_run_id, to_line
from batch.output.state import AddRow, Put
from batch.output.store import Store
from batch.output.videos import Videos

SHOWN = 20  # ids in a message
SHORTEST = 4  # characters of a hash or a time that name a version


class NotRestoredError(BatchError):
    """The version is not here any more, or the disk refuses; the video that stands was kept."""


@frozen
class Version:
    """A video of a job that has landed: the *current* one, or a former one; *at* is when it landed."""

    attempt: Attempt
    at: float
    is_current: bool

    @property
    def landed(self) -> Landed:
        """Its state."""
        assert isinstance(self.attempt.state, Landed)
        return self.attempt.state

    @property
    def day(self) -> str:
        """When it landed, as a day."""
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d")

    def has_file(self, name: str) -> bool:
        """Return whether that is the name of its file, which no other version has."""
        file, name = self.landed.file.removesuffix(".mp4"), name.removesuffix(".mp4")
        return name == file or (not self.is_current and name == file.rpartition("/")[2])

    def is_called(self, name: str) -> bool:
        """Return whether *name* is the beginning of its time or its hash."""
        if len(name) < SHORTEST:
            return False
        digits = re.sub("[-: TZ]", "", name.upper())
        time = datetime.fromtimestamp(self.at, UTC).strftime("%Y%m%d%H%M%S")
        is_time = bool(digits) and time.startswith(digits)
        return is_time or self.landed.sha256.startswith(name.lower())


def versions_of(database: Store, job_id: str) -> list[Version]:
    """Return the versions of a job, newest first.

    Raises:
        UsageError: there is no such job; the message says which ids are near.
    """
    attempts = database.attempts_of(job_id)
    if not attempts:
        raise UsageError(
            f"there is no job {job_id!r} in this folder; {_known_ids(database, job_id)}"
        )
    found = [version_of(item, item.state) for item in attempts if isinstance(item.state, Landed)]
    return sorted(
        found, key=lambda version: (int(version.at), version.attempt.number), reverse=True
    )


def choose(versions: Sequence[Version], job_id: str, name: str | None) -> Version:
    """Return the version that *name* means; without a name the newest former one.

    Raises:
        UsageError: there is none, or more than one; the message lists them.
    """
    former = [version for version in versions if not version.is_current]
    if not former and name is None:
        raise UsageError(f"job {job_id!r} has no former version")
    if name is None:
        return former[0]
    found = [version for version in versions if version.has_file(name)] or [
        version for version in versions if version.is_called(name)
    ]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} versions" if found else "no version"
    listed = ", ".join(f"{iso(item.at)} ({item.landed.sha256[:12]})" for item in found or versions)
    raise UsageError(
        f"{name!r} means {what} of job {job_id!r}; {'they' if found else 'its versions'} are"
        f" {listed or 'none'}"
    )


async def restore(folder: OutputFolder, version: Version, clock: Clock) -> Attempt:
    """Bring a former version back to its job's name and pin it; return its attempt.

    Raises:
        NotRestoredError: its file is gone or was changed (nothing was touched), or the disk refuses.
    """
    attempt, job_id = version.attempt, version.attempt.job_id
    planned = Planned(folder.database)
    pin = _pin(folder.database, version, planned)
    state = DirectState(folder.database, folder.results)
    with (
        Videos(folder.layout) as videos,
        Copies(state, folder.database.targets(), folder.library) as copies,
    ):
        try:
            places = Places(state=state, videos=videos, copies=copies.fill)
            back = await places.bring_back(attempt, video_path(job_id), clock)
        except (OSError, MediaError) as error:
            what = getattr(error, "strerror", None) or error
            raise NotRestoredError(f"{version.landed.file} cannot be restored: {what}") from error
        if back is None:
            raise NotRestoredError(
                f"{version.landed.file} is not here any more, or is not the video that landed;"
                " nothing was changed"
            )
        assert isinstance(back.state, Landed)
        restored = replace(back, state=replace(back.state, pin=pin))
        row = make_row(
            restored,
            run_id=new_run_id(clock.now()),
            tasks=_tasks(folder.database, attempt),
            now=clock.now(),
            warnings=(f"restored: the version of {version.day}",),
            tags=planned.tags_of(job_id),
        )
        await state.commit(
            Put(restored), AddRow(to_line(row)), *_unpinned(folder.database, attempt)
        )
        with contextlib.suppress(OSError):
            await places.vacate(restored)
    folder.results.flush()
    return restored


def unpin(folder: OutputFolder, versions: Iterable[Version], job_id: str) -> Attempt:
    """End a job's pin: the next run brings the manifest's version back. Return what was pinned.

    Raises:
        UsageError: no version of it is pinned.
    """
    pinned = [version.attempt for version in versions if version.landed.pin is not None]
    if not pinned:
        raise UsageError(f"no version of job {job_id!r} is pinned")
    folder.database.write([Put(attempt.unpinned()) for attempt in pinned])
    return pinned[0]


def version_of(attempt: Attempt, landed: Landed) -> Version:
    """Return a video that has landed as a version of its job."""
    at = version_time(landed.file) or landed.came_at
    if landed.pin is not None:
        at = landed.pin.version_at
    return Version(attempt, at, is_current=attempt.stands)


def displaced_of(
    attempts: Sequence[Attempt], is_there: Callable[[Attempt, str], bool]
) -> dict[str, tuple[int, float | None]]:
    """Return, for each former version, its number (1 is a job's newest) and when it was displaced.

    That is when the next one landed; None if there is none. One that is not there any more, since a
    person has deleted it, does not count.
    """
    jobs: dict[str, list[Version]] = {}
    for attempt in attempts:
        if isinstance(attempt.state, Landed):
            jobs.setdefault(attempt.job_id, []).append(version_of(attempt, attempt.state))
    found: dict[str, tuple[int, float | None]] = {}
    for versions in jobs.values():
        versions.sort(key=lambda version: (version.at, version.attempt.number), reverse=True)
        number, newer_at = 0, None
        for version in versions:
            number += not version.is_current and is_there(version.attempt, version.landed.file)
            found[version.attempt.external_task_id] = number, newer_at
            newer_at = version.at
    return found


def _pin(database: Store, version: Version, planned: Planned) -> Pin | None:
    """Return what pins a version; None where it is the one that the next run would choose anyway."""
    job_id = version.attempt.job_id
    attempts = database.attempts_of(job_id)
    asked = planned.asked.get(job_id) or _asked(attempts)
    wanted = [item for item in attempts if item.fingerprint == asked]
    if wanted and wanted[-1].external_task_id == version.attempt.external_task_id:
        return None
    return Pin(asked, version.at)


def _asked(attempts: Sequence[Attempt]) -> str:
    """Return what the manifest asks for, where no run has recorded that: what stands, or was last."""
    pins = [item.state.pin for item in attempts if isinstance(item.state, Landed)]
    for pin in filter(None, pins):
        return pin.fingerprint
    standing = [item for item in attempts if item.stands]
    return (standing or attempts)[-1].fingerprint


def _unpinned(database: Store, restored: Attempt) -> list[Put]:
    """Return the end of the job's other pin, if it has one."""
    return [
        Put(item.unpinned())
        for item in database.attempts_of(restored.job_id)
        if item.external_task_id != restored.external_task_id
        and isinstance(item.state, Landed)
        and item.state.pin is not None
    ]


def _tasks(database: Store, attempt: Attempt) -> int:
    attempts = database.attempts_of(attempt.job_id)
    return sum(a.task is not None for a in attempts if a.fingerprint == attempt.fingerprint)


def _known_ids(database: Store, job_id: str) -> str:
    """Return the ids that may be meant, as a clause."""
    ids = sorted(database.known())
    near = difflib.get_close_matches(job_id, ids, n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"there are {', '.join(ids[:SHOWN])}{more}"
