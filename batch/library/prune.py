"""What may go from a library, and how it goes: nothing that is current, pinned or still wanted.

    an orphan's video    →  link into versions/, commit, unlink the old name
    what is deleted      →  commit Discarded  →  unlink

A death after a commit leaves a file that the state no longer names, which `--strays` finds; what is
known of a task that was paid for stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from batch.attempt import Attempt, Landed
from batch.frozen import frozen
from batch.job import Job, folded, video_path
from batch.library.restore import displaced_of
from batch.library.strays import Known, Stray, job_of
from batch.manifest.model import Keep
from batch.output import disk, sidecar
from batch.output.checked import is_as_landed
from batch.output.direct import DirectState
from batch.output.folder import OutputFolder
from batch.output.layout import Layout
from batch.output.names import second_names
from batch.output.places import Places
from batch.output.stale import stale
from batch.output.state import Put
from batch.output.store import Store
from batch.output.uploaded import target_of
from batch.output.videos import Videos
from batch.output.whereabouts import Bytes, Where, Whereabouts
from batch.plan import Plan, Policy, Selection, make_plan
from batch.plan.select import state_of


class Action(StrEnum):
    """What is to be done with a file."""

    MOVE = "move"  # to versions/
    DELETE = "delete"
    LIST = "list"  # it would be deleted, but that was not asked for


@frozen
class Wanted:
    """What a person asked for; *keep* is what the manifest says of former versions."""

    orphans: bool = False
    versions: bool = False
    strays: bool = False
    delete: bool = False
    selection: Selection = field(default_factory=Selection)
    keep: Keep = field(default_factory=Keep)


@frozen
class Item:
    """A file that is to go, and why. *attempts* are those whose video it is; none for a stray."""

    file: str
    job_id: str
    bytes: int
    age_s: float
    reason: str
    action: Action
    attempts: tuple[Attempt, ...] = ()


@dataclass(slots=True)
class Pruning:
    """What is to go, and what stays although it was looked at: [(file, why)].

    *orphaned* of the *standing* videos belong to jobs that have left the manifest.
    """

    items: list[Item] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    standing: int = 0
    orphaned: int = 0

    @property
    def work(self) -> list[Item]:
        """The files that are moved or deleted."""
        return [item for item in self.items if item.action is not Action.LIST]


def find(
    layout: Layout, database: Store, jobs: Sequence[Job], wanted: Wanted, now: float
) -> Pruning:
    """Return what is to go. Changes nothing."""
    return _Search(layout, database, jobs, wanted, now).run()


class _Status(NamedTuple):
    """What prune wants to know of a file: *place* is where its video is."""

    place: Bytes
    bytes: int
    modified_at: float
    changed_at: float


class _Search:
    """One look at a library."""

    def __init__(
        self, layout: Layout, database: Store, jobs: Sequence[Job], wanted: Wanted, now: float
    ) -> None:
        self._layout, self._wanted, self._now = layout, wanted, now
        self._attempts = list(database.attempts())
        self._files = _by_file(self._attempts)
        self._named = set(map(folded, self._files))
        self._tags = {job.id: job.tags for job in jobs}
        plan = make_plan(
            jobs,
            database.known(),
            policy=Policy(),
            is_present=lambda _item: True,
            price=lambda _job: (0.0, True),
            now=now,
        )
        self._orphans = {item.job_id for item in plan.orphans}
        self._needed = _needed(jobs, plan, self._attempts)
        self._latest = {attempt.job_id: attempt for attempt in self._attempts}
        self._whereabouts = Whereabouts(database, target_of(database))
        self._found = Pruning()

    def run(self) -> Pruning:
        """Look at every file that the state names, and at those that it does not."""
        self._count()
        attempts = self._attempts if self._wanted.versions else ()
        displaced = displaced_of(attempts, lambda item, file: bool(self._status(file, item)))
        for file, holders in self._files.items():
            if self._is_selected(holders[-1].job_id):
                self._look(file, holders, displaced)
        if self._wanted.versions:
            self._found.left += self._originals()
        if self._wanted.strays or self._wanted.orphans:
            listed = {item.file for item in self._found.items}  # second names among them
            for stray in Known(self._layout, self._attempts).strays():
                if stray.file not in listed and self._is_selected(job_of(stray.file)):
                    self._look_at_stray(stray)
        return self._found

    def _count(self) -> None:
        standing = {a.job_id for a in self._attempts if a.stands and not self._moves(a)}
        self._found.standing = len(standing)
        self._found.orphaned = len(standing & self._orphans)

    def _moves(self, attempt: Attempt) -> bool:
        return attempt.job_id not in self._tags and attempt.external_task_id in self._needed

    def _is_selected(self, job_id: str) -> bool:
        latest = self._latest.get(job_id)
        kind = None if latest is None else getattr(latest.state, "failure", None)
        state = state_of(None if latest is None else latest.phase, kind and kind.kind)
        return self._wanted.selection.takes(job_id, self._tags.get(job_id, ()), state)

    def _look(
        self, file: str, holders: list[Attempt], displaced: dict[str, tuple[int, float | None]]
    ) -> None:
        """Decide about a file that the state names."""
        job_id, wanted = holders[-1].job_id, self._wanted
        status = self._status(file, *holders)
        if status is None:
            return
        is_orphan, stands = job_id in self._orphans, any(holder.stands for holder in holders)
        action = Action.DELETE if wanted.delete else Action.LIST
        if wanted.orphans and is_orphan and (stands or wanted.delete):
            reason = "no longer in the manifest" if stands else "version of a job that is gone"
            action = Action.DELETE if wanted.delete else Action.MOVE
        elif wanted.versions and not stands:
            if any(self._is_kept(displaced[a.external_task_id], status) for a in holders):
                return
            reason = "version beyond output.keep_versions and output.keep_within"
        else:
            return
        if (left := self._why_left(holders, status, action)) is not None:
            self._found.left.append((file, left))
            return
        self._add(file, job_id, status, reason, action, *holders)
        copies = () if action is Action.MOVE else second_names(self._layout.root, file, holders)
        for copy in copies:
            if folded(copy) not in self._named:
                self._add(copy, job_id, status, f"a second copy of {file}", action)

    def _status(self, file: str, *holders: Attempt) -> _Status | None:
        """Return what is known of a file; None if it is neither here nor in a bucket alone."""
        status = None
        with contextlib.suppress(OSError):
            status = (self._layout.root / file).stat()
        names = (holder.external_task_id for holder in holders)
        place = self._whereabouts.of(file, *names, is_here=status is not None)
        if status is not None:
            return _Status(place, status.st_size, status.st_mtime, status.st_ctime)
        if place.record is None:
            return None
        at = place.record.uploaded_at
        return _Status(place, place.record.bytes, at, at)

    def _is_kept(self, version: tuple[int, float | None], status: _Status) -> bool:
        """Return whether the manifest has a version kept."""
        number, displaced_at = version
        # Nothing has displaced an orphan's: it got its name here when it was moved.
        since = status.changed_at if displaced_at is None else displaced_at
        return self._wanted.keep.keeps(number, self._now - since)

    def _add(
        self,
        file: str,
        job_id: str,
        status: _Status,
        reason: str,
        action: Action,
        *attempts: Attempt,
    ) -> None:
        age_s = max(self._now - status.modified_at, 0.0)
        self._found.items.append(Item(file, job_id, status.bytes, age_s, reason, action, attempts))

    def _why_left(self, holders: list[Attempt], status: _Status, action: Action) -> str | None:
        """Return why a file must not go."""
        for holder in holders:
            state = holder.state
            assert isinstance(state, Landed)
            if state.pin is not None:
                return "pinned"
            if holder.external_task_id in self._needed:
                return "wanted by the manifest"
            if status.place.where is Where.ELSEWHERE and status.place.record is not None:
                url = status.place.record.target
                return f"only in {url}: name that as output.target, run, and prune again"
            if action is not Action.MOVE and not self._is_as_landed(state, status):
                return "changed by hand"
        return None

    def _is_as_landed(self, state: Landed, status: _Status) -> bool:
        if status.place.where is Where.HERE:
            return is_as_landed(self._layout.root / state.file, state)
        return status.bytes == state.bytes and not state.is_edited

    def _originals(self) -> Iterator[tuple[str, str]]:
        """Yield what edited videos were before, which only the bucket has: nothing else names that."""
        owners = {attempt.external_task_id: attempt for attempt in self._attempts}
        for record in self._whereabouts.unnamed(self._files):
            owner = owners.get(str(record.external_task_id))
            if owner is not None and isinstance(owner.state, Landed):
                is_before = owner.state.latest.sha256 != record.sha256
                if is_before and self._is_selected(owner.job_id):
                    yield record.file, f"only in the bucket: {owner.state.file} before an edit"

    def _look_at_stray(self, stray: Stray) -> None:
        """Decide about a file that the state does not name."""
        job_id, owner = job_of(stray.file), stray.copy_of
        action, reason = Action.DELETE if self._wanted.delete else Action.LIST, stray.reason
        is_moved = owner is not None and stray.file == video_path(owner.job_id)
        if self._wanted.orphans and is_moved and job_id in self._orphans:
            action = Action.MOVE  # a prune that died had linked it into versions/
        elif not self._wanted.strays:
            return
        status = self._status(stray.file)
        if stray.left:
            self._found.left.append((stray.file, stray.reason))
        elif status is not None:
            self._add(stray.file, job_id, status, reason, action)


async def carry_out(
    folder: OutputFolder, items: Sequence[Item], now: float
) -> list[tuple[Item, OSError]]:
    """Move and delete; return what the disk did not let go, with its error."""
    failed: list[tuple[Item, OSError]] = []
    root = folder.layout.root
    folder.database.write(stale(folder.database, {item.job_id for item in items}))
    state = DirectState(folder.database, folder.results)
    with Videos(folder.layout) as videos:
        places = Places(state=state, videos=videos)
        for item in items:
            try:
                if item.attempts and item.action is Action.MOVE:
                    await places.retire(item.file, item.attempts)
                elif item.attempts:
                    await state.commit(*(Put(each.discarded(now)) for each in item.attempts))
                sidecar.drop(root, item.file)  # first: nobody looks for them without their video
                disk.remove(root / item.file)
            except OSError as error:
                failed.append((item, error))
    return failed


def _needed(jobs: Sequence[Job], plan: Plan, attempts: Sequence[Attempt]) -> set[str]:
    """Return the attempts that the manifest wants: planned, moving, or each job's own latest video."""
    needed = {item.external_task_id for move in plan.moves for item in move.attempts}
    needed |= {item.attempt for item in plan.decisions if item.attempt is not None}
    asked = {job.id: job.fingerprint for job in jobs}
    own = {
        attempt.job_id: attempt.external_task_id
        for attempt in attempts
        if isinstance(attempt.state, Landed) and asked.get(attempt.job_id) == attempt.fingerprint
    }
    standing = {a.external_task_id for a in attempts if a.job_id in asked and a.stands}
    return needed | set(own.values()) | standing


def _by_file(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    files: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if isinstance(attempt.state, Landed):
            files.setdefault(attempt.state.file, []).append(attempt)
    return files
