-- The version of the canonical keys: a changed rule set changes them. Databases before this script had these.
ALTER TABLE search ADD COLUMN keys TEXT NOT NULL DEFAULT '9d32e3c7';

-- A run ends after so many candidates, also where its budget is not spent.
ALTER TABLE runs ADD COLUMN most_proposed BIGINT NOT NULL DEFAULT 0;
UPDATE runs SET most_proposed = budget * 100;

-- 1 where the candidate has an evaluation, 0 where a look at its structure rejected it.
ALTER TABLE candidates ADD COLUMN judged BIGINT NOT NULL DEFAULT 1;
UPDATE candidates SET judged = 0 WHERE reason = 'structure' AND origin <> 'fixed';

-- How often judging it ended in an error, and the last one.
ALTER TABLE evaluations ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE evaluations ADD COLUMN error TEXT;

-- Candidates come with their verdicts, if these are known, and workers know what a run has met. So an index
-- is needed only of those that wait.
DROP INDEX candidates_by_key;
DROP INDEX candidates_of_run_by_key;
CREATE INDEX candidates_waiting ON candidates (key, protocol) WHERE state = 'waiting';
