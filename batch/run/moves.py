"""Carry out the moves of a plan: videos, open tasks and history go to the ids they have by now.

    link each video to its new name, flush  →  one commit: owners, files, rows  →  unlink the old names

A death before the commit leaves a second name, which the next run finds in place; a death after it
leaves the old one, which the next run unlinks, since the commit records it.
"""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterator
from dataclasses import replace
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

TO_UNLINK = "moved"  # the fact that names what a move has left: [[old file, new file], …]


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
    if not moves:
        return
    changes: list[Change] = []
    lines: list[str] = []
    left: list[tuple[str, str]] = []
    marks = folder.database.forced()
    for move in moves:
        placed = [_place(folder.layout.root, one, move) for one in _moved(folder.database, move)]
        changes += [Put(attempt) for attempt, _ in placed]
        left += [names for _, names in placed if names is not None]
        if move.old_id in marks and move.new_id not in marks:
            changes.append(Force(move.new_id, now, marks[move.old_id]))
        wanted = [one for one, _ in placed if one.fingerprint == move.fingerprint]
        if wanted and has_outcome(wanted[-1]):
            lines.append(_row(wanted[-1], move, run_id=run_id, now=now))
    changes += [AddRow(line) for line in lines]
    folder.database.write([*changes, Fact(TO_UNLINK, json.dumps(left))])
    folder.results.append(lines)
    _unlink(folder)


def _moved(database: Database, move: Move) -> Iterator[Attempt]:
    """Yield the attempts of a move with their new owner and numbers."""
    for item in move.attempts:
        attempt = database.attempt(item.external_task_id)
        yield replace(attempt, job_id=move.new_id, number=item.number)


def _place(root: Path, attempt: Attempt, move: Move) -> tuple[Attempt, tuple[str, str] | None]:
    """Give a video that stands under its old id its new name, beside the old one.

    Where another known video stands there, it becomes a former version, and the job's run brings it
    back from there. Returns the attempt as it will be, and both names if it has two now.
    """
    state = attempt.state
    if not isinstance(state, Landed) or state.file != video_path(move.old_id):
        return attempt, None
    source = root / state.file
    if not source.is_file():
        return attempt, None
    is_current = move.has_room and attempt.fingerprint == move.fingerprint
    file = video_path(move.new_id) if is_current else _former(attempt, move)
    target = root / file
    disk.make(target.parent)
    if target.exists() and not target.samefile(source):  # whose it is, is not known
        stray = root / former_file(move.new_id, f"before-{attempt.external_task_id}")
        disk.make(stray.parent)
        disk.move(target, stray)
    if not target.exists():
        disk.link(source, target)
    disk.flush(target.parent)
    return replace(attempt, state=replace(state, file=file)), (state.file, file)


def _former(attempt: Attempt, move: Move) -> str:
    return former_file(move.new_id, attempt.external_task_id)


def _row(attempt: Attempt, move: Move, *, run_id: str, now: float) -> str:
    """Return the row that tells of a move."""
    warning = f"taken over from {move.old_id!r}"
    tasks = sum(item.task_id is not None for item in move.attempts)
    return to_line(make_row(attempt, run_id=run_id, tasks=tasks, now=now, warnings=(warning,)))


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
