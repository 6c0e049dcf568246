"""What an admission asks and writes, in SQL: see `batch.run.gate_postgres`."""

from __future__ import annotations

from batch.output.postgres.schema import NOW, SENT_AT

LOCK = (
    "SELECT rate_interval_s, max_in_flight, waited_until, slot_limit, quiet_s, raise_at, probing,"
    " due_at, paused_until, refusals, refused FROM accounts"
    " WHERE base_url = %(base_url)s AND account = %(account)s FOR UPDATE"
)
# Of the slots of the account, those that the asking attempts hold among them.
SLOTS = (
    "SELECT count(*) AS in_use, count(*) FILTER (WHERE sent_in = %(run_id)s) AS of_run"
    " FROM attempts WHERE base_url = %(base_url)s AND account = %(account)s"
    f" AND slot_until > {NOW}"
)
SEEN = (
    f"SELECT {NOW} AS now, runs.is_open, runs.reserved_usd, runs.deadline_at, runs.stop_reason,"
    " runs.stop_sentence, runs.timeline IS DISTINCT FROM timeline() AS is_doubted, open.*, slots.*"
    " FROM runs CROSS JOIN ("
    "SELECT max(max_in_flight) AS most, min(rate_interval_s) AS interval_s FROM runs"
    " WHERE is_open AND base_url = %(base_url)s AND account = %(account)s) AS open"
    f" CROSS JOIN ({SLOTS}) AS slots WHERE runs.run_id = %(run_id)s"
)
ITS = "unnest(%(names)s::text[], %(jobs)s::text[]) WITH ORDINALITY AS its (name, job, place)"
# What is known of the asking attempts, one after the other.
ASKING = (
    "SELECT coalesce(is_held, false) AS is_held, coalesce(is_of_run, false) AS is_of_run,"
    " coalesce(is_covered, false) AS is_covered, (SELECT token FROM claims"
    f" WHERE library = %(library)s AND job_id = its.job) AS token FROM {ITS}"
    f" LEFT JOIN LATERAL (SELECT slot_until > {NOW} AS is_held, sent_in = %(run_id)s AS is_of_run,"
    " sent_in = %(run_id)s AND reserved_usd IS NOT NULL AS is_covered FROM attempts"
    " WHERE library = %(library)s AND external_task_id = its.name OFFSET 0) AS mine ON true"
    " ORDER BY place"
)
# What `charged_usd` counts, by when it was sent; without those that are judged anew.
SPENT = (
    "SELECT coalesce(sum(cost_usd), 0) AS usd FROM attempts WHERE library = %(library)s"
    " AND NOT (external_task_id = ANY (%(names)s::text[])"
    " AND (sent_in = %(run_id)s AND reserved_usd IS NOT NULL) IS NOT TRUE)"
    f" AND {SENT_AT} >= %(begins)s AND {SENT_AT} < %(ends)s"
    " AND (task_id IS NOT NULL OR state IN ('Intended', 'Lost', 'Unconfirmed'))"
)
KEEP = (
    "UPDATE accounts SET slot_limit = %(limit)s, quiet_s = %(quiet_s)s, raise_at = %(raise_at)s,"
    " probing = %(is_probing)s, due_at = %(due_at)s, paused_until = %(paused_until)s,"
    " refusals = %(refusals)s, waited_until = greatest(waited_until, %(waited_until)s)"
    " WHERE base_url = %(base_url)s AND account = %(account)s"
)
HOLD = (
    f"UPDATE attempts SET slot_until = {NOW} + %(slot_s)s"
    " WHERE library = %(library)s AND external_task_id = ANY (%(names)s::text[])"
    " AND state NOT IN ('Generated', 'Landed', 'Discarded', 'Failed')"  # by another, meanwhile
)
FREE = (
    "UPDATE attempts SET slot_until = NULL"
    " WHERE library = %(library)s AND external_task_id = ANY (%(names)s::text[]) AND slot_until IS NOT NULL"
)
COVER = (
    f"UPDATE attempts SET slot_until = {NOW} + %(slot_s)s, sent_in = %(run_id)s,"
    " reserved_usd = CASE WHEN sent_in = %(run_id)s AND reserved_usd IS NOT NULL"
    " THEN reserved_usd ELSE its.usd END"
    " FROM unnest(%(names)s::text[], %(usd)s::float8[]) AS its (name, usd)"
    " WHERE library = %(library)s AND external_task_id = its.name"
)
RESERVE = "UPDATE runs SET reserved_usd = reserved_usd + %(usd)s WHERE run_id = %(run_id)s"
LIMITS = (
    "UPDATE runs SET max_in_flight = %(max_in_flight)s, rate_interval_s = %(interval_s)s"
    " WHERE run_id = %(run_id)s AND max_in_flight IS NULL"
)
