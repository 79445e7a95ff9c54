-- Fencing, progress, outbox and quarantine: shared by every stage. Sequences and offsets are exclusive-next.

-- Who owns a scope ("run|stage|partition"); truth writes are conditional on the epoch.
CREATE TABLE ops.owner (
    scope text PRIMARY KEY,
    epoch bigint NOT NULL CHECK (epoch > 0),
    owner text NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE ops.lease (
    name text PRIMARY KEY,
    holder text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- n = merged position, the compare-and-set value; doc = what the stage needs to go on from there.
CREATE TABLE ops.progress (
    run text NOT NULL,
    stage text NOT NULL,
    part integer NOT NULL,
    n bigint NOT NULL CHECK (n >= 0),
    doc bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, stage, part)
);

-- Records with their exact bytes, written in the transaction of their effects; seq is dense per key prefix, from 1.
CREATE TABLE ops.outbox (
    run text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    seq bigint NOT NULL CHECK (seq > 0),
    key bytea NOT NULL,
    header bytea NOT NULL,
    traceparent bytea,
    body bytea NOT NULL,
    PRIMARY KEY (run, source, topic, part, seq)
);

-- Publish facts as ranges: seq first_seq + i lies at offset first_offset + i, for 0 <= i < n.
CREATE TABLE ops.outbox_fact (
    run text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    first_seq bigint NOT NULL CHECK (first_seq > 0),
    first_offset bigint NOT NULL CHECK (first_offset >= 0),
    n bigint NOT NULL CHECK (n > 0),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, source, topic, part, first_seq, first_offset)
);

-- Inputs that can never succeed. body is null where the bytes must not be kept; their hash always stays.
CREATE TABLE ops.quarantine (
    run text NOT NULL,
    stage text NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    kafka_offset bigint NOT NULL,
    reason text NOT NULL,
    body bytea,
    body_sha256 bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, stage, topic, part, kafka_offset)
);

-- What a stage consumed: [first_offset, next_offset) with counts by kind; spans of a closed run tile.
CREATE TABLE ops.span (
    run text NOT NULL,
    stage text NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    first_offset bigint NOT NULL CHECK (first_offset >= 0),
    next_offset bigint NOT NULL,
    counts jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, stage, topic, part, first_offset),
    CHECK (next_offset > first_offset)
);

DO $$
DECLARE
    services text[] := ARRAY[
        'fp_sr', 'fp_wsp', 'fp_ig', 'fp_rtdl', 'fp_df', 'fp_cm_ls', 'fp_verdict', 'fp_ofs_trigger'];
BEGIN
    PERFORM ops.mutable('ops.owner', VARIADIC services);
    PERFORM ops.mutable('ops.lease', VARIADIC services);
    PERFORM ops.mutable('ops.progress', VARIADIC services);
    PERFORM ops.truth('ops.outbox', VARIADIC services);
    PERFORM ops.truth('ops.outbox_fact', VARIADIC services);
    PERFORM ops.truth('ops.quarantine', VARIADIC services);
    PERFORM ops.truth('ops.span', VARIADIC services);
END $$;
