-- The learning corridor: what jobs were asked for and how they ended, and the bundle registry. Insert-only truth.
CREATE SCHEMA IF NOT EXISTS learning;

-- One job per attempt of a phase; the request's bytes are those of the object its event names.
CREATE TABLE learning.job (
    run text NOT NULL,
    phase text NOT NULL,
    attempt integer NOT NULL,
    request_id text NOT NULL,
    request bytea NOT NULL,
    event bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, phase, attempt),
    UNIQUE (run, request_id)
);

-- The first end of a job that was read back from its topic, with its place there.
CREATE TABLE learning.job_end (
    run text NOT NULL,
    request_id text NOT NULL,
    event bytea NOT NULL,
    topic text NOT NULL,
    part integer NOT NULL,
    kafka_offset bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, request_id)
);

-- Registry events in the order of their slot: n is dense from 1, so of two writers at once one comes first and the other
-- looks again. A revision is given once per scope.
CREATE TABLE learning.registry_event (
    slot text NOT NULL,
    n bigint NOT NULL CHECK (n > 0),
    event_id text NOT NULL UNIQUE,
    environment text NOT NULL,
    mode text NOT NULL,
    tenant text NOT NULL,
    revision integer,
    body bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (slot, n),
    UNIQUE (environment, mode, slot, tenant, revision)
);

-- Where a registry event was acknowledged.
CREATE TABLE learning.registry_fact (
    event_id text PRIMARY KEY REFERENCES learning.registry_event (event_id),
    part integer NOT NULL,
    kafka_offset bigint NOT NULL
);

-- Measured moments of a corridor's drills: the first time each was seen.
CREATE TABLE learning.mark (
    run text NOT NULL,
    name text NOT NULL,
    at_us bigint NOT NULL,
    PRIMARY KEY (run, name)
);

SELECT ops.truth('learning.job', 'fp_ofs_trigger');
SELECT ops.truth('learning.job_end', 'fp_ofs_trigger');
SELECT ops.truth('learning.registry_event', 'fp_ofs_trigger');
SELECT ops.truth('learning.registry_fact', 'fp_ofs_trigger');
SELECT ops.truth('learning.mark', 'fp_ofs_trigger');

-- The replay basis is what the archive recorded.
GRANT USAGE ON SCHEMA rtdl TO fp_ofs_trigger;
GRANT SELECT ON rtdl.archive_object TO fp_ofs_trigger;
