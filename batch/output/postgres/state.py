"""`State` on Postgres for the event loop of a worker."""

from __future__ import annotations

import asyncio
from typing import Any

from batch.attempt import Account, Attempt
from batch.output.fleet import CLAIM, Claim
from batch.output.postgres import questions
from batch.output.postgres.changes import to_json
from batch.output.postgres.database import COMMIT
from batch.output.postgres.pool import Connection, Connections
from batch.output.state import Change, Payment, Uploaded
from batch.plan import Known


class PostgresState:
    """The state of one library.

    A commit is made under the claim of the task that calls it (`CLAIM`), and takes one round trip.
    Those of one claim keep their order, whichever of them was cancelled.
    """

    def __init__(self, connections: Connections, library: str) -> None:
        self._connections = connections
        self._library = library
        self._commits: dict[Claim | None, asyncio.Task[None]] = {}

    # -- reading

    async def attempt(self, external_task_id: str) -> Attempt:
        question = questions.attempt(self._library, external_task_id)
        found = await self._connections.ask(question)
        if found is None:
            raise KeyError(external_task_id)
        return found

    async def holders_of(self, file: str) -> list[Attempt]:
        return await self._connections.ask(questions.holders_of(self._library, file))

    async def owner_of(self, task_id: str) -> str | None:
        return await self._connections.ask(questions.owner_of(task_id))

    async def proved_at(self, account: Account) -> float | None:
        return await self._connections.ask(questions.proved_at(account))

    async def newest_task_of(self, account: Account) -> Attempt | None:
        return await self._connections.ask(questions.newest_task_of(self._library, account))

    async def has_task_at(self, base_url: str) -> bool:
        return await self._connections.ask(questions.has_task_at(self._library, base_url))

    async def generation_times(self) -> dict[str, list[float]]:
        return await self._connections.ask(questions.generation_times(self._library))

    async def known(self) -> dict[str, list[Known]]:
        return await self._connections.ask(questions.known(self._library))

    async def known_of(self, job_id: str) -> list[Known]:
        """Return what a plan needs of one job."""
        found = await self._connections.ask(questions.known(self._library, job_id))
        return found.get(job_id, [])

    async def payments(self, since: float) -> list[Payment]:
        return await self._connections.ask(questions.payments(self._library, since))

    async def uploads(
        self, target: str, *, file: str | None = None, sha256: str | None = None
    ) -> list[Uploaded]:
        question = questions.uploads(self._library, target, file, sha256)
        return await self._connections.ask(question)

    # -- writing

    async def commit(self, *changes: Change) -> None:
        claim = CLAIM.get()
        assert claim is None or claim.library == self._library
        before = self._commits.get(claim)
        task = self._connections.start(self._commit(claim, to_json(changes), before))
        self._commits[claim] = task
        task.add_done_callback(lambda done: self._forget(claim, done))
        await asyncio.shield(task)  # cancelling the call does not take it back

    async def _commit(
        self, claim: Claim | None, changes: str, before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        named: tuple[Any, ...] = (None, None, None)
        if claim is not None:
            named = (claim.run_id, claim.job_id, claim.token)
        values = (self._library, *named, changes)

        async def write(connection: Connection) -> None:
            await connection.execute(COMMIT, values)

        await self._connections.again(write)

    def _forget(self, claim: Claim | None, done: asyncio.Task[None]) -> None:
        if self._commits.get(claim) is done:
            del self._commits[claim]
