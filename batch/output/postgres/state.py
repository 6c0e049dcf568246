"""`State` on Postgres for the event loop of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from batch.attempt import Account, Attempt
from batch.output.fleet import CLAIM
from batch.output.postgres import questions
from batch.output.postgres.changes import COMMIT_ALL, Commit, all_to_json
from batch.output.postgres.groups import Group, read
from batch.output.postgres.pool import Connection, Connections
from batch.output.postgres.questions import Question, Rows
from batch.output.state import Change, Payment, Uploaded
from batch.plan import History, Known

T = TypeVar("T")


class PostgresState:
    """The state of one library.

    A commit is made under the claim of the task that calls it (`CLAIM`); cancelling the call does not
    take it back. Those of one claim keep their order, whichever of them was cancelled.
    """

    def __init__(self, connections: Connections, library: str) -> None:
        self._connections = connections
        self._library = library
        self._commits = Group(connections, self._commit)
        self._reads = Group[Question[Any], Rows](connections, read)

    # -- reading

    async def attempt(self, external_task_id: str) -> Attempt:
        found = await self._ask(questions.attempt(self._library, external_task_id))
        if found is None:
            raise KeyError(external_task_id)
        return found

    async def holders_of(self, file: str) -> list[Attempt]:
        return await self._ask(questions.holders_of(self._library, file))

    async def owners_of_content(self, sha256: str) -> list[Attempt]:
        return await self._ask(questions.owners_of_content(self._library, sha256))

    async def owner_of(self, task_id: str) -> str | None:
        return await self._ask(questions.owner_of(task_id))

    async def proved_at(self, account: Account) -> float | None:
        return await self._connections.ask(questions.proved_at(account))

    async def newest_task_of(self, account: Account) -> Attempt | None:
        return await self._connections.ask(questions.newest_task_of(self._library, account))

    async def has_task_at(self, base_url: str) -> bool:
        return await self._connections.ask(questions.has_task_at(self._library, base_url))

    async def generation_times(self) -> dict[str, list[float]]:
        return await self._connections.ask(questions.generation_times(self._library))

    async def known(self) -> History:
        return await self._connections.ask(questions.known(self._library))

    async def known_of(self, job_id: str) -> list[Known]:
        found = await self._connections.ask(questions.known(self._library, job_id))
        return list(found.get(job_id, ()))

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
        await self._commits.do(Commit(claim, changes))

    async def _commit(self, connection: Connection, commits: Sequence[Commit]) -> list[None]:
        await connection.execute(COMMIT_ALL, (self._library, all_to_json(commits)))
        return [None] * len(commits)

    async def _ask(self, question: Question[T]) -> T:
        return question.answer(await self._reads.do(question))
