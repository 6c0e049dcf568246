"""The desk of a fleet's gate in Postgres: an admission is one transaction of two round trips.

the account, locked     all admissions of an account come one after the other
a second statement      counts slots, and reads run and budgets: the lock waited for the others
judge                   `batch.run.admission`, as everywhere
account, attempt, run   turn, slot, intent and estimate, if the claim is still the newest
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.rows import namedtuple_row

from batch.attempt import Account, Attempt
from batch.errors import ClaimLostError
from batch.key import Secret
from batch.library.allowances import Allowance, Standing, allowances
from batch.manifest.limits import Limits
from batch.output.postgres.admissions import (
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
from batch.output.postgres.changes import to_json
from batch.output.postgres.connection import SESSION, conninfo
from batch.output.postgres.database import CHECK_CLAIM, COMMIT
from batch.output.postgres.pool import Connection, Connections
from batch.output.postgres.schema import SCHEMA
from batch.output.state import Put
from batch.run.account import Traffic
from batch.run.admission import Admit, Deny, Seen, Wait, judge, known_limit
from batch.run.context import RunContext
from batch.run.doorkeeper import ASK_AGAIN_S, AWAY_S, Admitted, FleetGate, Learn, Request
from batch.run.gate import IsTooLate
from batch.waker import Waker

T = TypeVar("T")
Row = Any  # its columns are attributes
ASK_ONCE_MORE_S = 0.05  # a slot that was freed before it was known that one waits is told to nobody


class Whose(NamedTuple):
    """The run that a desk is for."""

    library: str
    run_id: str
    account: Account

    def values(self, external_task_id: str) -> dict[str, Any]:
        """Return what the queries name of the run and one of its attempts."""
        base_url, key_hash = self.account.base_url, self.account.key_hash
        named = {"library": self.library, "run_id": self.run_id, "name": external_task_id}
        return {**named, "base_url": base_url, "account": key_hash, "job_id": None}


class PostgresDesk:
    """Slots, turns and budgets of one run's account."""

    def __init__(self, connections: Connections, whose: Whose, now: Callable[[], float]) -> None:
        self._connections = connections
        self._whose = whose
        self._now = now
        self._has_told_limits = False

    async def ask(self, request: Request, limits: Limits) -> Admitted | Wait | Deny:
        name = request.attempt.external_task_id
        values = {**self._whose.values(name), "slot_s": request.slot_s}
        if request.claim is not None:
            values["job_id"] = request.claim.job_id

        async def work(connection: Connection) -> Admitted | Wait | Deny:
            if not self._has_told_limits:
                await self._tell_limits(connection, limits)
            async with connection.pipeline() as pipeline, connection.transaction():
                account, seen, spent = await self._look(
                    connection, pipeline, values, allowances(limits)
                )
                if request.claim is not None and seen.token != request.claim.token:
                    raise ClaimLostError(f"another worker has the job {request.claim.job_id}")
                found = _seen(account, seen, spent)
                verdict = judge(found, request.attempt.cost_usd, limits)
                match verdict:
                    case Admit():
                        return await _admit(connection, values, request, found, verdict)
                    case Wait():
                        return await _wait(connection, values, account, found, verdict)
                    case Deny():
                        return verdict

        return await self._connections.once(work)

    async def occupy(self, request: Request) -> None:
        await self._change_slot(HOLD, request)

    async def free(self, request: Request) -> None:
        await self._change_slot(FREE, request)

    async def learn(self, external_task_id: str, rule: Learn) -> None:
        values = self._whose.values(external_task_id)

        async def work(connection: Connection) -> None:
            async with connection.pipeline() as pipeline, connection.transaction():
                account, seen, _ = await self._look(connection, pipeline, values, ())
                found = _seen(account, seen, ())
                after = rule(found.traffic, found.now, found.in_use)
                await connection.execute(KEEP.encode(), _kept(values, found, after))

        await self._connections.once(work)

    async def _look(
        self,
        connection: Connection,
        pipeline: psycopg.AsyncPipeline,
        values: dict[str, Any],
        budgets: Sequence[Allowance],
    ) -> tuple[Row, Row, tuple[Standing, ...]]:
        """Lock the account; then read the rest of what an admission goes by."""
        now = self._now()
        while True:
            spans = [(allowance, allowance.span_of(now)) for allowance in budgets]
            asked = [await _ask(connection, LOCK, values), await _ask(connection, SEEN, values)]
            for _, span in spans:
                within = {**values, "begins": span.begins, "ends": span.ends}
                asked.append(await _ask(connection, SPENT, within))
            # Not by a fetch, which only flushes: Postgres counts that as one statement under way, and no
            # time-out of its own would ever take the lock from a process that sleeps now.
            await pipeline.sync()
            account, seen, *sums = [await cursor.fetchone() for cursor in asked]
            assert account is not None
            assert seen is not None
            now = seen.now
            if all(now in span for _, span in spans):  # the clock here may be a little off
                pairs = zip(spans, sums, strict=True)
                return account, seen, tuple(Standing(*span, row.usd) for span, row in pairs)

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


def _seen(account: Row, seen: Row, standings: tuple[Standing, ...]) -> Seen:
    ceiling = account.max_in_flight or seen.most or 1
    traffic = Traffic(
        limit=known_limit(account.slot_limit, ceiling),
        quiet_s=account.quiet_s,
        raise_at=account.raise_at,
        is_probing=account.probing,
        due_at=account.due_at,
        paused_until=account.paused_until,
        refusals=account.refusals,
    )
    stop = None if seen.stop_reason is None else (seen.stop_reason, seen.stop_sentence)
    return Seen(
        now=seen.now,
        traffic=traffic,
        ceiling=ceiling,
        interval_s=account.rate_interval_s or seen.interval_s or 1.0,
        in_use=seen.in_use,
        of_run=seen.of_run,
        is_held=bool(seen.is_held),
        is_covered=bool(seen.is_covered),
        reserved_usd=seen.reserved_usd,
        standings=standings,
        deadline_at=seen.deadline_at,
        stop=stop,
        refused=account.refused,
        is_open=seen.is_open,
        is_doubted=seen.is_doubted,
    )


def _kept(
    values: dict[str, Any], seen: Seen, traffic: Traffic, waited_until: float = 0.0
) -> dict[str, Any]:
    limit = None if traffic.limit >= seen.ceiling else traffic.limit
    fields = {name: getattr(traffic, name) for name in Traffic.__slots__}
    return {**values, **fields, "limit": limit, "waited_until": waited_until}


async def _admit(
    connection: Connection, values: dict[str, Any], request: Request, seen: Seen, verdict: Admit
) -> Admitted:
    """Keep what follows from an admission; the claim is checked with the intent."""
    traffic, claim = verdict.traffic, request.claim
    intended: Attempt = request.attempt.intended(seen.now)
    named = (None, None) if claim is None else (claim.job_id, claim.token)
    run_id, library = values["run_id"], values["library"]
    await connection.execute(KEEP.encode(), _kept(values, seen, traffic))
    await connection.execute(COMMIT, (library, run_id, *named, to_json([Put(intended)])))
    covered = {**values, "usd": verdict.usd, "is_covered": seen.is_covered}
    await connection.execute(COVER.encode(), covered)
    if verdict.usd:
        await connection.execute(RESERVE.encode(), covered)
    return Admitted(intended, traffic.refusals, traffic.due_at - seen.now)


async def _wait(
    connection: Connection, values: dict[str, Any], account: Row, seen: Seen, verdict: Wait
) -> Wait:
    """Record that a doorkeeper waits for a slot, so that it is told of the next one."""
    if not verdict.for_slot:
        return verdict
    is_known = account.waited_until > seen.now + ASK_AGAIN_S
    if verdict.traffic != seen.traffic or not is_known:
        until = seen.now + 2 * ASK_AGAIN_S
        kept = _kept(values, seen, verdict.traffic, until)
        await connection.execute(KEEP.encode(), kept)
    was_awaited = account.waited_until > seen.now
    return verdict if was_awaited else Wait(verdict.traffic, ASK_ONCE_MORE_S, for_slot=True)


class PostgresGates:
    """The gates of one worker, which are told of free slots. Use as an async context manager."""

    def __init__(self, engine: Secret, connections: Connections) -> None:
        self._engine = engine
        self._connections = connections
        self._news: WeakSet[Waker] = WeakSet()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen(), name="free slots")
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener

    def gate(
        self, library: str, run_id: str, context: RunContext, is_too_late: IsTooLate
    ) -> FleetGate:
        """Return the gate of a run."""
        whose = Whose(library, run_id, context.account)
        news = Waker()
        self._news.add(news)
        desk = PostgresDesk(self._connections, whose, context.clock.now)
        return FleetGate(context, desk, news, is_too_late)

    async def _listen(self) -> None:
        """Wake the doorkeepers when a slot is free; without a connection they ask by the clock."""
        while True:
            with suppress(psycopg.Error):
                connection = await psycopg.AsyncConnection.connect(
                    conninfo(self._engine), autocommit=True
                )
                async with connection:
                    await connection.execute(SESSION)
                    await connection.execute(f"LISTEN {SCHEMA}_slots".encode())
                    self._ring()
                    async for _ in connection.notifies():
                        self._ring()
            await asyncio.sleep(AWAY_S)

    def _ring(self) -> None:
        for news in self._news:
            news.set()
