"""The desk of a fleet's gate in Postgres: an admission is one transaction of two round trips.

the account, locked     all admissions of an account come one after the other
a second statement      counts slots, and reads run and budgets: the lock waited for the others
judge                   `batch.run.admission`, as everywhere
account, attempt, run   turn, slot, intent and estimate, if the claim is still the newest
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.rows import namedtuple_row

from batch.attempt import Account
from batch.library.allowances import Allowance, Standing, allowances
from batch.manifest.limits import Limits
from batch.output.postgres.admissions import (
    ASKING,
    COVER,
    FREE,
    HOLD,
    KEEP,
    LIMITS,
    LOCK,
    RESERVE,
    SEEN,
    SPENT,
)
from batch.output.postgres.changes import COMMIT_ALL, Commit, all_to_json
from batch.output.postgres.database import CHECK_CLAIM
from batch.output.postgres.pool import Connection, Connections
from batch.output.state import Put
from batch.run.admission import Admit, Asking, Deny, Wait, judge_all
from batch.run.context import RunContext
from batch.run.doorkeeper import (
    ASK_AGAIN_S,
    Admitted,
    Answer,
    FleetGate,
    Learn,
    Request,
)
from batch.run.gate import IsTooLate
from batch.run.looked_postgres import Looked, check_claims, kept, seen_of
from batch.waker import Waker

T = TypeVar("T")
ASK_ONCE_MORE_S = 0.05  # a slot that was freed before it was known that one waits is told to nobody


class Whose(NamedTuple):
    """The run that a desk is for."""

    library: str
    run_id: str
    account: Account

    def values(self, *names: str, jobs: Sequence[str | None] = (None,)) -> dict[str, Any]:
        """Return what the queries name of the run and some of its attempts."""
        base_url, key_hash = self.account.base_url, self.account.key_hash
        named = {"library": self.library, "run_id": self.run_id, "names": [*names]}
        return {**named, "base_url": base_url, "account": key_hash, "jobs": [*jobs]}


class PostgresDesk:
    """Slots, turns and budgets of one run's account."""

    def __init__(self, connections: Connections, whose: Whose, now: Callable[[], float]) -> None:
        self._connections = connections
        self._whose = whose
        self._now = now
        self._has_told_limits = False

    async def ask(self, requests: Sequence[Request], limits: Limits) -> list[Answer]:
        names = [request.attempt.external_task_id for request in requests]
        jobs = [None if request.claim is None else request.claim.job_id for request in requests]
        values = self._whose.values(*names, jobs=jobs)

        async def work(connection: Connection) -> list[Answer]:
            if not self._has_told_limits:
                await self._tell_limits(connection, limits)
            async with connection.pipeline() as pipeline, connection.transaction():
                looked = await self._look(connection, pipeline, values, allowances(limits))
                check_claims(requests, looked.asking)
                asking = [
                    Asking(request.attempt.cost_usd, row.is_held, row.is_of_run, row.is_covered)
                    for request, row in zip(requests, looked.asking, strict=True)
                ]
                verdicts = judge_all(looked.seen, asking, limits)
                return await _keep(connection, values, requests, looked, verdicts)

        return await self._connections.once(work)

    async def occupy(self, request: Request) -> None:
        await self._change_slot(HOLD, request)

    async def free(self, request: Request) -> None:
        await self._change_slot(FREE, request)

    async def learn(self, external_task_id: str, rule: Learn) -> None:
        values = self._whose.values(external_task_id)

        async def work(connection: Connection) -> None:
            async with connection.pipeline() as pipeline, connection.transaction():
                looked = await self._look(connection, pipeline, values, ())
                seen = looked.seen
                others = seen.in_use - looked.asking[0].is_held
                after = rule(seen.traffic, seen.now, others)
                await connection.execute(KEEP.encode(), kept(values, seen, after))

        await self._connections.once(work)

    async def _look(
        self,
        connection: Connection,
        pipeline: psycopg.AsyncPipeline,
        values: dict[str, Any],
        budgets: Sequence[Allowance],
    ) -> Looked:
        """Lock the account; then read the rest of what an admission goes by."""
        now = self._now()
        while True:
            spans = [(allowance, allowance.span_of(now)) for allowance in budgets]
            asked = [await _ask(connection, query, values) for query in (LOCK, SEEN, ASKING)]
            for _, span in spans:
                within = {**values, "begins": span.begins, "ends": span.ends}
                asked.append(await _ask(connection, SPENT, within))
            # Not by a fetch, which only flushes: Postgres counts that as one statement under way, and no
            # time-out of its own would ever take the lock from a process that sleeps now.
            await pipeline.sync()
            rows = [await cursor.fetchall() for cursor in asked]
            (account,), (seen,), asking, *sums = rows
            now = seen.now
            if all(now in span for _, span in spans):  # the clock here may be a little off
                pairs = zip(spans, sums, strict=True)
                standings = tuple(Standing(*span, spent[0].usd) for span, spent in pairs)
                return Looked(seen_of(account, seen, standings), asking, account.waited_until)

    async def _tell_limits(self, connection: Connection, limits: Limits) -> None:
        interval_s = 1.0 / limits.submit_rate.per_second
        told = {"max_in_flight": limits.max_in_flight, "interval_s": interval_s}
        await connection.execute(LIMITS.encode(), {**self._whose.values(""), **told})
        self._has_told_limits = True

    async def _change_slot(self, query: str, request: Request) -> None:
        """Take or free a slot under the request's claim: it may be the successor's by now."""
        values = {**self._whose.values(request.attempt.external_task_id), "slot_s": request.slot_s}
        claim = request.claim

        async def work(connection: Connection) -> None:
            async with connection.pipeline(), connection.transaction():
                if claim is not None:
                    checked = (claim.library, claim.job_id, claim.token)
                    await connection.execute(CHECK_CLAIM, checked)
                await connection.execute(query.encode(), values)

        await self._connections.once(work)


async def _ask(connection: Connection, query: str, values: dict[str, Any]) -> Any:
    cursor = connection.cursor(row_factory=namedtuple_row)
    return await cursor.execute(query.encode(), values)


async def _keep(
    connection: Connection,
    values: dict[str, Any],
    requests: Sequence[Request],
    looked: Looked,
    verdicts: Sequence[Admit | Wait | Deny],
) -> list[Answer]:
    """Keep what follows from verdicts; return the answers."""
    seen, last, waited_until = looked.seen, verdicts[-1], 0.0
    waiting = last if isinstance(last, Wait) and last.for_slot else None
    if waiting is not None and looked.waited_until <= seen.now + ASK_AGAIN_S:
        waited_until = seen.now + 2 * ASK_AGAIN_S  # so that the doorkeeper is told of the next one
    admitted = [verdict for verdict in verdicts if isinstance(verdict, Admit)]
    traffic = admitted[-1].traffic if admitted else seen.traffic
    if waiting is not None:
        traffic = waiting.traffic
    if traffic != seen.traffic or waited_until:
        await connection.execute(KEEP.encode(), kept(values, seen, traffic, waited_until))
    answers: list[Answer] = []
    if admitted:
        answers.extend(await _intend(connection, values, requests, seen.now, admitted))
    if waiting is not None and looked.waited_until <= seen.now:
        answers.append(replace(waiting, for_s=ASK_ONCE_MORE_S))
    elif not isinstance(last, Admit):
        answers.append(last)
    return answers


async def _intend(
    connection: Connection,
    values: dict[str, Any],
    requests: Sequence[Request],
    now: float,
    admitted: Sequence[Admit],
) -> list[Admitted]:
    """Put the intents of the first requests on disk, with slots and estimates, under their claims."""
    answers, commits = [], []
    for request, verdict in zip(requests, admitted, strict=False):
        # A request does not go out before its turn.
        intended = request.attempt.intended(now + verdict.in_s)
        commits.append(Commit(request.claim, [Put(intended)]))
        next_s = verdict.traffic.due_at - now
        answers.append(Admitted(intended, verdict.traffic.refusals, next_s, verdict.in_s))
    await connection.execute(COMMIT_ALL, (values["library"], all_to_json(commits)))
    usd = [verdict.usd for verdict in admitted]
    covered = {**values, "names": values["names"][: len(usd)], "slot_s": requests[0].slot_s}
    await connection.execute(COVER.encode(), {**covered, "usd": usd})
    if any(usd):
        await connection.execute(RESERVE.encode(), {**values, "usd": sum(usd)})
    return answers


class PostgresGates:
    """The gates of one worker."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._news: WeakSet[Waker] = WeakSet()

    def gate(
        self, library: str, run_id: str, context: RunContext, is_too_late: IsTooLate
    ) -> FleetGate:
        """Return the gate of a run."""
        whose = Whose(library, run_id, context.account)
        news = Waker()
        self._news.add(news)
        desk = PostgresDesk(self._connections, whose, context.clock.now)
        return FleetGate(context, desk, news, is_too_late)

    def wake(self, _told: str) -> None:
        """Wake the doorkeepers: a slot may be free. If nobody says so, they ask by the clock."""
        for news in self._news:
            news.set()
