-- Plain SQL that SQLite and PostgreSQL both take: TEXT and BIGINT, times as milliseconds of Unix
-- time, booleans as 0 and 1. Ids are written with their prefix.

CREATE TABLE teams (
    id            TEXT   NOT NULL PRIMARY KEY,
    name          TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL
);

-- The key itself is never stored: only its BLAKE3 hash, in hex.
CREATE TABLE api_keys (
    hash          TEXT   NOT NULL PRIMARY KEY,
    team_id       TEXT   NOT NULL REFERENCES teams (id),
    created_at_ms BIGINT NOT NULL
);

-- Where agents were last seen.
CREATE TABLE hosts (
    id         TEXT   NOT NULL PRIMARY KEY,
    rpc_url    TEXT   NOT NULL,
    version    TEXT   NOT NULL,
    vmm        TEXT   NOT NULL,
    seen_at_ms BIGINT NOT NULL
);

-- A snapshot of kind `function` that no function points to is to be deleted.
CREATE TABLE snapshots (
    id            TEXT   NOT NULL PRIMARY KEY,
    team_id       TEXT   NOT NULL REFERENCES teams (id),
    kind          TEXT   NOT NULL CHECK (kind IN ('user', 'function', 'internal')),
    name          TEXT,
    sandbox_id    TEXT,
    template_id   TEXT   NOT NULL,
    memory_bytes  BIGINT NOT NULL,
    stored_bytes  BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL
);
CREATE INDEX snapshots_by_team ON snapshots (team_id, created_at_ms);

-- A name becomes a host name, so it is unique over all teams.
CREATE TABLE functions (
    id            TEXT   NOT NULL PRIMARY KEY,
    team_id       TEXT   NOT NULL REFERENCES teams (id),
    name          TEXT   NOT NULL UNIQUE,
    version       BIGINT NOT NULL,
    template_id   TEXT   NOT NULL,
    snapshot_id   TEXT   NOT NULL REFERENCES snapshots (id),
    port          BIGINT NOT NULL,
    start_command TEXT   NOT NULL,
    ready_path    TEXT   NOT NULL,
    timeout_ms    BIGINT NOT NULL,
    internet      BIGINT NOT NULL,
    min_warm      BIGINT NOT NULL,
    max_warm      BIGINT NOT NULL,
    idle_ttl_ms   BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);
CREATE INDEX functions_by_team ON functions (team_id, created_at_ms);
CREATE INDEX functions_by_snapshot ON functions (snapshot_id);

-- What of a capsule only the edge knows; its state is asked from its agent.
CREATE TABLE capsules (
    id            TEXT   NOT NULL PRIMARY KEY,
    team_id       TEXT   NOT NULL REFERENCES teams (id),
    metadata      TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL
);
CREATE INDEX capsules_by_team ON capsules (team_id, created_at_ms);

-- Work under way at an agent. A row found at the edge's start is a crash to clean up after.
CREATE TABLE operations (
    id            TEXT   NOT NULL PRIMARY KEY,
    team_id       TEXT   NOT NULL REFERENCES teams (id),
    kind          TEXT   NOT NULL CHECK (kind IN ('deploy', 'snapshot')),
    -- A deploy's function: one deploy of a name at a time.
    function_name TEXT   UNIQUE,
    -- A deploy's build sandbox (destroyed on clean-up), or what is being snapshotted (kept).
    sandbox_id    TEXT   NOT NULL,
    step          TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL
);
