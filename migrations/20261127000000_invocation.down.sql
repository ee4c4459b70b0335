-- Every function goes on with its current version; what only this version knows is lost.
ALTER TABLE capsules DROP COLUMN traffic_token;
ALTER TABLE capsules DROP COLUMN traffic;
DROP TABLE domains;
DROP TABLE function_tags;
DROP TABLE function_versions;
ALTER TABLE functions DROP COLUMN version_max;
ALTER TABLE functions DROP COLUMN signing_secret;
ALTER TABLE functions DROP COLUMN invocation_policy;
