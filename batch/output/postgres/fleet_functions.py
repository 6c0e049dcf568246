"""What Postgres does for a fleet in one round trip."""

from __future__ import annotations

FLEET_FUNCTIONS = """
-- The token is drawn under the lock of the row, and grows over all runs of the library.
CREATE FUNCTION claim_job(
    its_run text, its_job text, its_worker text, OUT its_library text, OUT its_order integer,
    OUT its_work text, OUT its_looks integer, OUT its_token bigint, OUT its_takeovers integer
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT library INTO its_library FROM runs WHERE run_id = its_run AND is_open;
    IF NOT FOUND OR NOT EXISTS (
        SELECT 1 FROM jobs WHERE run_id = its_run AND job_id = its_job AND state = 'todo'
    ) THEN
        RETURN;
    END IF;
    INSERT INTO claims AS old (library, job_id, token, run_id, worker)
        VALUES (its_library, its_job, nextval('tokens'), its_run, its_worker)
        ON CONFLICT (library, job_id) DO UPDATE SET
            token = nextval('tokens'), run_id = excluded.run_id, worker = excluded.worker,
            takeovers = CASE WHEN old.run_id = excluded.run_id THEN old.takeovers ELSE 0 END
        RETURNING token, takeovers INTO its_token, its_takeovers;
    -- A worker that was buried, and has woken up, can die before its next beat.
    INSERT INTO workers (worker, beat_at)
        VALUES (its_worker, extract(epoch FROM clock_timestamp())) ON CONFLICT DO NOTHING;
    -- Whoever had the job may have settled it before it lost the claim.
    SELECT ord, work, looks INTO its_order, its_work, its_looks FROM jobs
        WHERE run_id = its_run AND job_id = its_job AND state = 'todo';
END $$;

CREATE FUNCTION settle_job(
    its_library text, its_run text, its_job text, its_token bigint, its_state text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_claim(its_library, its_job, its_token);
    UPDATE jobs SET state = its_state WHERE run_id = its_run AND job_id = its_job;
END $$;

CREATE FUNCTION name_attempt(
    its_library text, its_run text, its_job text, its_token bigint, its_name text
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM check_claim(its_library, its_job, its_token);
    INSERT INTO names VALUES (its_run, its_name, its_job) ON CONFLICT DO NOTHING;
    RETURN (
        SELECT job_id = its_job FROM names WHERE run_id = its_run AND external_task_id = its_name
    );
END $$;

-- As `batch.run.stop` ranks them: what refuses job by job, what submits nothing more, what leaves.
CREATE FUNCTION severity(reason text) RETURNS integer IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE
        WHEN reason IS NULL THEN 0
        WHEN reason IN ('budget', 'saved_plan') THEN 1
        WHEN reason IN ('deadline', 'state', 'interrupted', 'terminated') THEN 3
        ELSE 2
    END
$$;

-- An account that is refused stops all its runs.
CREATE FUNCTION stop_run(its_run text, reason text, sentence text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    its runs;
BEGIN
    SELECT * INTO its FROM runs WHERE run_id = its_run AND is_open;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF reason = 'account' THEN
        UPDATE accounts SET refused = sentence
            WHERE base_url = its.base_url AND account = its.account;
    END IF;
    UPDATE runs SET stop_reason = reason, stop_sentence = sentence
        WHERE is_open AND severity(stop_reason) < severity(reason) AND (
            run_id = its_run
            OR reason = 'account' AND base_url = its.base_url AND account = its.account
        );
END $$;

CREATE FUNCTION end_late(its_runs text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE runs SET stop_reason = 'deadline', stop_sentence = 'the deadline is reached'
        WHERE run_id = ANY (its_runs) AND is_open
        AND deadline_at <= extract(epoch FROM clock_timestamp())
        AND severity(stop_reason) < severity('deadline');
$$;

-- The workers that count are those that have the run's key. A run is held while something is to be done
-- in it, and one that is left while a worker that lives has such a job. (What was too late, only a worker
-- can tell.)
CREATE FUNCTION progress_of(
    its_run text, dead_after_s float8, OUT able bigint, OUT held boolean, OUT reason text,
    OUT sentence text, OUT code integer
) LANGUAGE plpgsql AS $$
DECLARE
    its runs;
    alive text[];
BEGIN
    PERFORM end_late(ARRAY[its_run]);
    SELECT * INTO its FROM runs WHERE run_id = its_run;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(worker), '{}'), count(*) FILTER (WHERE accounts @> jsonb_build_array(
            jsonb_build_object('base_url', its.base_url, 'account', its.account)))
        INTO alive, able FROM workers
        WHERE beat_at >= extract(epoch FROM clock_timestamp()) - dead_after_s;
    IF severity(its.stop_reason) >= severity('deadline') THEN
        held := EXISTS (
            SELECT 1 FROM jobs JOIN claims USING (run_id, job_id)
            WHERE run_id = its_run AND state = 'todo' AND library = its.library
            AND worker = ANY (alive)
        );
    ELSE
        held := EXISTS (SELECT 1 FROM jobs WHERE run_id = its_run AND state = 'todo');
        held := held OR EXISTS (
            SELECT 1 FROM jobs WHERE run_id = its_run
            AND (state = 'parked' OR state = 'left' AND its.stop_reason IS NULL)
        );
    END IF;
    reason := its.stop_reason; sentence := its.stop_sentence; code := its.exit_code;
END $$;

CREATE FUNCTION beat(
    its_worker text, its_host text, its_pid integer, its_version text, its_accounts jsonb,
    dead_after_s float8, OUT at float8, OUT stops jsonb, OUT dead text[], OUT settled text[]
) LANGUAGE plpgsql AS $$
DECLARE
    mine text[];
BEGIN
    at := extract(epoch FROM clock_timestamp());
    INSERT INTO workers VALUES (its_worker, at, its_host, its_pid, its_version, its_accounts)
        ON CONFLICT (worker) DO UPDATE SET beat_at = at, accounts = its_accounts;
    SELECT coalesce(array_agg(run_id), '{}') INTO mine
        FROM runs JOIN jsonb_to_recordset(its_accounts) AS its (base_url text, account text)
        USING (base_url, account) WHERE is_open AND terms IS NOT NULL;
    PERFORM end_late(mine);
    SELECT coalesce(jsonb_object_agg(run_id, jsonb_build_array(stop_reason, stop_sentence)), '{}')
        INTO stops FROM runs WHERE run_id = ANY (mine) AND stop_reason IS NOT NULL;
    SELECT coalesce(array_agg(run_id ORDER BY run_id), '{}') INTO settled FROM runs
        WHERE run_id = ANY (mine) AND NOT EXISTS (
            SELECT 1 FROM jobs WHERE jobs.run_id = runs.run_id AND jobs.state = 'todo'
        );
    SELECT coalesce(array_agg(worker ORDER BY worker), '{}') INTO dead FROM workers
        WHERE worker <> its_worker AND beat_at < at - dead_after_s;
END $$;

-- A slot that has become free is told to the doorkeepers, where one waits for it.
CREATE FUNCTION tell_free_slot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM accounts WHERE base_url = OLD.base_url AND account = OLD.account
        AND waited_until > extract(epoch FROM clock_timestamp())
    ) THEN
        PERFORM pg_notify('kling_slots', OLD.account);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER slot_is_free AFTER UPDATE ON attempts FOR EACH ROW
    WHEN (OLD.slot_until IS NOT NULL AND NEW.slot_until IS NULL)
    EXECUTE FUNCTION tell_free_slot();
CREATE TRIGGER slot_is_gone AFTER DELETE ON attempts FOR EACH ROW
    WHEN (OLD.slot_until IS NOT NULL) EXECUTE FUNCTION tell_free_slot();
"""
