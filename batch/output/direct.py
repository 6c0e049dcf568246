"""`State` over the store of a held folder, for a process that does one thing after the other."""

from __future__ import annotations

from batch.attempt import Account, Attempt
from batch.output.results import ResultsFile
from batch.output.state import AddRow, Change, Payment, Uploaded
from batch.output.store import Store
from batch.plan import History, Known


class Answers:
    """The questions of `State`, answered by a store at once, on the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def attempt(self, external_task_id: str) -> Attempt:
        return self._store.attempt(external_task_id)

    async def holders_of(self, file: str) -> list[Attempt]:
        return self._store.holders_of(file)

    async def owners_of_content(self, sha256: str) -> list[Attempt]:
        return self._store.owners_of_content(sha256)

    async def owner_of(self, task_id: str) -> str | None:
        return self._store.owner_of(task_id)

    async def proved_at(self, account: Account) -> float | None:
        return self._store.proved_at(account)

    async def newest_task_of(self, account: Account) -> Attempt | None:
        return self._store.newest_task_of(account)

    async def has_task_at(self, base_url: str) -> bool:
        return self._store.has_task_at(base_url)

    async def generation_times(self) -> dict[str, list[float]]:
        return self._store.generation_times()

    async def known(self) -> History:
        return self._store.known()

    async def known_of(self, job_id: str) -> list[Known]:
        return list(self._store.known().get(job_id, ()))

    async def payments(self, since: float) -> list[Payment]:
        return self._store.payments(since)

    async def uploads(
        self, target: str, *, file: str | None = None, sha256: str | None = None
    ) -> list[Uploaded]:
        return self._store.uploads(target, file=file, sha256=sha256)


class DirectState(Answers):
    """Reads and commits at once, on the event loop; nothing else may be waiting there."""

    def __init__(self, store: Store, results: ResultsFile) -> None:
        super().__init__(store)
        self._results = results

    async def commit(self, *changes: Change) -> None:
        self._store.write(changes)
        self._results.append([change.line for change in changes if isinstance(change, AddRow)])
