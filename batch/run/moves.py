"""Carry out the moves of a plan: videos, open tasks and history go to the ids they have by now.

    link each video to its new name, flush  →  one commit: owners, files, rows  →  unlink the old names

A death before the commit leaves a second name, which the next run finds in place; a death after it
leaves the old one, which the next run unlinks, since the commit records it. Names that go round in a
circle take two such steps.
"""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from batch.attempt import Attempt, Landed
from batch.errors import StateError
from batch.job import folded, video_path
from batch.output import disk
from batch.output.folder import OutputFolder
from batch.output.layout import former_file
from batch.output.row import has_outcome, make_row, to_line
from batch.output.sqlite import Database
from batch.output.state import AddRow, Change, Fact, Force, Put
from batch.plan import Move

# Facts: what moves have left to unlink, [[old file, new file], …]; and the videos that wait under a
# former version's name until theirs is free, {external id: file}.
TO_UNLINK = "moved"
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
    _unlink(folder)
    _end_detours(folder)
    if not moves:
        return
    marks = folder.database.forced()
    placed: list[_Placed] = []
    more: list[Change] = []
    lines: list[str] = []
    for move in moves:
        mine = [_place(folder, attempt, move) for attempt in _moved(folder.database, move)]
        placed += mine
        if move.old_id in marks and move.new_id not in marks:
            more.append(Force(move.new_id, now, marks[move.old_id]))
        wanted = [one.settled for one in mine if one.attempt.fingerprint == move.fingerprint]
        if wanted and has_outcome(wanted[-1]):
            lines.append(_row(wanted[-1], move, run_id=run_id, now=now))
    # Names that go round in a circle, or along a chain, are given by way of a former version's name.
    sources = {one.source for one in placed} - {None}
    detours = {one.attempt.external_task_id: one.file for one in placed if one.file in sources}
    first = [one.by_detour() if one.file in sources else one for one in placed]
    more.append(Fact(DETOURS, json.dumps(detours)))
    _rename(folder, first, [*more, *map(AddRow, lines)])
    folder.results.append(lines)
    _end_detours(folder)


def _moved(database: Database, move: Move) -> Iterator[Attempt]:
    """Yield the attempts of a move with their new owner and numbers."""
    for item in move.attempts:
        attempt = database.attempt(item.external_task_id)
        yield replace(attempt, job_id=move.new_id, number=item.number)


@dataclass(frozen=True, slots=True)
class _Placed:
    """An attempt with its new owner; its video goes from *source* to *file*, if it has one there."""

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

    @property
    def _detour(self) -> str:
        return former_file(self.attempt.job_id, self.attempt.external_task_id)

    @property
    def stray(self) -> str:
        """Where a file goes that stands in the way, and whose it is, is not known."""
        return former_file(self.attempt.job_id, f"before-{self.attempt.external_task_id}")

    def by_detour(self) -> _Placed:
        """Return the first half of a move to a place that another video has not left yet."""
        return replace(self, file=self._detour)


def _place(folder: OutputFolder, attempt: Attempt, move: Move) -> _Placed:
    """Return where a moved video belongs: one that stands under its old id gets the new name."""
    state = attempt.state
    if not isinstance(state, Landed) or state.file != video_path(move.old_id):
        return _Placed(attempt)
    if not (folder.layout.root / state.file).is_file():
        return _Placed(attempt)
    placed = _Placed(attempt, state.file, video_path(move.new_id))
    is_current = move.has_room and attempt.fingerprint == move.fingerprint
    return placed if is_current else placed.by_detour()


def _rename(folder: OutputFolder, placed: list[_Placed], more: list[Change]) -> None:
    """Link the videos to their new names, commit, unlink the old ones."""
    root = folder.layout.root
    left: list[tuple[str, str]] = []
    for one in placed:
        if one.source is not None and one.file is not None:
            _link(root / one.source, root / one.file, stray=root / one.stray)
            left.append((one.source, one.file))
    puts = [Put(one.settled) for one in placed]
    folder.database.write([*puts, *more, Fact(TO_UNLINK, json.dumps(left))])
    _unlink(folder)


def _link(source: Path, target: Path, *, stray: Path) -> None:
    """Give a video its second name; a file that is not known makes way for it."""
    disk.make(target.parent)
    if target.exists() and not target.samefile(source):
        disk.make(stray.parent)
        disk.move(target, stray)
    if not target.exists():
        disk.link(source, target)
    disk.flush(target.parent)


def _row(attempt: Attempt, move: Move, *, run_id: str, now: float) -> str:
    """Return the row that tells of a move."""
    warning = f"taken over from {move.old_id!r}"
    tasks = sum(item.task_id is not None for item in move.attempts)
    return to_line(make_row(attempt, run_id=run_id, tasks=tasks, now=now, warnings=(warning,)))


def _end_detours(folder: OutputFolder) -> None:
    """Bring videos from where they wait to the names that are free by now."""
    detours = json.loads(folder.database.fact(DETOURS) or "{}")
    if not detours:
        return
    placed: list[_Placed] = []
    for external_task_id, file in detours.items():
        attempt = folder.database.attempt(external_task_id)
        if (
            isinstance(attempt.state, Landed)
            and (folder.layout.root / attempt.state.file).is_file()
        ):
            placed.append(_Placed(attempt, attempt.state.file, file))
    _rename(folder, placed, [Fact(DETOURS, "{}")])


def _unlink(folder: OutputFolder) -> None:
    """Unlink the old names of videos that have moved."""
    left = json.loads(folder.database.fact(TO_UNLINK) or "[]")
    if not left:
        return
    root = folder.layout.root
    for old, new in left:
        if not folder.database.holders_of(old) and _is_one_video(root / old, root / new):
            _drop(root / old, root / new)
    folder.database.write([Fact(TO_UNLINK, "[]")])


def _is_one_video(old: Path, new: Path) -> bool:
    try:
        return old.samefile(new) or filecmp.cmp(old, new, shallow=False)
    except OSError:
        return False


def _drop(old: Path, new: Path) -> None:
    """Remove the old name; where both are one name to the file system, spell it as the new one."""
    if folded(str(old)) == folded(str(new)) and new.name not in os.listdir(new.parent):  # noqa: PTH208
        old.rename(new)
    else:
        old.unlink()
    disk.flush(old.parent)
