"""What a fleet is at: its workers, open runs and accounts; and the limits of an account."""

from __future__ import annotations

from contextlib import closing
from typing import Any, NamedTuple

from psycopg.rows import dict_row

from batch.attempt import Account
from batch.key import Secret
from batch.output.fleet import DEAD_AFTER_S
from batch.output.postgres.connection import connect, place_of
from batch.output.postgres.errors import map_errors
from batch.output.postgres.handover import LEFT
from batch.output.postgres.schema import NOW

Found = dict[str, Any]

WORKERS = f"""
    SELECT worker, CASE WHEN beat_at = {LEFT} THEN 'ended' WHEN beat_at < {NOW} - %(dead_after_s)s
        THEN 'silent' ELSE 'alive' END AS state, host, pid, version,
        CASE WHEN beat_at > {LEFT}
            THEN greatest(round(({NOW} - beat_at)::numeric, 1), 0)::float8 END AS silent_s,
        (SELECT count(*) FROM claims JOIN jobs USING (run_id, job_id)
            WHERE claims.worker = workers.worker AND jobs.state = 'todo') AS jobs
    FROM workers ORDER BY worker
"""
RUNS = """
    SELECT run_id, root AS output_dir, base_url, account, started_at, deadline_at, budget_usd,
        reserved_usd, CASE WHEN stop_reason IS NOT NULL
            THEN jsonb_build_object('reason', stop_reason, 'sentence', stop_sentence) END AS stop,
        (
            SELECT jsonb_build_object('todo', count(*) FILTER (WHERE state = 'todo'),
                'done', count(*) FILTER (WHERE state = 'done'),
                'left', count(*) FILTER (WHERE state = 'left'),
                'parked', count(*) FILTER (WHERE state = 'parked'),
                'bug', count(*) FILTER (WHERE state = 'bug'))
            FROM jobs WHERE jobs.run_id = runs.run_id
        ) AS jobs
    FROM runs JOIN libraries USING (library) WHERE is_open AND terms IS NOT NULL
    ORDER BY started_at, run_id
"""
# What holds is what was set, else what the open runs of the account say: see `gate_postgres`.
ACCOUNTS = f"""
    SELECT base_url, account, slots.in_flight,
        coalesce(max_in_flight, open.most) AS max_in_flight,
        1 / coalesce(rate_interval_s, open.interval_s) AS rate_per_s,
        max_in_flight AS set_max_in_flight, 1 / rate_interval_s AS set_rate_per_s,
        slot_limit, greatest(paused_until - {NOW}, 0)::float8 AS paused_s, refused
    FROM accounts, LATERAL (
        SELECT count(*) AS in_flight FROM attempts WHERE attempts.base_url = accounts.base_url
        AND attempts.account = accounts.account AND slot_until > {NOW}
    ) AS slots, LATERAL (
        SELECT max(runs.max_in_flight) AS most, min(runs.rate_interval_s) AS interval_s FROM runs
        WHERE is_open AND runs.base_url = accounts.base_url AND runs.account = accounts.account
    ) AS open
    WHERE %(account)s::text IS NULL OR (base_url, account) = (%(base_url)s, %(account)s)
    ORDER BY base_url, account
"""
SET = """
    INSERT INTO accounts AS old (base_url, account, rate_interval_s, max_in_flight)
    VALUES (%(base_url)s, %(account)s, %(interval_s)s, %(max_in_flight)s)
    ON CONFLICT (base_url, account) DO UPDATE SET
        rate_interval_s = CASE WHEN %(has_rate)s
            THEN excluded.rate_interval_s ELSE old.rate_interval_s END,
        max_in_flight = CASE WHEN %(has_most)s
            THEN excluded.max_in_flight ELSE old.max_in_flight END
"""


class OwnLimits(NamedTuple):
    """Limits of an account itself, over those of its runs; None: as its runs say."""

    rate_per_s: float | None = None
    max_in_flight: int | None = None


def overview(engine: Secret) -> dict[str, Any]:
    """Return what the database says of workers, open runs and accounts, in one moment.

    Of a worker, *silent* means that it will be taken over; *ended* that it has left its jobs, and no
    other worker has been there since. *backlog* counts the jobs of open runs that are to be done.
    """
    values = {"dead_after_s": DEAD_AFTER_S, "account": None, "base_url": None}
    with closing(connect(engine)) as connection, map_errors(place_of(engine)):
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor = connection.cursor(row_factory=dict_row)
        workers, runs, accounts = (
            cursor.execute(query.encode(), values).fetchall() for query in (WORKERS, RUNS, ACCOUNTS)
        )
    backlog = sum(run["jobs"]["todo"] for run in runs)
    return {"backlog": backlog, "workers": workers, "runs": runs, "accounts": accounts}


def limit_account(
    engine: Secret, account: Account, limits: OwnLimits, given: tuple[bool, bool]
) -> Found | None:
    """Set what is *given* of an account's own limits (rate, in flight); return what holds then.

    None: nothing was given, and no run has used the account yet.
    """
    has_rate, has_most = given
    rate = limits.rate_per_s
    named = {"base_url": account.base_url, "account": account.key_hash}
    values = {
        **named,
        "interval_s": None if rate is None else 1.0 / rate,
        "max_in_flight": limits.max_in_flight,
        "has_rate": has_rate,
        "has_most": has_most,
    }
    with closing(connect(engine)) as connection, map_errors(place_of(engine)):
        if has_rate or has_most:
            connection.execute(SET, values)
        cursor = connection.cursor(row_factory=dict_row)
        return cursor.execute(ACCOUNTS.encode(), named).fetchone()
