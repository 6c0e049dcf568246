"""Carry out the moves of a plan: videos, open tasks and history go to the ids they have by now.

    note the new names  →  link each video to its own, flush  →  one commit: owners, files, rows
      →  unlink the old names

A death before the commit leaves a second name, which is noted; a death after it leaves the old one,
which the commit notes. The next process that opens the folder unlinks it. Names that go round in a
circle take two such steps.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import count

from batch.attempt import Attempt, Discarded, Generated, Landed
from batch.errors import StateError
from batch.frozen import frozen
from batch.job import video_path
from batch.output import disk
from batch.output.folder import OutputFolder
from batch.output.layout import version_file
from batch.output.names import clear, clear_noted, is_one_video, note, second_names
from batch.output.row import has_outcome, make_row, to_line
from batch.output.stale import stale
from batch.output.state import AddRow, Change, Fact, Put
from batch.output.store import Store
from batch.output.uploaded import away, target_of
from batch.plan import Move

# A fact: the videos that wait under a former version's name until theirs is free, {external id: file}.
DETOURS = "detours"


def carry_out(folder: OutputFolder, moves: list[Move], *, run_id: str, now: float) -> None:
    """Carry out *moves*, and finish those of a run that died.

    Raises:
        StateError: the state cannot be written, or a video cannot get its new name. Nothing has moved.
    """
    try:
        _carry_out(folder, moves, run_id=run_id, now=now)
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise StateError(
            f"{error.filename}: the video of a job that has another id by now cannot be moved ({what});"
            " nothing was sent. Correct that and run again"
        ) from error


def _carry_out(folder: OutputFolder, moves: list[Move], *, run_id: str, now: float) -> None:
    _end_detours(folder)
    if not moves:
        return
    clear_noted(folder.layout.root, folder.database)
    clear(folder.layout.root, folder.database, _second_names(folder, moves))
    placed: list[_Placed] = []
    lines: list[str] = []
    in_bucket = _in_bucket(folder)
    for move in moves:
        mine = [
            _place(folder, attempt, move, in_bucket) for attempt in _moved(folder.database, move)
        ]
        placed += mine
        wanted = [one.settled for one in mine if _takes_place(move, one.attempt)]
        # Where the latest video was discarded, the one before it stands.
        kept = [attempt for attempt in wanted if not isinstance(attempt.state, Discarded)]
        if kept and has_outcome(kept[-1]):
            lines.append(_row(kept[-1], move, run_id=run_id, now=now))
    # Names that go round in a circle, or along a chain, are given by way of a former version's name.
    sources = {one.source for one in placed} - {None}
    detours = {one.attempt.external_task_id: one.file for one in placed if one.file in sources}
    first = [one.as_version() if one.file in sources else one for one in placed]
    left = stale(folder.database, {move.old_id for move in moves})  # they list their versions
    _rename(folder, first, [*map(AddRow, lines), *left, Fact(DETOURS, json.dumps(detours))])
    folder.results.append(lines)
    _end_detours(folder)


def _moved(database: Store, move: Move) -> Iterator[Attempt]:
    """Yield the attempts of a move with their new owner and numbers."""
    for item in move.attempts:
        attempt = database.attempt(item.external_task_id)
        yield replace(attempt, job_id=move.new_id, number=item.number)


@frozen
class _Placed:
    """An attempt with its new owner, and where its video goes.

    *source* is where it stands, if it stands under its old id; *file* is where it belongs, None for
    the name of a former version.
    """

    attempt: Attempt
    source: str | None = None
    file: str | None = None

    @property
    def settled(self) -> Attempt:
        """The attempt with its video in its new place."""
        state = self.attempt.state
        if self.file is None or not isinstance(state, Landed):
            return self.attempt
        return replace(self.attempt, state=replace(state, file=self.file))

    def as_version(self) -> _Placed:
        """Return it on its way to the name of a former version."""
        return replace(self, file=None)


def _place(
    folder: OutputFolder, attempt: Attempt, move: Move, in_bucket: Collection[str]
) -> _Placed:
    """Return where a moved video belongs: one that stands under its old id gets the new name.

    So does one that a death, or the disk, kept from being recorded there, if that name is free.
    """
    state = attempt.state
    if isinstance(state, Generated):
        old, new = video_path(move.old_id), video_path(move.new_id)
        is_left = _is_here(folder, old) and not folder.database.holders_of(old)
        is_free = not (_is_here(folder, new) or folder.database.holders_of(new))
        return _Placed(attempt, old, new) if is_left and is_free else _Placed(attempt)
    if not isinstance(state, Landed) or state.file != video_path(move.old_id):
        return _Placed(attempt)
    if not _is_here(folder, state.file) and attempt.external_task_id not in in_bucket:
        return _Placed(attempt)
    is_current = move.has_room and _takes_place(move, attempt)
    return _Placed(attempt, state.file, video_path(move.new_id) if is_current else None)


def _takes_place(move: Move, attempt: Attempt) -> bool:
    return move.takes_place(attempt.external_task_id, attempt.fingerprint)


def _rename(folder: OutputFolder, placed: list[_Placed], more: list[Change]) -> None:
    """Link the videos to their new names, commit, unlink the old ones."""
    placed = [_with_name(folder, one) for one in placed]
    former = {one.file: list(_give_way(folder, one, placed)) for one in placed}
    moved = [(one.source, one.file) for one in placed if one.source and one.file]
    if moved:
        folder.database.write([note((new, old) for old, new in moved)])
    for one in placed:
        if one.source is not None and _is_here(folder, one.source):  # else it is in the bucket
            _link(folder, one, former[one.file])
    puts = [Put(one.settled) for one in placed]
    puts += [Put(attempt) for attempts in former.values() for attempt in attempts]
    folder.database.write([*puts, *more, note(moved)])
    clear_noted(folder.layout.root, folder.database)


def _with_name(folder: OutputFolder, one: _Placed) -> _Placed:
    """Return it with the name of a former version, if it goes there."""
    if one.source is None or one.file is not None:
        return one
    return replace(one, file=_version(folder, one.attempt, one.source))


def _give_way(folder: OutputFolder, coming: _Placed, placed: list[_Placed]) -> Iterator[Attempt]:
    """Yield the attempts that are recorded where a video goes, as former ones.

    Theirs was missed: its name was kept for it, since a disk may bring it back, until another needs it.
    """
    if coming.source is None or coming.file is None:
        return
    moved = {one.attempt.external_task_id: one for one in placed}
    for holder in folder.database.holders_of(coming.file):
        own = moved.get(holder.external_task_id, _Placed(holder))
        state = own.attempt.state
        if own.source is None and isinstance(state, Landed):
            name = _version(folder, own.attempt, coming.file)
            yield replace(own.attempt, state=replace(state, file=name))


def _link(folder: OutputFolder, one: _Placed, former: list[Attempt]) -> None:
    """Give a video its second name; what is there makes way for it: *former*, or a file not known."""
    file = one.file or ""
    source, target = folder.layout.root / (one.source or ""), folder.layout.root / file
    disk.make(target.parent)
    if target.exists() and not is_one_video(source, target):
        known = [item.state.file for item in former if isinstance(item.state, Landed)]
        stray = folder.layout.root / (known[0] if known else _version(folder, one.attempt, file))
        disk.make(stray.parent)
        disk.move(target, stray)
    if not target.exists():
        disk.link(source, target)
    disk.flush(target.parent)


def _version(folder: OutputFolder, attempt: Attempt, file: str) -> str:
    """Return where a video becomes a former version: a name that is free, or its own already."""
    root = folder.layout.root
    if isinstance(attempt.state, Landed) and file == attempt.state.file:
        at = attempt.state.came_at
    else:
        at = (root / file).stat().st_mtime

    def is_free(name: str) -> bool:
        is_own = not (root / name).exists() or is_one_video(root / file, root / name)
        return is_own and not folder.database.holders_of(name)

    return next(filter(is_free, (version_file(attempt.job_id, at, number) for number in count(1))))


def _row(attempt: Attempt, move: Move, *, run_id: str, now: float) -> str:
    """Return the row that tells of a move."""
    warning = f"taken over from {move.old_id!r}"
    tasks = sum(item.task_id is not None for item in move.attempts)
    warnings, tags = (warning,), move.tags
    row = make_row(attempt, run_id=run_id, tasks=tasks, now=now, warnings=warnings, tags=tags)
    return to_line(row)


def _end_detours(folder: OutputFolder) -> None:
    """Bring videos from where they wait to the names that are free by now."""
    detours = json.loads(folder.database.fact(DETOURS) or "{}")
    if not detours:
        return
    placed: list[_Placed] = []
    in_bucket = _in_bucket(folder)
    for external_task_id, file in detours.items():
        attempt = folder.database.attempt(external_task_id)
        state = attempt.state
        if isinstance(state, Landed) and (
            _is_here(folder, state.file) or external_task_id in in_bucket
        ):
            placed.append(_Placed(attempt, state.file, file))
    _rename(folder, placed, [Fact(DETOURS, "{}")])


def _second_names(folder: OutputFolder, moves: list[Move]) -> Iterator[tuple[str, str]]:
    """Yield names that nothing would clear any more once their jobs have moved, and where the videos are."""
    for item in (item for move in moves for item in move.attempts):
        if item.file is not None:
            holder = folder.database.attempt(item.external_task_id)
            names = second_names(folder.layout.root, item.file, [holder])
            yield from ((name, item.file) for name in names)


def _in_bucket(folder: OutputFolder) -> Collection[str]:
    """Return the attempts whose videos are in the bucket, and need not be here."""
    return away(folder.database, target_of(folder.database))


def _is_here(folder: OutputFolder, file: str) -> bool:
    return (folder.layout.root / file).is_file()
