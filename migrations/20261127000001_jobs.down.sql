-- What waits is lost, and so are the results.
DROP TABLE cron_fires;
DROP TABLE invocations;
