-- Progress of the stream: what every lane had classed, and the counts that go with it. One row per lane.
CREATE SCHEMA wsp;
GRANT USAGE ON SCHEMA wsp TO fp_wsp, fp_verdict, fp_operator;

CREATE TABLE wsp.lane (
    run text NOT NULL,
    win integer NOT NULL,
    lane integer NOT NULL,
    acked_seq bigint NOT NULL,
    frontier_us bigint NOT NULL,
    counts jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, win, lane)
);
SELECT ops.mutable('wsp.lane', 'fp_wsp');
