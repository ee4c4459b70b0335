-- The old columns were written all along: what they can say stays.
ALTER TABLE functions DROP COLUMN pool_policy;
