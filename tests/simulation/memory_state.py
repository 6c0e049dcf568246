"""`State` in memory, for unit tests and one-stage scripts; see `tests/contract`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from batch.attempt import Account, Attempt, Discarded, Landed, Phase
from batch.errors import RefusedError, StateError
from batch.output.codec import failure_of
from batch.output.state import (
    AddRow,
    Change,
    Fact,
    GenerationTime,
    NotUploaded,
    Payment,
    Proof,
    Put,
    Uploaded,
    Withdraw,
)
from batch.plan import Known


@dataclass
class MemoryState:
    """A `State` that keeps every promise but one: it does not outlive the process.

    *commits* are the changes in their order; *fails* makes the next commits fail;
    without *has_indexes* they may break the two rules.
    """

    attempts: dict[str, Attempt] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    proofs: dict[Account, float] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    uploaded: dict[tuple[str, str], Uploaded] = field(default_factory=dict)
    commits: list[tuple[Change, ...]] = field(default_factory=list)
    fails: bool = False
    has_indexes: bool = True

    async def commit(self, *changes: Change) -> None:
        self.write(changes)  # before the first await: a cancelled commit counts
        await asyncio.sleep(0)

    def write(self, changes: tuple[Change, ...]) -> None:
        """Commit *changes*."""
        if self.fails:
            raise StateError("the state cannot be written")
        after = dict(self.attempts)
        for change in changes:
            match change:
                case Put(attempt):
                    if self.has_indexes:
                        _check(attempt, after)
                    after[attempt.external_task_id] = attempt
                case Withdraw(external_task_id):
                    after.pop(external_task_id, None)
                case _:
                    pass
        self.attempts = after
        self.commits.append(changes)
        for change in changes:
            self._add(change)

    def _add(self, change: Change) -> None:
        match change:
            case AddRow(line):
                self.rows.append(line)
            case Proof(account, at):
                self.proofs[account] = at
            case GenerationTime(kind, seconds):
                self.times.setdefault(kind, []).append(seconds)
            case Fact(name, value):
                self.facts[name] = value
            case Uploaded(target, file):
                self.uploaded[target, file] = change
            case NotUploaded(target, file):
                self.uploaded.pop((target, file), None)
            case _:
                pass

    async def attempt(self, external_task_id: str) -> Attempt:
        return self.attempts[external_task_id]

    def _ordered(self) -> list[Attempt]:
        return sorted(self.attempts.values(), key=lambda a: (a.job_id, a.number))

    async def holders_of(self, file: str) -> list[Attempt]:
        return [
            attempt
            for attempt in self._ordered()
            if isinstance(attempt.state, Landed) and attempt.state.file == file
        ]

    async def owners_of_content(self, sha256: str) -> list[Attempt]:
        return [a for a in self._ordered() if sha256 in _contents(a)]

    async def owner_of(self, task_id: str) -> str | None:
        owners = [a.external_task_id for a in self.attempts.values() if a.task_id == task_id]
        return owners[0] if owners else None

    async def proved_at(self, account: Account) -> float | None:
        return self.proofs.get(account)

    async def newest_task_of(self, account: Account) -> Attempt | None:
        paid = [a for a in self.attempts.values() if a.task is not None and a.account == account]
        return max(paid, key=lambda a: a.paid_task.submitted_at, default=None)

    async def has_task_at(self, base_url: str) -> bool:
        return any(
            a.task is not None and a.account.base_url == base_url for a in self.attempts.values()
        )

    async def generation_times(self) -> dict[str, list[float]]:
        return {kind: list(seconds) for kind, seconds in self.times.items()}

    async def payments(self, since: float) -> list[Payment]:
        return self.paid(since)

    def paid(self, since: float) -> list[Payment]:
        """As `payments`."""
        found = []
        for attempt in self.attempts.values():
            is_refused = attempt.phase is Phase.FAILED and attempt.task is None
            if not is_refused and attempt.sent_at >= since:
                name, phase, task_id = attempt.external_task_id, attempt.phase, attempt.task_id
                found.append(Payment(name, phase, task_id, attempt.cost_usd, attempt.sent_at))
        return found

    async def known(self) -> dict[str, list[Known]]:
        known: dict[str, list[Known]] = {}
        for item in known_of(self.attempts.values()):
            known.setdefault(item.job_id, []).append(item)
        return known

    async def known_of(self, job_id: str) -> list[Known]:
        return known_of(item for item in self.attempts.values() if item.job_id == job_id)

    async def uploads(
        self, target: str, *, file: str | None = None, sha256: str | None = None
    ) -> list[Uploaded]:
        found = (item for _, item in sorted(self.uploaded.items()) if item.target == target)
        wanted = (item for item in found if file is None or item.file == file)
        return [item for item in wanted if sha256 is None or item.sha256 == sha256]


def _check(attempt: Attempt, attempts: dict[str, Attempt]) -> None:
    for other in attempts.values():
        if other.external_task_id == attempt.external_task_id:
            continue
        if attempt.task_id is not None and other.task_id == attempt.task_id:
            raise RefusedError(f"task {attempt.task_id} has an owner already")
        is_same_job = (other.job_id, other.fingerprint) == (attempt.job_id, attempt.fingerprint)
        if is_same_job and not (other.phase.is_finished or attempt.phase.is_finished):
            raise RefusedError(f"job {attempt.job_id!r} has an unfinished attempt already")


def known_of(attempts: Iterable[Attempt]) -> list[Known]:
    """Return attempts in short, by job and number."""
    return [_known(item) for item in sorted(attempts, key=lambda a: (a.job_id, a.number))]


def _known(attempt: Attempt) -> Known:
    state, failure = attempt.state, failure_of(attempt.state)
    pin = getattr(state, "pin", None)
    return Known(
        external_task_id=attempt.external_task_id,
        job_id=attempt.job_id,
        number=attempt.number,
        fingerprint=attempt.fingerprint,
        phase=attempt.phase,
        task_id=attempt.task_id,
        failure_kind=None if failure is None else failure.kind.value,
        file=getattr(state, "file", None),
        bytes=getattr(state, "bytes", None),
        cost_usd=attempt.cost_usd,
        landed_at=getattr(state, "landed_at", None),
        failure_message=None if failure is None else failure.message,
        is_unexplained=failure is not None and failure.is_unexplained,
        failed_at=getattr(state, "failed_at", None),
        generated_at=state.generated_at if isinstance(state, Discarded) else None,
        pinned_for=None if pin is None else pin.fingerprint,
        version_at=None if pin is None else pin.version_at,
        sent_at=attempt.sent_at,
    )


def _contents(attempt: Attempt) -> frozenset[str]:
    match attempt.state:
        case Landed() as landed:
            return landed.contents
        case Discarded(sha256=sha256):
            return frozenset({sha256})
        case _:
            return frozenset()
