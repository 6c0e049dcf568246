"""The tables of a fleet in Postgres, in a schema of their own.

All times are seconds since the epoch. Texts that are sorted by are in the order of SQLite (`COLLATE
"C"`), whatever the language of the database.

Entry n brings the tables from version n to n + 1. Never edit a released one; append, also where only
functions change: what is appended may be empty, and has databases of older releases ask for `engine init`.
"""

from __future__ import annotations

from batch.output.postgres.fleet_functions import FLEET_FUNCTIONS
from batch.output.postgres.functions import FUNCTIONS

SCHEMA = "kling"
NOW = "extract(epoch FROM clock_timestamp())::float8"

# When an attempt was sent, as far as is known: `Attempt.sent_at`.
SENT_AT = (
    "coalesce((detail->>'submitted_at')::float8,"
    " CASE WHEN state <> 'Intended' THEN (detail->>'sent_at')::float8 END,"
    " (detail->>'since')::float8)"
)

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (version integer NOT NULL, timeline text NOT NULL, forgot_at float8);
    CREATE SEQUENCE tokens;  -- of claims, never per run: a worker of last night must fail, too
    CREATE TABLE accounts (
        base_url text NOT NULL, account text NOT NULL,
        rate_interval_s float8,            -- between two requests; null: as the open runs say
        max_in_flight integer,             -- null: the largest of the open runs
        slot_limit integer,                -- what the provider has taught; null: nothing yet
        quiet_s float8 NOT NULL DEFAULT 60, raise_at float8 NOT NULL DEFAULT 0,
        probing boolean NOT NULL DEFAULT false,
        due_at float8 NOT NULL DEFAULT 0, paused_until float8 NOT NULL DEFAULT 0,
        refusals integer NOT NULL DEFAULT 0,
        refused text,                      -- why the provider refuses the account
        waited_until float8 NOT NULL DEFAULT 0,  -- a doorkeeper waits for a slot until then
        PRIMARY KEY (base_url, account)
    );
    CREATE TABLE libraries (
        library text PRIMARY KEY, root text NOT NULL,
        lives_here boolean NOT NULL DEFAULT true,  -- false: state.db of its folder is the truth
        results bigint NOT NULL DEFAULT 0, results_end bigint NOT NULL DEFAULT 0
    );
    CREATE TABLE facts (
        library text NOT NULL REFERENCES libraries, name text NOT NULL, value text NOT NULL,
        PRIMARY KEY (library, name)
    );
    CREATE TABLE runs (
        seq bigserial PRIMARY KEY, run_id text COLLATE "C" NOT NULL UNIQUE,
        library text NOT NULL REFERENCES libraries,
        started_at float8 NOT NULL, finished_at float8, exit_code integer, summary text,
        is_open boolean NOT NULL DEFAULT false,
        base_url text, account text, terms text, deadline_at float8,   -- since it was handed over
        budget_usd float8, reserved_usd float8 NOT NULL DEFAULT 0,
        max_in_flight integer, rate_interval_s float8,
        timeline text,                     -- of the database, when it was handed over
        stop_reason text, stop_sentence text
    );
    CREATE UNIQUE INDEX open_run_of_library ON runs (library) WHERE is_open;
    CREATE INDEX open_runs_of_account ON runs (base_url, account) WHERE is_open;
    CREATE TABLE jobs (
        run_id text NOT NULL REFERENCES runs (run_id), job_id text NOT NULL, ord integer NOT NULL,
        work text NOT NULL, state text NOT NULL DEFAULT 'todo', looks integer NOT NULL DEFAULT 1,
        PRIMARY KEY (run_id, job_id)
    );
    CREATE INDEX jobs_to_do ON jobs (run_id) WHERE state = 'todo';
    CREATE TABLE claims (
        library text NOT NULL, job_id text NOT NULL, token bigint NOT NULL, run_id text NOT NULL,
        worker text NOT NULL, takeovers integer NOT NULL DEFAULT 0,
        PRIMARY KEY (library, job_id)
    );
    CREATE INDEX claims_of_worker ON claims (worker);
    CREATE TABLE names (
        run_id text NOT NULL, external_task_id text NOT NULL, job_id text NOT NULL,
        PRIMARY KEY (run_id, external_task_id)
    );
    CREATE TABLE attempts (
        library text NOT NULL REFERENCES libraries, external_task_id text COLLATE "C" NOT NULL,
        job_id text COLLATE "C" NOT NULL, number integer NOT NULL, fingerprint text NOT NULL,
        request text NOT NULL, state text NOT NULL, detail jsonb NOT NULL, task_id text,
        failure_kind text, file text, bytes bigint, polls integer NOT NULL, cost_usd float8,
        base_url text NOT NULL, token_hash text, account text NOT NULL,
        run_id text,                       -- that changed it last
        sent_in text,                      -- the run that may have paid for it last
        slot_until float8,                 -- it holds a slot of its account until then
        reserved_usd float8,               -- of the budget of the run in `sent_in`
        PRIMARY KEY (library, external_task_id)
    );
    CREATE INDEX attempts_of_job ON attempts (library, job_id, number);
    CREATE UNIQUE INDEX owner_of_task ON attempts (task_id, base_url) WHERE task_id IS NOT NULL;
    CREATE UNIQUE INDEX unfinished_of_job ON attempts (library, job_id, fingerprint)
        WHERE state NOT IN ('Landed', 'Discarded', 'Failed');
    CREATE INDEX attempts_by_time ON attempts (library, (
        coalesce((detail->>'submitted_at')::float8,
            CASE WHEN state <> 'Intended' THEN (detail->>'sent_at')::float8 END,
            (detail->>'since')::float8)
    ));
    CREATE INDEX attempts_of_file ON attempts (library, file) WHERE file IS NOT NULL;
    CREATE INDEX slots_of_account ON attempts (base_url, account) WHERE slot_until IS NOT NULL;
    CREATE TABLE results (
        library text NOT NULL REFERENCES libraries, seq bigint NOT NULL, line text NOT NULL,
        ends_at bigint NOT NULL, digest bytea NOT NULL, run_id text NOT NULL, job_id text NOT NULL,
        PRIMARY KEY (library, seq), UNIQUE (library, digest)
    );
    CREATE INDEX results_of_run ON results (run_id, job_id);
    CREATE TABLE lookup_proofs (
        base_url text NOT NULL, account text NOT NULL, proved_at float8 NOT NULL,
        PRIMARY KEY (base_url, account)
    );
    CREATE TABLE generation_times (
        seq bigserial PRIMARY KEY, library text NOT NULL REFERENCES libraries,
        kind text NOT NULL, seconds float8 NOT NULL
    );
    CREATE TABLE forced (
        library text NOT NULL REFERENCES libraries, fingerprint text NOT NULL,
        began_at float8 NOT NULL, videos integer NOT NULL, PRIMARY KEY (library, fingerprint)
    );
    CREATE TABLE uploads (
        library text NOT NULL REFERENCES libraries, target text NOT NULL, file text COLLATE "C" NOT NULL,
        sha256 text NOT NULL, bytes bigint NOT NULL, uploaded_at float8 NOT NULL,
        external_task_id text, e_tag text, version text, PRIMARY KEY (library, target, file)
    );
    CREATE INDEX uploads_of_content ON uploads (library, target, sha256);
    CREATE TABLE workers (
        worker text PRIMARY KEY, beat_at float8 NOT NULL, host text, pid integer, version text,
        accounts jsonb                     -- those whose keys it has
    );
    """,
    # Older releases have made version 1 without that column, and with other functions.
    """
    ALTER TABLE workers ADD COLUMN IF NOT EXISTS accounts jsonb;
    """,
)

# The functions hold no data, and are made anew for each version: their arguments may change.
CODE = f"""
DO $$
DECLARE
    older regprocedure;
BEGIN
    FOR older IN SELECT oid FROM pg_proc WHERE pronamespace = '{SCHEMA}'::regnamespace LOOP
        EXECUTE 'DROP FUNCTION ' || older || ' CASCADE';  -- with its triggers
    END LOOP;
END $$;
{FUNCTIONS}
{FLEET_FUNCTIONS}
"""

# What an older release calls the timeline is the beginning of what it is called now. It is the same:
# nothing was restored, and so nothing has to be looked up.
TIMELINE = """
    INSERT INTO meta (version, timeline) SELECT 0, timeline() WHERE NOT EXISTS (SELECT 1 FROM meta);
    UPDATE meta SET timeline = timeline() WHERE starts_with(timeline(), timeline || '/');
    UPDATE runs SET timeline = timeline() WHERE is_open AND starts_with(timeline(), timeline || '/');
"""
