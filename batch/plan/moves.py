"""Which jobs are known by another id: a video belongs to its request, not to its name.

    a job without attempts for its request          (the others are as they were: no more is asked)
      ├─ its request stands under an id that does not ask for it (any more)     those attempts move
      └─ an id that is gone differs from its own only in letter case or Unicode form    all of them
    a job whose attempts for its request have all failed, or whose videos of it were discarded
      └─ a video of it, or a task, is under an id that does not ask for it      those attempts move

Two candidates or two such jobs are paired one to one, in their order. The job that takes the latest
request of an id that is gone takes the rest of its history, too, and so does one whose id people take
for the same; and a version that was pinned for the request goes along, unless another job wants just
that. A job that loses its pinned version so lacks a video of its own request, and takes it where it
stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from batch.attempt import Phase
from batch.job import Job, folded, video_path
from batch.plan.decision import History, Known, Move

NOTHING_TO_COME = frozenset({Phase.FAILED, Phase.DISCARDED})
WORTHLESS = 2


def find_moves(
    jobs: Sequence[Job], known: History, places: Sequence[int] | None = None
) -> list[Move]:
    """Return the moves, in the manifest's order.

    Args:
        jobs: what the manifest asks for.
        known: the attempts so far.
        places: in *jobs*, of those that may lack something; the others need nothing but what they
            have. By default all.
    """
    robbed: set[str] = set()
    while known:
        asked = jobs if places is None else (jobs[place] for place in places)
        seekers = _seekers(jobs, asked, known, robbed)
        if not seekers:
            break
        moves = _find(seekers, known)
        losing = _losing(seekers.wanted, known, moves) - robbed
        if not losing:
            return moves
        robbed |= losing
    return []


class _Seekers(NamedTuple):
    """The jobs that lack something which may stand under another id.

    *holders* are the ids under which a request of theirs stands, and *namesakes* those that people take
    for one of theirs. *wanted* has the fingerprints of all these ids that the manifest still asks for.
    """

    jobs: Sequence[Job]
    holders: Mapping[str, Sequence[str]]
    namesakes: Sequence[str]
    wanted: Mapping[str, str]


def _losing(wanted: Mapping[str, str], known: History, moves: Sequence[Move]) -> set[str]:
    """Return the jobs whose pinned version goes to the job that wants its request."""
    if not moves:
        return set()
    old_ids, after = {move.old_id for move in moves}, after_moves(known, moves)
    return {
        job_id
        for job_id, fingerprint in wanted.items()
        if job_id in old_ids
        and _needs_nothing(known[job_id], fingerprint)
        and not _needs_nothing(after.get(job_id, ()), fingerprint)
    }


def _find(seekers: _Seekers, known: History) -> list[Move]:
    wanted = seekers.wanted
    pairs = _by_request(seekers, known)
    _by_name(seekers, known, pairs)
    taken = {(old_id, job.fingerprint) for job, old_id in pairs.values()}  # what moves away
    paired = [pairs[job.id] for job in seekers.jobs if job.id in pairs]
    return [_move(job, old_id, known, wanted, taken) for job, old_id in paired]


def _seekers(
    jobs: Iterable[Job], asked: Iterable[Job], known: History, robbed: Collection[str]
) -> _Seekers | None:
    """Return those of the *asked* ones that lack something, with what there may be for them."""
    lacking = (
        job
        for job in asked
        if job.id in robbed or not _needs_nothing(known.get(job.id, ()), job.fingerprint)
    )
    first = next(lacking, None)
    if first is None:  # on most nights
        return None
    holders: dict[str, list[str]] = {}
    for job_id, attempts in known.items():
        for fingerprint in dict.fromkeys(item.fingerprint for item in attempts):
            holders.setdefault(fingerprint, []).append(job_id)
    names = set(map(folded, known))
    found = [
        job
        for job in itertools.chain((first,), lacking)
        if job.fingerprint in holders or folded(job.id) in names
    ]
    sought, sought_names = {job.fingerprint for job in found}, {folded(job.id) for job in found}
    holders = {fingerprint: ids for fingerprint, ids in holders.items() if fingerprint in sought}
    namesakes = [job_id for job_id in known if folded(job_id) in sought_names]
    theirs = {*namesakes, *itertools.chain.from_iterable(holders.values())}
    wanted = {job.id: job.fingerprint for job in jobs if job.id in theirs} if theirs else {}
    return _Seekers(found, holders, namesakes, wanted)


def after_moves(known: History, moves: Sequence[Move]) -> History:
    """Return what is known once the moves are done."""
    if not moves:
        return known
    moved = {item.external_task_id for move in moves for item in move.attempts}
    touched: dict[str, list[Known]] = {}
    for job_id in itertools.chain.from_iterable((move.old_id, move.new_id) for move in moves):
        attempts = known.get(job_id, ())
        touched[job_id] = [item for item in attempts if item.external_task_id not in moved]
    for move in moves:
        touched[move.new_id].extend(move.attempts)
    return _After(known, touched)


class _After(Mapping[str, Sequence[Known]]):
    """What is known of all jobs, and otherwise of those that are *touched*. A million are no copy."""

    def __init__(self, known: History, touched: Mapping[str, Sequence[Known]]) -> None:
        self._known = known
        self._touched = touched
        self._emptied = {job_id for job_id, attempts in touched.items() if not attempts}

    def __getitem__(self, job_id: str) -> Sequence[Known]:
        if job_id in self._emptied:
            raise KeyError(job_id)
        return self._touched[job_id] if job_id in self._touched else self._known[job_id]

    def __contains__(self, job_id: object) -> bool:
        return job_id not in self._emptied and (job_id in self._touched or job_id in self._known)

    def __iter__(self) -> Iterator[str]:
        new = (job_id for job_id in self._touched if job_id not in self._known)
        both = itertools.chain(self._known, new)
        return (job_id for job_id in both if job_id not in self._emptied)

    def __len__(self) -> int:
        new = sum(job_id not in self._known for job_id in self._touched)
        return len(self._known) + new - len(self._emptied)


def with_room(moves: Sequence[Move], known: History) -> list[Move]:
    """Return the moves that a run carries out: those of jobs that are not selected vacate no place."""
    leaving = {item.external_task_id for move in moves for item in move.attempts}
    return [
        move._replace(
            has_room=all(
                item.file != video_path(move.new_id) or item.external_task_id in leaving
                for item in known.get(move.new_id, ())
            ),
        )
        for move in moves
    ]


def _has(attempts: Iterable[Known], fingerprint: str) -> bool:
    return any(item.fingerprint == fingerprint for item in attempts)


def _needs_nothing(attempts: Iterable[Known], fingerprint: str) -> bool:
    """Return whether a job has a video for its request, what may be a task, or a pinned version."""
    for item in attempts:
        if item.fingerprint == fingerprint and item.phase not in NOTHING_TO_COME:
            return True
        if item.pinned_for == fingerprint:
            return True
    return False


def _worth(attempts: Iterable[Known], fingerprint: str) -> int:
    """Return what an id has of a request: 0 a video, 1 what may be a task, 2 nothing to come."""
    phases = {item.phase for item in attempts if item.fingerprint == fingerprint}
    if Phase.LANDED in phases:
        return 0
    return WORTHLESS if phases <= NOTHING_TO_COME else 1


def _by_request(seekers: _Seekers, known: History) -> dict[str, tuple[Job, str]]:
    """Pair jobs with the ids under which their requests stand.

    A job that has failed takes only what saves a payment, and after those that were never tried.
    """
    wanted = seekers.wanted
    holders = {
        fingerprint: [old_id for old_id in ids if wanted.get(old_id) != fingerprint]
        for fingerprint, ids in seekers.holders.items()
    }
    pairs: dict[str, tuple[Job, str]] = {}
    tried = {job.id for job in seekers.jobs if _has(known.get(job.id, ()), job.fingerprint)}
    for job in sorted(seekers.jobs, key=lambda job: job.id in tried):
        name, left = folded(job.id), holders.get(job.fingerprint, [])
        ranks = {old_id: _rank(old_id, job.fingerprint, name, known, wanted) for old_id in left}
        best = min(left, key=lambda old_id: ranks[old_id], default=None)
        if best is None or (job.id in tried and ranks[best][0] == WORTHLESS):
            continue
        left.remove(best)
        pairs[job.id] = job, best
    return pairs


def _rank(
    old_id: str, fingerprint: str, name: str, known: History, wanted: Mapping[str, str]
) -> tuple[int, bool, bool]:
    """Return how well an id fits a job: it has a video, the same name, is gone from the manifest."""
    return _worth(known[old_id], fingerprint), folded(old_id) != name, old_id in wanted


def _by_name(seekers: _Seekers, known: History, pairs: dict[str, tuple[Job, str]]) -> None:
    """Pair the jobs left, and without a history, with ids that people take for the same."""
    left = [job for job in seekers.jobs if job.id not in pairs and job.id not in known]
    if not left:
        return
    taken = {old_id for _, old_id in pairs.values()}
    gone = {
        folded(old_id): old_id
        for old_id in seekers.namesakes
        if old_id not in seekers.wanted and old_id not in taken
    }
    for job in left:
        old_id = gone.pop(folded(job.id), None)
        if old_id is not None:
            pairs[job.id] = job, old_id


def _move(
    job: Job,
    old_id: str,
    known: History,
    wanted: Mapping[str, str],
    taken: set[tuple[str, str]],
) -> Move:
    theirs, own = known[old_id], known.get(job.id, ())
    is_latest = theirs[-1].fingerprint == job.fingerprint or folded(old_id) == folded(job.id)
    is_whole = old_id not in wanted and not own and is_latest
    is_renamed = not _has(theirs, job.fingerprint)
    moved = [
        item
        for item in theirs
        if item.fingerprint == job.fingerprint
        or (
            (is_whole or is_renamed or item.pinned_for == job.fingerprint)
            and (old_id, item.fingerprint) not in taken
            and item.fingerprint != wanted.get(old_id)
        )
    ]
    if own:
        numbers = itertools.count(own[-1].number + 1)
        moved = [item._replace(number=next(numbers)) for item in moved]
    moved = [item._replace(job_id=job.id) for item in moved]
    return Move(old_id, job.id, job.fingerprint, tuple(moved), tags=job.tags)
