-- An identity hashes its run, so it is unique for ever when it is unique within the run. With the run in front, what a
-- run claims lies together in the index: a claim touches the pages of its own run, however many runs there were before.
DROP INDEX ig.line_identity;
CREATE UNIQUE INDEX line_identity ON ig.line (run_no, identity) WHERE class = 'A';
