-- The ingest gateway's truth. Rows are narrow: `run_no` stands for the run (ig.run), `principal` for its name; a lane is
-- the ingress partition of the same number, and `topic` is the place in the contracts' INGRESS tuple.
CREATE SCHEMA ig;

CREATE TABLE ig.run (
    run_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run text NOT NULL UNIQUE
);

CREATE TABLE ig.principal (
    no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

-- The first class of every line: (A)DMITTED, (D)UPLICATE, (Q)UARANTINED. An admitted row is the claim and the receipt:
-- its identity (sha256 over run, class and event id) is unique for ever.
CREATE TABLE ig.line (
    lane_seq bigint NOT NULL CHECK (lane_seq > 0),
    seq bigint,
    order_us bigint,
    frontier_us bigint,
    run_no integer NOT NULL,
    principal integer NOT NULL,
    lane smallint NOT NULL,
    kind smallint NOT NULL,
    class "char" NOT NULL CHECK (class IN ('A', 'D', 'Q')),
    identity bytea,
    payload_hash bytea NOT NULL,
    reason text,
    PRIMARY KEY (run_no, lane, lane_seq),
    CHECK ((class = 'A') = (seq IS NOT NULL))
);
CREATE UNIQUE INDEX line_identity ON ig.line (identity) WHERE class = 'A';

-- The exact bytes of the admitted lines of one batch, in lane order: lz4 block of the lines joined by newlines.
CREATE TABLE ig.journal (
    run_no integer NOT NULL,
    lane smallint NOT NULL,
    first_lane_seq bigint NOT NULL,
    last_lane_seq bigint NOT NULL,
    n integer NOT NULL CHECK (n > 0),
    body bytea NOT NULL,
    PRIMARY KEY (run_no, lane, first_lane_seq)
);
ALTER TABLE ig.journal ALTER COLUMN body SET STORAGE EXTERNAL;

-- Lines set aside. body is null where the bytes must not be kept (a card number) or are too long.
CREATE TABLE ig.quarantined (
    run_no integer NOT NULL,
    lane smallint NOT NULL,
    lane_seq bigint NOT NULL,
    reason text NOT NULL,
    sha256 bytea NOT NULL,
    body bytea,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_no, lane, lane_seq)
);

-- Where claims were published: seq first_seq + i lies at first_offset + i. how: (P)ublished, (O)bserved by the resolver,
-- published again after an unknown: (R)epublished.
CREATE TABLE ig.fact (
    run_no integer NOT NULL,
    lane smallint NOT NULL,
    topic smallint NOT NULL,
    first_seq bigint NOT NULL,
    first_offset bigint NOT NULL,
    n bigint NOT NULL CHECK (n > 0),
    how "char" NOT NULL CHECK (how IN ('P', 'O', 'R')),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_no, lane, topic, first_seq)
);

-- Sequences whose publish was in doubt, written before the resolver acts: only beside these may extra copies lie.
CREATE TABLE ig.unknown (
    run_no integer NOT NULL,
    lane smallint NOT NULL,
    topic smallint NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_no, lane, topic, seq)
);

-- Where a lane stands; changed by compare-and-set on last_lane_seq under the writer's owner epoch.
CREATE TABLE ig.lane (
    run_no integer NOT NULL,
    lane smallint NOT NULL,
    writer text NOT NULL,
    last_lane_seq bigint NOT NULL,
    floor_us bigint NOT NULL,
    last_seqs bigint[] NOT NULL,
    PRIMARY KEY (run_no, lane)
) WITH (fillfactor = 50);

SELECT ops.truth('ig.run', 'fp_ig');
SELECT ops.truth('ig.principal', 'fp_ig');
SELECT ops.truth('ig.line', 'fp_ig');
SELECT ops.truth('ig.journal', 'fp_ig');
SELECT ops.truth('ig.quarantined', 'fp_ig');
SELECT ops.truth('ig.fact', 'fp_ig');
SELECT ops.truth('ig.unknown', 'fp_ig');
SELECT ops.mutable('ig.lane', 'fp_ig');

-- Receipts as people and auditors read them.
CREATE VIEW ig.receipt AS
    SELECT r.run, l.lane, l.lane_seq,
           CASE l.class WHEN 'A' THEN 'ADMITTED' WHEN 'D' THEN 'DUPLICATE' ELSE 'QUARANTINED' END AS class,
           l.reason, p.name AS principal, substr(encode(l.identity, 'hex'), 1, 32) AS receipt_id, l.identity,
           l.payload_hash, l.kind, l.seq, l.order_us, l.frontier_us
    FROM ig.line l JOIN ig.run r USING (run_no) JOIN ig.principal p ON p.no = l.principal;
GRANT SELECT ON ig.receipt TO fp_ig, fp_verdict, fp_operator;
