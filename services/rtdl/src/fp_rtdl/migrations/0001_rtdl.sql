-- rtdl's checkpoints (progress, spans and quarantine are in ops), drills, and the archive's ranges.
CREATE SCHEMA IF NOT EXISTS rtdl;

-- Packed MerchantState as of the checkpoint of its partition.
CREATE TABLE rtdl.merchant (
    run text NOT NULL,
    part integer NOT NULL,
    merchant_id text NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (run, part, merchant_id)
);
SELECT ops.mutable('rtdl.merchant', 'fp_rtdl');

-- Parts kept for the join, as chunks of what came between two checkpoints; a chunk goes when its newest entry expired.
CREATE TABLE rtdl.context (
    run text NOT NULL,
    part integer NOT NULL,
    newest_us bigint NOT NULL,
    n bigint NOT NULL,
    entries bytea NOT NULL,
    PRIMARY KEY (run, part, n)
);
SELECT ops.mutable('rtdl.context', 'fp_rtdl');
GRANT DELETE ON rtdl.context TO fp_rtdl;

-- A second, different binding of a flow: never a silent rebind. Offsets on the anchor topic.
CREATE TABLE rtdl.rebind (
    run text NOT NULL,
    part integer NOT NULL,
    kafka_offset bigint NOT NULL,
    flow_id text NOT NULL,
    standing_offset bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, part, kafka_offset)
);
SELECT ops.truth('rtdl.rebind', 'fp_rtdl');

-- A drill of one instance: armed, killed, restarted, recovered. Times in microseconds.
CREATE TABLE rtdl.drill (
    run text NOT NULL,
    drill_id text NOT NULL,
    instance text NOT NULL,
    armed_us bigint NOT NULL,
    killed_us bigint,
    restarted_us bigint,
    recovered_us bigint,
    lag_at_restart bigint,
    PRIMARY KEY (run, drill_id)
);
SELECT ops.mutable('rtdl.drill', 'fp_rtdl');

-- The archive claims a range before it writes the object of it, so that a restart writes the same one.
CREATE TABLE rtdl.archive_claim (
    run text NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    first_offset bigint NOT NULL CHECK (first_offset >= 0),
    next_offset bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, topic, part, first_offset),
    CHECK (next_offset > first_offset)
);
SELECT ops.truth('rtdl.archive_claim', 'fp_rtdl');

-- content_digest = over keys, headers, values and traceparents in offset order: what the object says, not how it is packed.
CREATE TABLE rtdl.archive_object (
    run text NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    first_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    key text NOT NULL,
    sha256 text NOT NULL,
    size bigint NOT NULL,
    records bigint NOT NULL,
    content_digest text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, topic, part, first_offset),
    FOREIGN KEY (run, topic, part, first_offset) REFERENCES rtdl.archive_claim
);
SELECT ops.truth('rtdl.archive_object', 'fp_rtdl');
