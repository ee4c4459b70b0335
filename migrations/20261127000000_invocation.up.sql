-- Versions beside the current one, tags, invocation policies, custom domains, private ports.
--
-- This only expands: an older version reads and writes `functions` and `capsules` as before. What
-- it writes of a current version stands in `functions`, which wins over `function_versions`.

-- JSON of the type `InvocationPolicy` of pool/model; NULL is its default.
ALTER TABLE functions ADD COLUMN invocation_policy TEXT;
-- What URLs and webhooks are signed with. NULL until something is.
ALTER TABLE functions ADD COLUMN signing_secret TEXT;
-- The highest version ever made, current or not; NULL is `version`. No number is used twice.
ALTER TABLE functions ADD COLUMN version_max BIGINT;

-- The versions that can be reached: the current one and those with a tag. The current one's pool has
-- the function's id, every other one a pool of its own.
CREATE TABLE function_versions (
    function_id   TEXT   NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    version       BIGINT NOT NULL,
    pool_id       TEXT   NOT NULL UNIQUE,
    template_id   TEXT   NOT NULL,
    snapshot_id   TEXT   NOT NULL REFERENCES snapshots (id),
    port          BIGINT NOT NULL,
    start_command TEXT   NOT NULL,
    ready_path    TEXT   NOT NULL,
    timeout_ms    BIGINT NOT NULL,
    internet      BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (function_id, version)
);
CREATE INDEX function_versions_by_snapshot ON function_versions (snapshot_id);

INSERT INTO function_versions (function_id, version, pool_id, template_id, snapshot_id, port,
    start_command, ready_path, timeout_ms, internet, created_at_ms)
SELECT id, version, id, template_id, snapshot_id, port,
    start_command, ready_path, timeout_ms, internet, updated_at_ms
FROM functions;

CREATE TABLE function_tags (
    function_id TEXT   NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    tag         TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    -- Its share of the requests to the plain name; 0 is none.
    weight      BIGINT NOT NULL,
    PRIMARY KEY (function_id, tag)
);

-- Every team may claim any name; one that has proved it owns the name has it alone.
CREATE TABLE domains (
    name           TEXT   NOT NULL,
    function_id    TEXT   NOT NULL REFERENCES functions (id) ON DELETE CASCADE,
    team_id        TEXT   NOT NULL REFERENCES teams (id),
    -- What the TXT record has to say.
    challenge      TEXT   NOT NULL,
    verified_at_ms BIGINT,
    created_at_ms  BIGINT NOT NULL,
    PRIMARY KEY (name, team_id)
);
CREATE INDEX domains_by_function ON domains (function_id, created_at_ms);
CREATE UNIQUE INDEX domains_verified ON domains (name) WHERE verified_at_ms IS NOT NULL;

-- JSON of the type `TrafficPolicy` of pool/model; NULL is its default: every port is public.
ALTER TABLE capsules ADD COLUMN traffic TEXT;
-- What opens private ports. NULL until one is.
ALTER TABLE capsules ADD COLUMN traffic_token TEXT;
