"""Which of the videos that have landed are here, and what a run has to record about them.

On most nights that is one `stat` for each video. Only a file that was written to since it landed is
read, and what was found is recorded, so that the next night need not read it again.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from batch.attempt import Attempt, Checked, Landed, Phase
from batch.job import Job, video_path
from batch.output.checked import check, was_left_alone
from batch.output.row import make_row, to_line
from batch.output.stale import stale
from batch.output.state import AddRow, Change, Put
from batch.output.store import Store
from batch.output.uploaded import away, target_of
from batch.plan import Known

EDITED = "the file was edited after it had landed"


class Presence:
    """Tells a plan which videos are here: as they landed, or edited by a person.

    The videos of attempts *in_bucket* need not be here; by default, where the latest run has it so.
    *known* is read only for a file that was changed, unless it is given.
    """

    def __init__(
        self,
        root: Path,
        database: Store | None,
        in_bucket: Container[str] | None = None,
        known: Mapping[str, Sequence[Known]] | None = None,
    ) -> None:
        if in_bucket is None:
            in_bucket = {} if database is None else away(database, target_of(database))
        self._in_bucket = in_bucket
        self._root = root
        self._folder = str(root)  # asked for every video
        self._given = known
        self._database = database
        self._found: list[tuple[Known, Attempt]] = []

    def __call__(self, item: Known) -> bool:
        """Return whether the video of an attempt that has landed is here."""
        try:
            status = os.stat(f"{self._folder}/{item.file}")  # noqa: PTH116 - a third of pathlib's time
            is_as_landed = was_left_alone(status, item.bytes or 0, item.landed_at or 0.0)
            if is_as_landed and item.failure_kind is None:
                return True
            return self._is_kept(item, None if is_as_landed else status)
        except OSError:
            return self._is_away(item)

    def look_at_rest(self, items: Iterable[Known], unsettled: Container[str]) -> Iterator[Known]:
        """Look at the videos that a plan passes over, while all *items* pass by: a million are read once.

        Those are former versions, and the videos of *unsettled* jobs: the plan says something else of
        these than that their video stands. They have left the manifest, or were changed, and an older
        video stands. What a run has missed stays so: a row of it would be taken for its job's state.
        """
        seen = {found.external_task_id for _, found in self._found}
        for item in items:
            is_planned = item.job_id not in unsettled and item.file == video_path(item.job_id)
            is_known = item.external_task_id in seen or item.failure_kind is not None
            if item.phase is Phase.LANDED and not (is_planned or is_known):
                self(item)
            yield item

    def _is_away(self, item: Known) -> bool:
        """Return whether a video that is not here is in the bucket, and only there."""
        if item.external_task_id not in self._in_bucket:
            return False
        return item.failure_kind is None or self._is_kept(item, None)

    def _is_kept(self, item: Known, changed: os.stat_result | None) -> bool:
        """Look at a file that was changed, or is back after a run had missed it."""
        assert self._database is not None
        attempt = self._database.attempt(item.external_task_id)
        assert isinstance(attempt.state, Landed)
        checked = attempt.state.checked
        if changed is not None and (checked is None or not checked.fits(changed)):
            checked = check(self._root / attempt.state.file, attempt)
            if checked is None or self._is_anothers(attempt, checked):
                return False
        found = attempt.to(replace(attempt.state, checked=checked, trouble=None))
        if found != attempt:
            self._found.append((item, found))
        return True

    def _is_anothers(self, own: Attempt, checked: Checked) -> bool:
        """Return whether the file of *own* is the video of another job, or the only copy of another attempt.

        Nobody has edited it then: the disk or the backup that it came with is older than the state,
        or than the names of the jobs. A copy of a former version that is still here is a person's
        choice.
        """
        assert self._database is not None
        assert isinstance(own.state, Landed)
        if checked.sha256 in own.state.contents:
            return False
        for other in (*self._known[own.job_id], *self._of_size[checked.bytes]):
            if other.external_task_id == own.external_task_id or other.file is None:
                continue
            state = self._database.attempt(other.external_task_id).state
            is_away = other.external_task_id in self._in_bucket
            is_beside = other.file != own.state.file and (self._root / other.file).exists()
            is_here = is_away or is_beside
            is_for_it = other.job_id == own.job_id or other.fingerprint == own.fingerprint
            is_chosen = is_here and is_for_it
            if isinstance(state, Landed) and checked.sha256 in state.contents and not is_chosen:
                return True
        return False

    @cached_property
    def _known(self) -> Mapping[str, Sequence[Known]]:
        """What is known as it is on disk: a plan may have moved an attempt to another job."""
        assert self._database is not None
        return self._database.known() if self._given is None else self._given

    @cached_property
    def _of_size(self) -> dict[int | None, list[Known]]:
        found: dict[int | None, list[Known]] = defaultdict(list)
        for items in self._known.values():
            for item in items:
                found[item.bytes].append(item)
        return found

    def changes(self, run_id: str, now: float, jobs: Iterable[Job] = ()) -> list[Change]:
        """Return what a run of *jobs* has to record. A video that is back gets a row: it has not failed."""
        if not self._found:
            return []
        tags = {job.id: job.tags for job in jobs}
        assert self._database is not None
        changes: list[Change] = [Put(found) for _, found in self._found]
        changes += stale(self._database, {found.job_id for _, found in self._found})
        for item, found in self._found:
            if item.failure_kind is None:
                continue
            same = [a for a in self._known[found.job_id] if a.fingerprint == found.fingerprint]
            tasks = sum(a.task_id is not None for a in same)
            assert isinstance(found.state, Landed)
            warnings = (EDITED,) if found.state.is_edited else ()
            row = make_row(
                found,
                run_id=run_id,
                tasks=tasks,
                now=now,
                warnings=warnings,
                tags=tags.get(found.job_id, ()),
            )
            changes.append(AddRow(to_line(row)))
        return changes
