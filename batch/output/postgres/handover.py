"""The transactions of a fleet in which the engine queues jobs: synchronous, and rare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from batch.output.fleet import OpenRun, Work
from batch.output.postgres.schema import NOW

LEFT = "0"  # a beat as of a worker that has been dead for long


def hand_over(
    connection: psycopg.Connection[Any],
    run: OpenRun,
    jobs: Sequence[Work],
    enqueue: Callable[[Any], None],
) -> None:
    """See `Fleet.hand_over`."""
    account = (run.account.base_url, run.account.key_hash)
    connection.execute(
        "INSERT INTO libraries (library, root) VALUES (%s, %s)"
        " ON CONFLICT (library) DO UPDATE SET root = excluded.root",
        (run.library, run.root),
    )
    handed = connection.execute(
        "INSERT INTO runs AS old (run_id, library, started_at, is_open, base_url, account, terms,"
        " deadline_at, budget_usd, timeline)"
        " VALUES (%s, %s, %s, true, %s, %s, %s, %s, %s, timeline())"
        " ON CONFLICT (run_id) DO UPDATE SET base_url = excluded.base_url,"
        " account = excluded.account, terms = excluded.terms, deadline_at = excluded.deadline_at,"
        " budget_usd = excluded.budget_usd, timeline = excluded.timeline WHERE old.is_open AND old.terms IS NULL RETURNING 1",
        (
            *(run.run_id, run.library, run.began_at, *account),
            *(run.terms, run.deadline_at, run.budget_usd),
        ),
    ).fetchone()
    if handed is None:  # by this very call, whose answer was lost
        return
    ended = "(SELECT run_id FROM runs WHERE library = %s AND NOT is_open)"
    for table in ("names", "jobs"):
        query = f"DELETE FROM {table} WHERE run_id IN {ended}"
        connection.execute(query.encode(), (run.library,))
    copy_in = "COPY jobs (run_id, ord, job_id, work) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
        for job in jobs:
            copy.write_row((run.run_id, *job))
    enqueue(connection)
    # Last: all workers want that row, and this process may be stopped while it sends its jobs.
    connection.execute(
        "INSERT INTO accounts (base_url, account) VALUES (%s, %s)"
        " ON CONFLICT (base_url, account) DO UPDATE SET refused = NULL",
        account,
    )


def look_again(
    connection: psycopg.Connection[Any],
    run_id: str,
    enqueue: Callable[[Any, Sequence[Work]], None],
) -> int:
    """See `Fleet.look_again`."""
    # Of two workers that do this at once, the second waits, and finds what the first has handed over.
    query = "SELECT 1 FROM runs WHERE run_id = %s AND is_open FOR UPDATE"
    if connection.execute(query, (run_id,)).fetchone() is None:
        return 0
    parked = connection.execute(
        "WITH again AS (UPDATE jobs SET state = 'todo', looks = looks + 1 WHERE run_id = %s"
        " AND state = 'parked' AND looks = 1 AND NOT EXISTS ("
        "SELECT 1 FROM jobs WHERE run_id = %s AND state = 'todo') RETURNING ord, job_id, work)"
        " SELECT ord, job_id, work FROM again ORDER BY ord",
        (run_id, run_id),
    ).fetchall()
    if parked:
        enqueue(connection, [Work(*job) for job in parked])
    count = "SELECT count(*) FROM jobs WHERE run_id = %s AND state = 'todo'"
    row = connection.execute(count, (run_id,)).fetchone()
    assert row is not None
    return int(row[0])


def bury(
    connection: psycopg.Connection[Any],
    worker: str,
    dead_after_s: float,
    resume: Callable[[], None],
) -> bool:
    """See `Fleet.bury`."""
    row = connection.execute(
        f"SELECT beat_at > {LEFT} FROM workers WHERE worker = %s AND beat_at < {NOW} - %s"
        " FOR UPDATE SKIP LOCKED",
        (worker, dead_after_s),
    ).fetchone()
    if row is None:
        return False
    if row[0]:  # it died over these, and did not leave them
        query = "UPDATE claims SET takeovers = takeovers + 1 WHERE worker = %s"
        connection.execute(query, (worker,))
    resume()
    connection.execute("DELETE FROM workers WHERE worker = %s", (worker,))
    return True
