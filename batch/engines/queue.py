"""The queue of deliveries, in the tables of DBOS: what is written there by SQL, without DBOS.

A delivery that is done is removed, together with others, once a second. One that a death leaves is
delivered again, and its job is found to be settled.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from batch.attempt import Account
from batch.errors import StateError
from batch.output.postgres.pool import Connection, Connections
from batch.output.postgres.schema import MIGRATIONS

APP, WORKFLOW = "kling-batch", "kling_batch.job"
VERSION = f"state {len(MIGRATIONS)}"  # workers of one version of the state share their jobs
AGAIN = " again"  # ends the name of an account's queue for what is queued again
REMOVES_S = 1.0  # between two removals of what is done
MOST_REMOVED = 1000  # at once
ENQUEUE = """
    SELECT count(dbos.enqueue_workflow(
        %(workflow)s, %(queue)s, ARRAY[to_json(%(run)s::text), to_json(job)],
        workflow_id => %(run)s || '/' || %(look)s || '/' || job, app_version => %(version)s,
        priority => place, application_name => %(app)s
    )) FROM unnest(%(places)s::int[], %(jobs)s::text[]) AS its (place, job)
"""
FORGET = """
    DELETE FROM dbos.workflow_status WHERE workflow_uuid IN (
        SELECT workflow_uuid FROM dbos.workflow_status AS its WHERE queue_name = ANY(%(queues)s)
        AND NOT EXISTS (SELECT 1 FROM kling.runs
            WHERE is_open AND run_id = split_part(its.workflow_uuid, '/', 1))
        FOR UPDATE SKIP LOCKED
    )
"""
# A failover may have forgotten that a job was done: its delivery stays, and is found to be missing here.
REMOVE = """
    DELETE FROM dbos.workflow_status WHERE workflow_uuid IN (
        SELECT workflow_uuid FROM dbos.workflow_status AS its WHERE workflow_uuid = ANY(%(ids)s)
        AND NOT EXISTS (SELECT 1 FROM kling.jobs JOIN kling.runs USING (run_id)
            WHERE is_open AND state = 'todo' AND its.workflow_uuid = concat_ws('/', run_id, looks, job_id)
            AND run_id = split_part(its.workflow_uuid, '/', 1))
        FOR UPDATE SKIP LOCKED
    )
"""

# A run that began before an upgrade: what is queued are ids, which each version understands.
TAKE_OVER = """
    UPDATE dbos.workflow_status SET application_version = %(version)s
        WHERE name = %(workflow)s AND application_version <> %(version)s
"""


def queue_of(account: Account) -> str:
    """Return the name of an account's queue."""
    address = hashlib.sha256(account.base_url.encode()).hexdigest()[:16]
    return f"{address} {account.key_hash}"


def enqueue(
    transaction: Any,
    run_id: str,
    account: Account,
    jobs: Sequence[tuple[int, str]],
    look: int = 1,
    *,
    kind: str = "",
) -> None:
    """See `Engine.enqueue`; *kind* is `AGAIN` for what is queued again."""
    queue = queue_of(account) + kind
    values = {"workflow": WORKFLOW, "queue": queue, "run": run_id, "look": str(look)}
    listed = {"places": [place for place, _ in jobs], "jobs": [job_id for _, job_id in jobs]}
    transaction.execute(ENQUEUE, {**values, **listed, "version": VERSION, "app": APP})


def enqueue_run(
    transaction: Any, run_id: str, account: Account, jobs: Sequence[tuple[int, str]]
) -> None:
    """Queue the jobs of a new run.

    What is kept of the account's ended runs is removed: the worker that ended one may have died of it.
    """
    queues = [queue_of(account), queue_of(account) + AGAIN]
    transaction.execute(FORGET, {"queues": queues})
    enqueue(transaction, run_id, account, jobs)


class Removal:
    """Removes deliveries that are done; one that stays is delivered again."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._done: list[str] = []
        self._leaving: list[str] = []

    @property
    def waiting(self) -> list[str]:
        """What is done, and may not have been removed yet."""
        return [*self._leaving, *self._done]

    def add(self, delivery: str) -> None:
        """Have a delivery removed that is done."""
        self._done.append(delivery)

    async def go_on(self) -> None:
        """Remove what is done, once a second."""
        while True:
            await asyncio.sleep(REMOVES_S)
            await self.end()

    async def end(self) -> None:
        """Remove what is done now."""
        self._leaving, self._done = self.waiting, []
        await self.remove(self._leaving)
        self._leaving = []

    async def remove(self, deliveries: Sequence[str]) -> None:
        """Remove deliveries of jobs that are settled."""
        with suppress(StateError):
            for begin in range(0, len(deliveries), MOST_REMOVED):
                ids = list(deliveries[begin : begin + MOST_REMOVED])
                await self._connections.once(partial(_remove, ids))


async def _remove(ids: list[str], connection: Connection) -> None:
    await connection.execute(REMOVE.encode(), {"ids": ids})
