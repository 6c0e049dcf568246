"""`Fleet` on Postgres.

What one round trip does goes over the worker's connections. What calls the engine within the
transaction (a handover, a second look, a burial) is rare: it takes a connection of its own, in a thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import psycopg

from batch.attempt import Account
from batch.key import Secret
from batch.output.fleet import (
    DEAD_AFTER_S,
    Assignment,
    Claim,
    JobState,
    OpenRun,
    Outcome,
    Progress,
    Pulse,
    Work,
)
from batch.output.postgres import handover, questions
from batch.output.postgres.connection import KEPT, SESSIONS, connect, session_name
from batch.output.postgres.errors import map_errors
from batch.output.postgres.groups import Group
from batch.output.postgres.pool import Connection, Connections
from batch.output.postgres.schema import NOW

T = TypeVar("T")
Row = tuple[Any, ...]
HELD_FOR_S = 10.0
# Of a process that was stopped, Postgres may wait for the rest of a statement, or for an answer to be
# read, with all its locks and without an end. So whoever is alive ends the sessions of workers that are
# not, once they have been in a transaction, or have held a library, for `HELD_FOR_S`.
FREE = (
    "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity AS its"
    " WHERE datname = current_database() AND usename = current_user"
    f" AND starts_with(application_name, '{SESSIONS}') AND application_name <> %s"
    f" AND NOT EXISTS (SELECT 1 FROM workers WHERE beat_at >= {NOW} - %s"
    f" AND '{SESSIONS}' || right(regexp_replace(worker, '[^ -~]', '?', 'g'), {KEPT}) = application_name)"
    " AND (xact_start IS NOT NULL"
    " OR EXISTS (SELECT 1 FROM pg_locks WHERE pid = its.pid AND locktype = 'advisory'))"
    " AND coalesce(xact_start, state_change) < clock_timestamp() - make_interval(secs => %s)"
)
Delivered = tuple[str, str, str]  # run, job, worker
# Each statement names what it is about as lists, and looks for one item after the other.
CLAIM_JOBS = (
    b"SELECT claimed.* FROM unnest(%s::text[], %s::text[], %s::text[]) AS its (run, job, worker),"
    b" claim_job(its.run, its.job, its.worker) AS claimed"
)
TOUCHED = (
    b"SELECT place, external_task_id, is_changed, is_sent"
    b" FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS its (run, job, place),"
    b" LATERAL (SELECT external_task_id, run_id = its.run AS is_changed, sent_in = its.run AS is_sent"
    b" FROM attempts WHERE library = (SELECT library FROM runs WHERE run_id = its.run)"
    b" AND job_id = its.job OFFSET 0) AS attempt"
)
NAME_ATTEMPTS = (
    b"SELECT name_attempt(library, run, job, token, name)"
    b" FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[])"
    b" AS its (library, run, job, token, name)"
)
_RUN = (
    "run_id, library, root, base_url, account, terms, started_at, deadline_at, budget_usd,"
    " stop_reason, stop_sentence"
)
# Of what was made nobody asks more; whole, the rows of a night take a worker's memory twice.
_SHORT = (
    "CASE WHEN line::json->>'status' = 'succeeded' THEN json_strip_nulls(json_build_object("
    "'job_id', job_id, 'status', 'succeeded', 'external_task_id', line::json->'external_task_id',"
    " 'warnings', line::json->'warnings'))::text ELSE line END"
)
_RUN_OF = (
    f"SELECT {_RUN} FROM runs JOIN libraries USING (library)"
    " WHERE run_id = %s AND terms IS NOT NULL"
)


class PostgresFleet:
    """The shared records, asked over *connections* to *engine*.

    *dead_after_s*: so long a worker may be silent.
    """

    def __init__(
        self,
        engine: Secret,
        connections: Connections,
        *,
        dead_after_s: float = DEAD_AFTER_S,
        version: str = "",
    ) -> None:
        self._engine = engine
        self._connections = connections
        self._dead_after_s = dead_after_s
        self._version = version
        self._claims = Group(connections, _claim)
        self._names = Group(connections, _name)

    # -- runs

    async def hand_over(
        self, run: OpenRun, jobs: Sequence[Work], enqueue: Callable[[Any], None]
    ) -> None:
        await self._apart(lambda connection: handover.hand_over(connection, run, jobs, enqueue))

    async def run_of(self, run_id: str) -> OpenRun | None:
        return await self._run(f"{_RUN_OF} AND is_open", run_id)

    async def handed_over(self, run_id: str) -> OpenRun | None:
        """Return a run that was handed over, also if it has ended since."""
        return await self._run(_RUN_OF, run_id)

    async def _run(self, query: str, run_id: str) -> OpenRun | None:
        row = await self._one(query, run_id)
        return None if row is None else _open_run(row)

    async def stop(self, run_id: str, reason: str, sentence: str) -> None:
        await self._one("SELECT stop_run(%s, %s, %s)", run_id, reason, sentence)

    async def look_again(self, run_id: str, enqueue: Callable[[Any, Sequence[Work]], None]) -> int:
        return await self._apart(
            lambda connection: handover.look_again(connection, run_id, enqueue)
        )

    async def outcome(self, run_id: str) -> Outcome:
        async def read(connection: Connection) -> Outcome:
            async def rows(query: str) -> list[Row]:
                return await (await connection.execute(query.encode(), (run_id,))).fetchall()

            jobs = await rows(
                "SELECT ord, job_id, work, state FROM jobs WHERE run_id = %s"
                " AND state IN ('todo', 'left', 'bug') ORDER BY ord"
            )
            lines = await rows(f"SELECT {_SHORT} FROM results WHERE run_id = %s ORDER BY seq")
            sent = await rows("SELECT external_task_id FROM attempts WHERE sent_in = %s")
            return Outcome(
                left=tuple(Work(*job[:3]) for job in jobs if job[3] != JobState.BUG),
                bugs=tuple(job[1] for job in jobs if job[3] == JobState.BUG),
                rows=tuple(line for (line,) in lines),
                sent=frozenset(name for (name,) in sent),
            )

        return await self._connections.again(read)

    async def end(self, run_id: str, exit_code: int, summary: str) -> bool:
        query = (
            "WITH its AS (SELECT library, run_id FROM runs WHERE run_id = %s AND is_open FOR UPDATE)"
            f" SELECT end_run(library, run_id, {NOW}, %s, %s) FROM its"
        )
        return await self._one(query, run_id, exit_code, summary) is not None

    async def progress(self, run_id: str) -> Progress | None:
        query = "SELECT * FROM progress_of(%s, %s) WHERE able IS NOT NULL"
        row = await self._one(query, run_id, self._dead_after_s)
        if row is None:
            return None
        able, is_held, reason, sentence, exit_code = row
        stop = None if reason is None else (reason, sentence)
        return Progress(able, stop, exit_code, is_held=is_held)

    async def is_taken_up(self, run_id: str) -> bool:
        query = "SELECT 1 FROM runs JOIN claims USING (library, run_id) WHERE run_id = %s LIMIT 1"
        return await self._one(query, run_id) is not None

    # -- jobs

    async def claim(self, run_id: str, job_id: str, worker: str) -> Assignment | None:
        found = await self._claims.do((run_id, job_id, worker))
        if found is None or not (found.has_begun or found.is_second_look):
            return found
        known = await self._connections.ask(questions.known(found.claim.library, job_id))
        return replace(found, known=tuple(known.get(job_id, ())))

    async def settle(self, claim: Claim, state: JobState) -> None:
        await self._one("SELECT settle_job(%s, %s, %s, %s, %s)", *_named(claim), state.value)

    async def name(self, claim: Claim, external_task_id: str) -> bool:
        return await self._names.do((claim, external_task_id))

    async def astray(self, worker: str) -> list[tuple[str, str]]:
        async def read(connection: Connection) -> list[tuple[str, str]]:
            query = (
                b"SELECT jobs.run_id, jobs.job_id FROM runs JOIN jobs USING (run_id)"
                b" JOIN claims USING (library, run_id, job_id) WHERE is_open AND state = 'todo'"
                b" AND (worker = %s OR worker NOT IN (SELECT worker FROM workers))"
                b" ORDER BY jobs.run_id, ord"
            )
            return [
                (*row,) for row in await (await connection.execute(query, (worker,))).fetchall()
            ]

        return await self._connections.again(read)

    # -- workers

    async def beat(self, worker: str, accounts: Sequence[Account]) -> Pulse:
        listed = [{"base_url": one.base_url, "account": one.key_hash} for one in accounts]
        who = (worker, platform.node(), os.getpid(), self._version)
        # First, for a beat may wait for what they lock.
        await self._one(FREE, session_name(worker), self._dead_after_s, HELD_FOR_S)
        query = "SELECT * FROM beat(%s, %s, %s, %s, %s, %s)"
        row = await self._one(query, *who, json.dumps(listed), self._dead_after_s)
        assert row is not None
        at, stops, dead, settled = row
        told = {run_id: (reason, sentence) for run_id, (reason, sentence) in stops.items()}
        return Pulse(at, told, tuple(dead), tuple(settled))

    async def workers(self) -> frozenset[str]:
        async def read(connection: Connection) -> frozenset[str]:
            found = await (await connection.execute(b"SELECT worker FROM workers")).fetchall()
            return frozenset(worker for (worker,) in found)

        return await self._connections.again(read)

    async def bury(self, worker: str, resume: Callable[[], None]) -> bool:
        dead_after_s = self._dead_after_s
        return await self._apart(
            lambda connection: handover.bury(connection, worker, dead_after_s, resume)
        )

    async def leave(self, worker: str) -> None:
        await self._one(
            f"UPDATE workers SET beat_at = {handover.LEFT} WHERE worker = %s RETURNING 1", worker
        )

    # -- connections

    async def _one(self, query: str, *values: object) -> Row | None:
        async def read(connection: Connection) -> Row | None:
            return await (await connection.execute(query.encode(), values)).fetchone()

        return await self._connections.again(read)

    async def _apart(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Return what *work* does in a transaction on a connection of its own, in a thread."""

        def run() -> T:
            place = self._connections.place
            with connect(self._engine) as connection, map_errors(place), connection.transaction():
                return work(connection)

        return await asyncio.to_thread(run)


async def _claim(connection: Connection, delivered: Sequence[Delivered]) -> list[Assignment | None]:
    # Two workers that claim the same jobs lock them in the same order.
    order = sorted(range(len(delivered)), key=lambda place: delivered[place])
    runs, jobs, workers = map(list, zip(*(delivered[place] for place in order), strict=True))
    async with connection.pipeline():  # one round trip, one transaction
        claimed = await connection.execute(CLAIM_JOBS, (runs, jobs, workers))
        touched = await connection.execute(TOUCHED, (runs, jobs))
    rows, attempts = await claimed.fetchall(), await touched.fetchall()
    found: list[Assignment | None] = [None] * len(delivered)
    of: dict[int, list[Row]] = {}
    for number, *attempt in attempts:
        of.setdefault(number - 1, []).append((*attempt,))
    for number, (place, row) in enumerate(zip(order, rows, strict=True)):
        found[place] = _assignment(delivered[place], row, of.get(number, []))
    return found


def _assignment(delivered: Delivered, row: Row, attempts: Sequence[Row]) -> Assignment | None:
    (run_id, job_id, _), (library, order, work, looks, token, takeovers) = delivered, row
    if order is None:
        return None
    return Assignment(
        Claim(library, run_id, job_id, token),
        Work(order, job_id, work),
        has_begun=any(is_changed for _, is_changed, _ in attempts),
        sent=frozenset(name for name, _, is_sent in attempts if is_sent),
        is_second_look=looks > 1,
        takeovers=takeovers,
    )


async def _name(connection: Connection, named: Sequence[tuple[Claim, str]]) -> list[bool]:
    # Two workers that name the same attempts wait for each other in the same order.
    order = sorted(range(len(named)), key=lambda place: named[place][1])
    rows = [(*_named(named[place][0]), named[place][1]) for place in order]
    columns = [list(column) for column in zip(*rows, strict=True)]
    answers = await (await connection.execute(NAME_ATTEMPTS, columns)).fetchall()
    found = dict(zip(order, (is_its for (is_its,) in answers), strict=True))
    return [bool(found[place]) for place in range(len(named))]


def _named(claim: Claim) -> tuple[str, str, str, int]:
    return claim.library, claim.run_id, claim.job_id, claim.token


def _open_run(row: Row) -> OpenRun:
    run_id, library, root, base_url, account, terms, began_at, deadline_at, budget_usd, *stop = row
    return OpenRun(
        run_id=run_id,
        library=library,
        root=root,
        account=Account(base_url, account),
        terms=terms,
        began_at=began_at,
        deadline_at=deadline_at,
        budget_usd=budget_usd,
        stop=None if stop[0] is None else (stop[0], stop[1]),
    )
