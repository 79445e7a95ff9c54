-- Metered usage and the receipts that book it: for each run, the sum of receipts plus what is unbooked is the metered total.

-- One sample = what one process used since its sample before. Costs in micro-USD by the pinned price table.
CREATE TABLE ops.meter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run text NOT NULL,
    process text NOT NULL,
    instance text NOT NULL,
    cpu_us bigint NOT NULL CHECK (cpu_us >= 0),
    rss_bytes_s bigint NOT NULL CHECK (rss_bytes_s >= 0),
    read_bytes bigint NOT NULL CHECK (read_bytes >= 0),
    write_bytes bigint NOT NULL CHECK (write_bytes >= 0),
    requests bigint NOT NULL CHECK (requests >= 0),
    cost_microusd bigint NOT NULL CHECK (cost_microusd >= 0),
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX meter_run ON ops.meter (run, id);

-- Ids are drawn before they commit. Inserters share this lock and a booking takes it alone, so that
-- no sample can appear later under an id that a booking has already passed.
CREATE FUNCTION ops.meter_lock() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7378420126518404466);
    RETURN NULL;
END $$;
CREATE TRIGGER meter_lock BEFORE INSERT ON ops.meter FOR EACH STATEMENT EXECUTE FUNCTION ops.meter_lock();
ALTER TABLE ops.meter ENABLE ALWAYS TRIGGER meter_lock;

-- A run as a range, so that the exclusion below needs no extension.
CREATE TYPE ops.textrange AS RANGE (subtype = text);

-- Samples (after_sample, last_sample] of a run belong to this attempt of a phase; both null = nothing was booked.
CREATE TABLE ops.receipt (
    run text NOT NULL,
    phase text NOT NULL,
    attempt integer NOT NULL CHECK (attempt > 0),
    after_sample bigint,
    last_sample bigint,
    first_sample bigint NOT NULL,
    samples bigint NOT NULL,
    spend_microusd bigint NOT NULL CHECK (spend_microusd >= 0),
    window_us bigint NOT NULL CHECK (window_us >= 0),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, phase, attempt),
    CHECK (after_sample < last_sample),
    CHECK ((after_sample IS NULL) = (last_sample IS NULL)),
    CHECK (last_sample IS NOT NULL OR (spend_microusd = 0 AND samples = 0)),
    EXCLUDE USING gist (ops.textrange(run, run, '[]') WITH &&, int8range(after_sample, last_sample, '(]') WITH &&)
        WHERE (last_sample IS NOT NULL)
);

SELECT ops.truth('ops.meter', 'fp_operator');
SELECT ops.truth('ops.receipt', 'fp_sr', 'fp_wsp', 'fp_ig', 'fp_rtdl', 'fp_df', 'fp_cm_ls', 'fp_verdict',
                 'fp_ofs_trigger', 'fp_operator');
GRANT SELECT ON ops.meter TO fp_sr, fp_wsp, fp_ig, fp_rtdl, fp_df, fp_cm_ls, fp_ofs_trigger;
GRANT USAGE ON TYPE ops.textrange TO PUBLIC;
