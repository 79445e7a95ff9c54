-- One row per (run, phase, attempt): the journaled closure of a phase (its gate event and exact evidence bytes).
CREATE TABLE ops.gate_closure (
    run text NOT NULL,
    phase text NOT NULL,
    attempt integer NOT NULL,
    event bytea NOT NULL,
    names text[] NOT NULL,
    bodies bytea[] NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, phase, attempt)
);
SELECT ops.truth('ops.gate_closure', 'fp_sr', 'fp_wsp', 'fp_ig', 'fp_rtdl', 'fp_df', 'fp_cm_ls', 'fp_verdict',
                 'fp_ofs_trigger', 'fp_operator');
