-- Case management and label store. Everything is truth (insert-only) but the lane's progress and the label counters.
CREATE SCHEMA cm;
GRANT USAGE ON SCHEMA cm TO fp_cm_ls, fp_verdict, fp_operator;

CREATE TABLE cm.case_file (
    run text NOT NULL,
    case_id text NOT NULL,
    account_id text,
    opened_us bigint NOT NULL,
    PRIMARY KEY (run, case_id)
);

CREATE TABLE cm.trigger (
    run text NOT NULL,
    trigger_id text NOT NULL,
    case_id text NOT NULL,
    source text NOT NULL,
    part integer NOT NULL,
    seq bigint NOT NULL,
    decision_id text,
    source_event_id text NOT NULL,
    intents integer NOT NULL,
    amount_minor bigint NOT NULL,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (run, trigger_id)
);
CREATE INDEX trigger_decision ON cm.trigger (run, decision_id);
CREATE INDEX trigger_event ON cm.trigger (run, source_event_id);

-- A case is the fold of its timeline: n is dense from 1 per case; what happened once (kind, ref) stands once.
CREATE TABLE cm.timeline (
    run text NOT NULL,
    case_id text NOT NULL,
    n integer NOT NULL CHECK (n > 0),
    kind text NOT NULL,
    ref text NOT NULL,
    event_us bigint NOT NULL,
    detail jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, case_id, n),
    UNIQUE (run, case_id, kind, ref)
);

CREATE TABLE cm.outcome (
    run text NOT NULL,
    action_id text NOT NULL,
    decision_id text NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    event_us bigint NOT NULL,
    PRIMARY KEY (run, action_id)
);
CREATE INDEX outcome_decision ON cm.outcome (run, decision_id);

-- First class of every line of the adjudication lane.
CREATE TABLE cm.label_line (
    run text NOT NULL,
    lane_seq bigint NOT NULL CHECK (lane_seq > 0),
    class text NOT NULL CHECK (class IN ('ACCEPTED', 'DUPLICATE', 'REJECTED')),
    detail text NOT NULL,
    principal text NOT NULL,
    sha256 bytea NOT NULL,
    PRIMARY KEY (run, lane_seq)
);

CREATE TABLE cm.assertion (
    run text NOT NULL,
    assertion_id text NOT NULL,
    event_id text NOT NULL,
    merchant_id text NOT NULL,
    account_id text,
    label_type text NOT NULL,
    label_value text NOT NULL,
    effective_us bigint NOT NULL,
    observed_us bigint NOT NULL,
    order_us bigint NOT NULL,
    source text NOT NULL,
    actor text NOT NULL,
    part integer NOT NULL,
    seq bigint NOT NULL,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (run, assertion_id),
    UNIQUE (run, part, seq)
);
CREATE INDEX assertion_event ON cm.assertion (run, event_id);

CREATE TABLE cm.label_lane (
    run text PRIMARY KEY,
    last_lane_seq bigint NOT NULL,
    frontier_us bigint NOT NULL,
    seqs bigint[] NOT NULL,
    floors_us bigint[] NOT NULL
);

SELECT ops.truth('cm.case_file', 'fp_cm_ls');
SELECT ops.truth('cm.trigger', 'fp_cm_ls');
SELECT ops.truth('cm.timeline', 'fp_cm_ls');
SELECT ops.truth('cm.outcome', 'fp_cm_ls');
SELECT ops.truth('cm.label_line', 'fp_cm_ls');
SELECT ops.truth('cm.assertion', 'fp_cm_ls');
SELECT ops.mutable('cm.label_lane', 'fp_cm_ls');
