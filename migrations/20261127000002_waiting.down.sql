-- Nothing is lost: the numbers follow from the invocations.
DROP TABLE invocations_waiting;
