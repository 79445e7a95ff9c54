-- Decision fabric. Truth: decisions, audit links, outcomes (exact record bytes are in ops.outbox, same transaction).
CREATE SCHEMA df;
GRANT USAGE ON SCHEMA df TO fp_df, fp_cm_ls, fp_verdict, fp_operator;

CREATE TABLE df.decision (
    run text NOT NULL,
    decision_id text NOT NULL,
    part integer NOT NULL,
    n bigint NOT NULL,
    seq bigint NOT NULL,
    event_id text NOT NULL,
    flow_id text NOT NULL,
    account_id text,
    action text NOT NULL,
    posture text NOT NULL,
    policy_rev text NOT NULL,
    intents integer NOT NULL,
    escalated boolean NOT NULL,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (run, decision_id)
);
CREATE UNIQUE INDEX decision_event ON df.decision (run, event_id);

CREATE TABLE df.audit (
    run text NOT NULL,
    chain text NOT NULL,
    chain_seq bigint NOT NULL,
    kind text NOT NULL,
    decision_id text NOT NULL,
    action_id text,
    prev_hash bytea NOT NULL,
    record_hash bytea NOT NULL,
    PRIMARY KEY (run, chain, chain_seq)
);

CREATE TABLE df.outcome (
    run text NOT NULL,
    action_id text NOT NULL,
    decision_id text NOT NULL,
    part integer NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    attempts integer NOT NULL,
    reason text,
    PRIMARY KEY (run, action_id)
);

-- Derived: account state, saved about every second and re-fed from there.
CREATE TABLE df.account (
    run text NOT NULL,
    part integer NOT NULL,
    account_id text NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (run, part, account_id)
);

SELECT ops.truth('df.decision', 'fp_df');
SELECT ops.truth('df.audit', 'fp_df');
SELECT ops.truth('df.outcome', 'fp_df');
SELECT ops.mutable('df.account', 'fp_df');
