"""What a fleet is at: its workers, open runs and accounts; and the limits of an account."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from psycopg.rows import dict_row

from batch.attempt import Account
from batch.key import Secret
from batch.output.postgres.connection import connect, place_of
from batch.output.postgres.errors import map_errors
from batch.output.postgres.schema import NOW

WORKERS = f"""
    SELECT worker, host, pid, version, round(({NOW} - beat_at)::numeric, 1)::float8 AS silent_s
    FROM workers WHERE beat_at > '-infinity' ORDER BY worker
"""
RUNS = """
    SELECT run_id, root, base_url, account, started_at, deadline_at, budget_usd, reserved_usd,
        stop_sentence AS stopped, (
            SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (
                SELECT state, count(*) AS n FROM jobs WHERE jobs.run_id = runs.run_id GROUP BY state
            ) AS counted
        ) AS jobs
    FROM runs JOIN libraries USING (library) WHERE is_open AND terms IS NOT NULL ORDER BY started_at
"""
ACCOUNTS = f"""
    SELECT base_url, account, 1 / rate_interval_s AS per_second, max_in_flight, slot_limit, refused, (
        SELECT count(*) FROM attempts WHERE attempts.base_url = accounts.base_url
        AND attempts.account = accounts.account AND slot_until > {NOW}
    ) AS in_flight FROM accounts ORDER BY base_url, account
"""
SET = """
    INSERT INTO accounts AS old (base_url, account, rate_interval_s, max_in_flight)
    VALUES (%s, %s, %s, %s) ON CONFLICT (base_url, account) DO UPDATE SET
        rate_interval_s = coalesce(excluded.rate_interval_s, old.rate_interval_s),
        max_in_flight = coalesce(excluded.max_in_flight, old.max_in_flight)
"""
FORGET = """
    UPDATE accounts SET rate_interval_s = NULL, max_in_flight = NULL
    WHERE base_url = %s AND account = %s
"""


def overview(engine: Secret) -> dict[str, list[dict[str, Any]]]:
    """Return what the database says of workers, open runs and accounts."""
    queries = {"workers": WORKERS, "runs": RUNS, "accounts": ACCOUNTS}
    with closing(connect(engine)) as connection, map_errors(place_of(engine)):
        cursor = connection.cursor(row_factory=dict_row)
        return {name: cursor.execute(query.encode()).fetchall() for name, query in queries.items()}


def limit_account(
    engine: Secret, account: Account, *, per_second: float | None, max_in_flight: int | None
) -> None:
    """Give an account limits of its own, over those of its runs; without any, take them away."""
    named = (account.base_url, account.key_hash)
    with closing(connect(engine)) as connection, map_errors(place_of(engine)):
        if per_second is None and max_in_flight is None:
            connection.execute(FORGET.encode(), named)
            return
        interval_s = None if per_second is None else 1.0 / per_second
        connection.execute(SET, (*named, interval_s, max_in_flight))
