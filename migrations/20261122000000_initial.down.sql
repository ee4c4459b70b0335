DROP TABLE operations;
DROP TABLE capsules;
DROP TABLE functions;
DROP TABLE snapshots;
DROP TABLE hosts;
DROP TABLE api_keys;
DROP TABLE teams;
