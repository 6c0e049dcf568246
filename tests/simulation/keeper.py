"""A person who keeps the library between the nights: brings versions back, and prunes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from virtual_time import EPOCH

from batch.attempt import Attempt, Discarded, Failed, Landed
from batch.job import Job
from batch.library.prune import Wanted, carry_out, find
from batch.library.restore import NotRestoredError, restore, unpin, versions_of
from batch.manifest.model import Keep
from batch.output.folder import OutputFolder, open_folder

if TYPE_CHECKING:
    from night import Night


class _Now:
    """The time between two nights."""

    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now


def keep(night: Night) -> list[str]:
    """Restore, unpin or prune by chance; return the broken rules."""
    if not night.home.has_state(night.root):
        return []
    clock = _Now(EPOCH + night.now + night.offset)
    with open_folder(night.root, sandbox=False, now=clock.now()) as folder:
        if night.rng.random() < 0.5:
            return _restore(night, folder, clock)
        return _prune(night, folder, clock)


def _restore(night: Night, folder: OutputFolder, clock: _Now) -> list[str]:
    ids = sorted(folder.database.known())
    if not ids:
        return []
    job_id = night.rng.choice(ids)
    versions = versions_of(folder.database, job_id)
    if any(version.landed.pin for version in versions) and night.rng.random() < 0.3:
        unpin(folder, versions, job_id)
        return []
    former = [version for version in versions if not version.is_current]
    if not former:
        return []
    chosen = night.rng.choice(former)
    try:
        restored = asyncio.run(restore(folder, chosen, clock))
    except NotRestoredError:  # a person or a disk has taken it away
        return []
    assert isinstance(restored.state, Landed)
    there = (night.root / f"videos/{job_id}.mp4").read_bytes()
    if len(there) not in {chosen.landed.bytes, getattr(chosen.landed.checked, "bytes", 0)}:
        return [f"{job_id}: the version of {chosen.landed.file} was not restored"]
    return []


def _prune(night: Night, folder: OutputFolder, clock: _Now) -> list[str]:
    rng, jobs = night.rng, night.jobs()
    wanted = Wanted(
        orphans=True,
        versions=rng.random() < 0.5,
        strays=rng.random() < 0.5,
        delete=rng.random() < 0.5,
        keep=_keep(rng),
    )
    found = find(folder.layout, folder.database, jobs, wanted, clock.now())
    going = [attempt for item in found.work for attempt in item.attempts]
    broken = [f"prune takes {a.state.file}" for a in going if _is_current(a, jobs)]
    pinned = (a for a in going if getattr(a.state, "pin", None))
    broken += [f"prune takes the pinned {attempt.external_task_id}" for attempt in pinned]
    known = list(folder.database.attempts())
    failed = asyncio.run(carry_out(folder, found.work, clock.now()))
    attempts = list(folder.database.attempts())
    if failed or [a.external_task_id for a in known] != [a.external_task_id for a in attempts]:
        broken.append(f"prune has lost an attempt, or failed: {failed}")
    broken += [
        f"prune has left nothing to {job.id}" for job in jobs if _is_robbed(job, known, attempts)
    ]
    left = find(folder.layout, folder.database, jobs, wanted, clock.now()).work
    # A copy of what was only now discarded belongs to nobody from here on.
    broken += [f"prune has left {item.file}" for item in left if item.attempts]
    for attempt in attempts:
        if isinstance(attempt.state, Discarded) and attempt.state.discarded_at == clock.now():
            night.discarded[attempt.body()["prompt"]] += 1
    return broken


def _is_current(attempt: Attempt, jobs: Sequence[Job]) -> bool:
    """Return whether an attempt's video is the one that stands for its job, which is listed.

    A job renamed while the disk was away may have left its own at the name of another.
    """
    assert isinstance(attempt.state, Landed)
    files = {job.id: job.video_path for job in jobs}
    return files.get(attempt.job_id) == attempt.state.file


def _is_robbed(job: Job, before: list[Attempt], after: list[Attempt]) -> bool:
    """Return whether the last video of a job's request has gone, under whatever id, and it has no other."""

    def count(attempts: list[Attempt]) -> int:
        same = (a for a in attempts if a.fingerprint == job.fingerprint)
        return sum(isinstance(a.state, Landed) for a in same)

    own = [a for a in before if a.job_id == job.id]
    pins = (getattr(a.state, "pin", None) for a in own)
    is_served = any(pin.fingerprint == job.fingerprint for pin in pins if pin is not None) or any(
        a.fingerprint == job.fingerprint and not isinstance(a.state, Failed | Discarded | Landed)
        for a in own
    )
    return not is_served and count(before) > count(after) == 0


def _keep(rng: random.Random) -> Keep:
    return rng.choice([Keep(), Keep(1), Keep(None, 86_400.0), Keep(2, 7 * 86_400.0)])
