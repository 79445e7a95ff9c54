-- Runs that were pinned and runs that ended: insert-only; at most one run is open per environment.
CREATE SCHEMA IF NOT EXISTS sr;
CREATE TABLE sr.run (
    run text PRIMARY KEY,
    scenario_run_id text NOT NULL,
    run_config_digest text NOT NULL,
    pin_partition integer NOT NULL,
    pin_offset bigint NOT NULL,
    header bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE sr.run_end (
    run text PRIMARY KEY REFERENCES sr.run (run),
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE sr.ready (
    run text PRIMARY KEY REFERENCES sr.run (run),
    ready_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
SELECT ops.truth('sr.run', 'fp_sr');
SELECT ops.truth('sr.run_end', 'fp_sr');
SELECT ops.truth('sr.ready', 'fp_sr');
GRANT USAGE ON SCHEMA sr TO fp_wsp, fp_ig, fp_rtdl, fp_df, fp_cm_ls, fp_verdict, fp_ofs_trigger, fp_operator, fp_sr;
GRANT SELECT ON sr.run, sr.run_end TO fp_wsp, fp_ig, fp_rtdl, fp_df, fp_cm_ls, fp_verdict, fp_ofs_trigger, fp_operator;
