-- Roles and the two kinds of tables. Every service's migrations use ops.truth and ops.mutable and grant nothing by hand.
-- Core features only: serves PostgreSQL 15 to 18 and Aurora.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[
        'fp_sr', 'fp_wsp', 'fp_ig', 'fp_rtdl', 'fp_df', 'fp_cm_ls', 'fp_verdict', 'fp_ofs_trigger', 'fp_operator'
    ] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- roles belong to the whole cluster: another database or a concurrent start made it
        END;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
END $$;

-- The trigger behind law 6: truth takes INSERT and SELECT, whoever asks.
CREATE FUNCTION ops.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% refused: %.% is append-only truth', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TABLE ops.truth_table (
    relation text PRIMARY KEY
);

-- USAGE on the table's schema and the named privileges to the roles; reading to the two that prove and explain.
CREATE FUNCTION ops.allow(target regclass, privileges text, roles text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    home text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target);
    role text;
BEGIN
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', target);
    FOREACH role IN ARRAY roles || ARRAY['fp_verdict', 'fp_operator'] LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', home, role);
        EXECUTE format('GRANT SELECT ON %s TO %I', target, role);
    END LOOP;
    FOREACH role IN ARRAY roles LOOP
        EXECUTE format('GRANT %s ON %s TO %I', privileges, target, role);
    END LOOP;
END $$;

-- Make a plain table append-only truth: the roles may INSERT and SELECT, nobody may UPDATE, DELETE or TRUNCATE.
CREATE FUNCTION ops.truth(target regclass, VARIADIC roles text[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = target) <> 'r' THEN
        RAISE EXCEPTION 'ops.truth takes plain tables, not %', target;
    END IF;
    EXECUTE format('CREATE TRIGGER truth BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION ops.refuse()', target);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER truth', target);
    PERFORM ops.allow(target, 'INSERT', roles);
    INSERT INTO ops.truth_table SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
END $$;

-- A table of progress or leases: the roles may INSERT, UPDATE and SELECT.
CREATE FUNCTION ops.mutable(target regclass, VARIADIC roles text[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ops.allow(target, 'INSERT, UPDATE', roles);
END $$;

-- One line per truth table whose protection is not as declared; no line = no append-only breach is possible.
CREATE FUNCTION ops.truth_breaches() RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT t.relation || ': table is gone' FROM ops.truth_table t WHERE to_regclass(t.relation) IS NULL
    UNION ALL
    SELECT t.relation || ': trigger is missing or not always on'
        FROM ops.truth_table t
        WHERE to_regclass(t.relation) IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_trigger g
            WHERE g.tgrelid = to_regclass(t.relation) AND g.tgname = 'truth' AND g.tgenabled = 'A'
              AND g.tgfoid = 'ops.refuse'::regproc)
    UNION ALL
    SELECT t.relation || ': ' || coalesce(r.rolname, 'PUBLIC') || ' may ' || a.privilege_type
        FROM ops.truth_table t
        JOIN pg_class c ON c.oid = to_regclass(t.relation)
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE a.grantee <> c.relowner AND a.privilege_type NOT IN ('SELECT', 'INSERT')
$$;

REVOKE EXECUTE ON FUNCTION ops.allow(regclass, text, text[]), ops.truth(regclass, text[]), ops.mutable(regclass, text[])
    FROM PUBLIC;
SELECT ops.truth('ops.truth_table');
SELECT ops.allow('ops.migration', 'SELECT', '{}');
