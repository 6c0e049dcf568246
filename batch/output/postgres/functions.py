"""What Postgres does in one round trip: a commit with its fence, repeatable in every part.

`commit` is one statement and so one transaction. Its order of locks is that of every transaction here:
the claim, attempts, the run, and last the library, whose rows have one order.
"""

from __future__ import annotations

CLAIM_LOST = "KB001"  # the SQLSTATE of a commit whose claim is no longer the newest

FUNCTIONS = """
CREATE FUNCTION timeline() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    number integer;
BEGIN
    BEGIN  -- of what is written now; the last checkpoint may be from before a failover
        number := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
    EXCEPTION WHEN OTHERS THEN
        SELECT timeline_id INTO number FROM pg_control_checkpoint();
    END;
    -- The table has another oid where a dump was restored, also into the same Postgres, and the
    -- database where a copy of it (CREATE DATABASE … TEMPLATE) has taken its place.
    RETURN (SELECT system_identifier FROM pg_control_system()) || '/' || number
        || '/' || 'meta'::regclass::oid
        || '/' || (SELECT oid FROM pg_database WHERE datname = current_database());
END $$;

CREATE FUNCTION check_claim(its_library text, its_job text, its_token bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
BEGIN
    SELECT token INTO newest FROM claims
        WHERE library = its_library AND job_id = its_job FOR SHARE;
    IF newest IS DISTINCT FROM its_token THEN
        RAISE EXCEPTION 'another worker has claimed job %', its_job USING ERRCODE = 'KB001';
    END IF;
END $$;

CREATE FUNCTION give_back(its_run text, usd float8) RETURNS void LANGUAGE sql AS $$
    UPDATE runs SET reserved_usd = greatest(reserved_usd - usd, 0) WHERE run_id = its_run;
$$;

-- `keeps_slot` and `created_nothing` are of the new state: the slot is kept or free, what was set
-- aside of a budget is kept or given back.
CREATE FUNCTION put_attempt(its_library text, its_run text, new jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before record;
BEGIN
    INSERT INTO attempts AS old (
        library, run_id, external_task_id, job_id, number, fingerprint, request, state, detail,
        task_id, failure_kind, file, bytes, polls, cost_usd, base_url, token_hash, account
    ) SELECT its_library, its_run, given.* FROM jsonb_to_record(new) AS given (
        external_task_id text, job_id text, number integer, fingerprint text, request text,
        state text, detail jsonb, task_id text, failure_kind text, file text, bytes bigint,
        polls integer, cost_usd float8, base_url text, token_hash text, account text
    )
    ON CONFLICT (library, external_task_id) DO UPDATE SET
        run_id = coalesce(excluded.run_id, old.run_id),
        state = excluded.state, detail = excluded.detail,
        -- A task that an older release recorded twice stays out of its second attempt's column.
        task_id = CASE WHEN old.task_id IS NULL AND old.detail->>'task_id' = excluded.task_id
            THEN NULL ELSE excluded.task_id END,
        failure_kind = excluded.failure_kind, file = excluded.file, bytes = excluded.bytes,
        polls = excluded.polls, token_hash = excluded.token_hash, job_id = excluded.job_id,
        number = excluded.number, cost_usd = excluded.cost_usd, request = excluded.request,
        base_url = excluded.base_url, account = excluded.account,
        slot_until = CASE WHEN (new->>'keeps_slot')::boolean THEN old.slot_until END;
    IF (new->>'created_nothing')::boolean THEN
        SELECT sent_in, reserved_usd INTO before FROM attempts
            WHERE library = its_library AND external_task_id = new->>'external_task_id';
        UPDATE attempts SET sent_in = NULL, reserved_usd = NULL
            WHERE library = its_library AND external_task_id = new->>'external_task_id'
            AND sent_in IS NOT NULL;
        IF before.reserved_usd IS NOT NULL THEN
            PERFORM give_back(before.sent_in, before.reserved_usd);
        END IF;
    END IF;
END $$;

CREATE FUNCTION withdraw(its_library text, name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before record;
BEGIN
    DELETE FROM attempts WHERE library = its_library AND external_task_id = name
        RETURNING sent_in, reserved_usd INTO before;
    IF FOUND AND before.reserved_usd IS NOT NULL THEN
        PERFORM give_back(before.sent_in, before.reserved_usd);
    END IF;
END $$;

-- A row that is there already was committed by the same call, whose answer was lost.
CREATE FUNCTION add_row(its_library text, its_line text, its_run text, its_job text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    its_digest bytea := sha256(convert_to(its_line, 'UTF8'));
    at libraries;
BEGIN
    -- Not FOR UPDATE: whoever has inserted into a table that refers to the library holds a share of
    -- its key, and two that both do would wait for each other.
    SELECT * INTO at FROM libraries WHERE library = its_library FOR NO KEY UPDATE;
    INSERT INTO results (library, seq, line, ends_at, digest, run_id, job_id) VALUES (
        its_library, at.results + 1, its_line, at.results_end + octet_length(its_line) + 1,
        its_digest, its_run, its_job
    ) ON CONFLICT (library, digest) DO NOTHING;
    IF FOUND THEN
        UPDATE libraries SET results = at.results + 1,
            results_end = at.results_end + octet_length(its_line) + 1 WHERE library = its_library;
    END IF;
END $$;

CREATE FUNCTION end_run(its_library text, its_run text, at float8, code integer, its_summary text)
RETURNS void LANGUAGE sql AS $$
    UPDATE runs SET finished_at = at, exit_code = code, summary = its_summary, is_open = false
        WHERE run_id = its_run;
    DELETE FROM generation_times WHERE seq IN (
        SELECT seq FROM (
            SELECT seq, row_number() OVER (PARTITION BY kind ORDER BY seq DESC) AS age
            FROM generation_times WHERE library = its_library
        ) AS times WHERE age > 400
    );
$$;

CREATE FUNCTION commit_one(its_library text, its_run text, kind text, new jsonb)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE kind
    WHEN 'Put' THEN
        PERFORM put_attempt(its_library, its_run, new);
    WHEN 'Withdraw' THEN
        PERFORM withdraw(its_library, new->>'external_task_id');
    WHEN 'AddRow' THEN
        PERFORM add_row(its_library, new->>'line', new->>'run_id', new->>'job_id');
    WHEN 'GenerationTime' THEN
        INSERT INTO generation_times (library, kind, seconds)
            VALUES (its_library, new->>'kind', (new->>'seconds')::float8);
    WHEN 'Proof' THEN
        INSERT INTO lookup_proofs
            VALUES (new->>'base_url', new->>'account', (new->>'proved_at')::float8)
            ON CONFLICT (base_url, account) DO UPDATE SET proved_at = excluded.proved_at;
    WHEN 'Fact' THEN
        INSERT INTO facts VALUES (its_library, new->>'name', new->>'value')
            ON CONFLICT (library, name) DO UPDATE SET value = excluded.value;
    WHEN 'Force' THEN
        INSERT INTO forced VALUES (
            its_library, new->>'fingerprint', (new->>'began_at')::float8, (new->>'videos')::integer
        ) ON CONFLICT (library, fingerprint) DO UPDATE
            SET began_at = excluded.began_at, videos = excluded.videos;
    WHEN 'BeginRun' THEN
        INSERT INTO runs (run_id, library, started_at, is_open)
            VALUES (new->>'run_id', its_library, (new->>'at')::float8, true)
            ON CONFLICT (run_id) DO NOTHING;
    WHEN 'EndRun' THEN
        PERFORM end_run(its_library, new->>'run_id', (new->>'at')::float8,
            (new->>'exit_code')::integer, new->>'summary');
    WHEN 'Uploaded' THEN
        INSERT INTO uploads SELECT its_library, given.* FROM jsonb_to_record(new) AS given (
            target text, file text, sha256 text, bytes bigint, uploaded_at float8,
            external_task_id text, e_tag text, version text
        ) ON CONFLICT (library, target, file) DO UPDATE SET
            sha256 = excluded.sha256, bytes = excluded.bytes, uploaded_at = excluded.uploaded_at,
            external_task_id = excluded.external_task_id, e_tag = excluded.e_tag,
            version = excluded.version;
    WHEN 'NotUploaded' THEN
        DELETE FROM uploads WHERE library = its_library
            AND target = new->>'target' AND file = new->>'file';
    END CASE;
END $$;

-- `changes` is a list of [kind, values]. A null token is that of the process that plans.
CREATE FUNCTION commit_changes(
    its_library text, its_run text, its_job text, its_token bigint, changes jsonb
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    change jsonb;
BEGIN
    IF its_token IS NOT NULL THEN
        PERFORM check_claim(its_library, its_job, its_token);
        -- The outcome of a job and its end are one: of a job that has its row nothing is done again.
        UPDATE jobs SET state = 'done' WHERE run_id = its_run AND job_id = its_job
            AND state = 'todo' AND EXISTS (
                SELECT 1 FROM jsonb_array_elements(changes) AS its (item)
                WHERE item->>0 = 'AddRow' AND (item->1->>'settles')::boolean
            );
    END IF;
    FOR change IN
        SELECT value FROM jsonb_array_elements(changes) WITH ORDINALITY
        ORDER BY value->>0 = 'AddRow', ordinality  -- the library is locked last
    LOOP
        PERFORM commit_one(its_library, its_run, change->>0, change->1);
    END LOOP;
END $$;
"""
