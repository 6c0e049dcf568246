"""A library in Postgres as commands and the planning of a run see it: a `Store`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg

from batch.attempt import Account, Attempt
from batch.output.in_short import Row, all_known, by_job
from batch.output.marker import mark
from batch.output.postgres import questions
from batch.output.postgres.changes import to_json
from batch.output.postgres.errors import map_errors
from batch.output.postgres.questions import Question
from batch.output.state import Change, Payment, Uploaded
from batch.output.store import RunRecord
from batch.plan import History, Known

T = TypeVar("T")
COMMIT = b"SELECT commit_changes(%s, %s, %s, %s, %s)"
CHECK_CLAIM = b"SELECT check_claim(%s, %s, %s)"


class PostgresDatabase:
    """One library, over one connection. *path* is the file that marks its folder."""

    def __init__(
        self, connection: psycopg.Connection[Any], library: str, *, path: Path, place: str
    ) -> None:
        self.path = path
        self.library = library
        self.place = place
        self.connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def write(self, changes: Iterable[Change]) -> None:
        values = (self.library, None, None, None, to_json(changes))
        with map_errors(self.place):
            self.connection.execute(COMMIT, values)

    def checkpoint(self) -> None:
        mark(self.path, self.library)

    def ask(self, question: Question[T]) -> T:
        """Return the answer to a question."""
        with map_errors(self.place):
            return question.answer(
                self.connection.execute(question.sql.encode(), question.values).fetchall()
            )

    @property
    def is_new(self) -> bool:
        return self.ask(questions.is_new(self.library))

    def known(self) -> History:
        return all_known(self._pages("known"))

    def jobs(self) -> Iterator[list[Known]]:
        with map_errors(self.place), self.connection.transaction():
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield from by_job(self._pages("jobs"))

    def _pages(self, name: str) -> Iterator[Row]:
        """Iterate over all attempts in short, of which a page at a time is fetched; *name* it."""
        question, connection = questions.known(self.library), self.connection
        with map_errors(self.place), connection.transaction(), connection.cursor(name) as cursor:
            cursor.itersize = questions.PAGE
            yield from cursor.execute(question.sql.encode(), question.values)

    def attempt(self, external_task_id: str) -> Attempt:
        found = self.ask(questions.attempt(self.library, external_task_id))
        if found is None:
            raise KeyError(external_task_id)
        return found

    def attempts(self) -> Iterator[Attempt]:
        last: Attempt | None = None
        while True:
            yield from (page := self.ask(questions.page_of_attempts(self.library, last)))
            if len(page) < questions.PAGE:
                return
            last = page[-1]

    def owner_of(self, task_id: str) -> str | None:
        return self.ask(questions.owner_of(task_id))

    def attempts_of(self, job_id: str) -> list[Attempt]:
        return self.ask(questions.attempts_of(self.library, job_id))

    def holders_of(self, file: str) -> list[Attempt]:
        return self.ask(questions.holders_of(self.library, file))

    def owners_of_content(self, sha256: str) -> list[Attempt]:
        return self.ask(questions.owners_of_content(self.library, sha256))

    def result_lines(self, after: int = 0) -> Iterator[str]:
        while True:
            page = self.ask(questions.page_of_lines(self.library, after))
            yield from (line for _, line in page)
            if len(page) < questions.PAGE:
                return
            after = page[-1][0]

    def result_bytes(self) -> int:
        return self.ask(questions.result_bytes(self.library))

    def proved_at(self, account: Account) -> float | None:
        return self.ask(questions.proved_at(account))

    def newest_task_of(self, account: Account) -> Attempt | None:
        return self.ask(questions.newest_task_of(self.library, account))

    def has_task_at(self, base_url: str) -> bool:
        return self.ask(questions.has_task_at(self.library, base_url))

    def generation_times(self) -> dict[str, list[float]]:
        return self.ask(questions.generation_times(self.library))

    def payments(self, since: float) -> list[Payment]:
        return self.ask(questions.payments(self.library, since))

    def uploads(
        self, target: str, *, file: str | None = None, sha256: str | None = None
    ) -> list[Uploaded]:
        return self.ask(questions.uploads(self.library, target, file, sha256))

    def targets(self) -> list[str]:
        return self.ask(questions.targets(self.library))

    def not_uploaded(self, target: str) -> list[str]:
        return self.ask(questions.not_uploaded(self.library, target))

    def surplus(self, target: str) -> list[Uploaded]:
        return self.ask(questions.surplus(self.library, target))

    def forced(self) -> dict[str, int]:
        return self.ask(questions.forced(self.library))

    def first_run(self) -> str | None:
        return self.ask(questions.first_run(self.library))

    def runs(self, last: int = -1) -> list[RunRecord]:
        return self.ask(questions.runs(self.library, last))

    def fact(self, name: str) -> str | None:
        return self.ask(questions.fact(self.library, name))
