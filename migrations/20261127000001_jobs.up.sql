-- Invocations that nobody waits for, and when the clock last made one.
--
-- This only expands. Bodies are base64 in TEXT: SQLite and PostgreSQL have no type for bytes that
-- both call the same. No row refers to its function: what was asked of a deleted one can still be
-- looked up until it expires.

CREATE TABLE invocations (
    -- Begins with the time, so ids sort by age.
    id                 TEXT   NOT NULL PRIMARY KEY,
    team_id            TEXT   NOT NULL REFERENCES teams (id),
    function_id        TEXT   NOT NULL,
    function_name      TEXT   NOT NULL,
    -- The tag that the request named.
    tag                TEXT,
    source             TEXT   NOT NULL CHECK (source IN ('async', 'cron')),
    state              TEXT   NOT NULL
        CHECK (state IN ('queued', 'running', 'succeeded', 'dead', 'cancelled')),

    -- The request; headers are JSON, [[name, value in base64], ...].
    method             TEXT   NOT NULL,
    path               TEXT   NOT NULL,
    headers            TEXT   NOT NULL,
    body               TEXT   NOT NULL,

    -- What the function's policy said when it was submitted.
    attempts_max       BIGINT NOT NULL,
    backoff_ms         BIGINT NOT NULL,
    result_ttl_ms      BIGINT NOT NULL,
    webhook            TEXT,

    attempts           BIGINT NOT NULL,
    -- Counts every claim and never goes back: who has an old number has lost the row to another.
    claims             BIGINT NOT NULL,
    next_attempt_at_ms BIGINT NOT NULL,
    lease_until_ms     BIGINT,

    -- The answer of the last attempt that had one.
    status             BIGINT,
    response_headers   TEXT,
    response_body      TEXT,
    truncated          BIGINT NOT NULL,
    error              TEXT,

    -- NULL: nothing to post (yet).
    webhook_state      TEXT CHECK (webhook_state IN ('due', 'delivered', 'failed')),
    webhook_attempts   BIGINT NOT NULL,
    webhook_next_at_ms BIGINT,
    webhook_error      TEXT,

    created_at_ms      BIGINT NOT NULL,
    started_at_ms      BIGINT,
    finished_at_ms     BIGINT,
    updated_at_ms      BIGINT NOT NULL,
    -- NULL until it is finished.
    expires_at_ms      BIGINT
);
CREATE INDEX invocations_due ON invocations (state, next_attempt_at_ms, id);
CREATE INDEX invocations_leased ON invocations (lease_until_ms) WHERE state = 'running';
CREATE INDEX invocations_by_function ON invocations (function_id, state, id);
CREATE INDEX invocations_expiring ON invocations (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX invocations_posting ON invocations (webhook_next_at_ms) WHERE webhook_state = 'due';

CREATE TABLE cron_fires (
    function_id   TEXT   NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    name          TEXT   NOT NULL,
    -- The schedule and time zone that the times below are of.
    schedule      TEXT   NOT NULL,
    -- When the clock first saw it: nothing before that was missed.
    since_ms      BIGINT NOT NULL,
    last_fired_ms BIGINT,
    PRIMARY KEY (function_id, name)
);
