-- What verdict keeps: alerts that fired, and the hash-chained governance log of each run.
CREATE SCHEMA IF NOT EXISTS verdict;

CREATE TABLE verdict.alert (
    run text NOT NULL,
    rule text NOT NULL,
    instance text NOT NULL,
    observed bigint NOT NULL,
    threshold bigint NOT NULL,
    at_us bigint NOT NULL,
    PRIMARY KEY (run, rule, instance, at_us)
);

-- n is dense from 1; entry_hash = sha256(prev_hash, kind, at, entry); the first prev_hash is 64 zeros.
CREATE TABLE verdict.governance (
    run text NOT NULL,
    n integer NOT NULL CHECK (n > 0),
    event_id text NOT NULL,
    entry bytea NOT NULL,
    prev_hash text NOT NULL,
    entry_hash text NOT NULL,
    PRIMARY KEY (run, n),
    UNIQUE (run, event_id)
);

SELECT ops.truth('verdict.alert', 'fp_verdict');
SELECT ops.truth('verdict.governance', 'fp_verdict');
