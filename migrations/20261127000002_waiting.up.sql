-- How many invocations of a function wait, so that taking one does not count those before it.
--
-- This only expands. Whoever changes whether an invocation waits changes its function's number in
-- the same transaction; an edge from before this does not, which the sweeper sets right.

CREATE TABLE invocations_waiting (
    function_id TEXT   NOT NULL PRIMARY KEY,
    waiting     BIGINT NOT NULL
);
INSERT INTO invocations_waiting (function_id, waiting)
    SELECT function_id, COUNT(*) FROM invocations WHERE state = 'queued' GROUP BY function_id;
