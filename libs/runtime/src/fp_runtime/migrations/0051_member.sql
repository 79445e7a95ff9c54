-- A service that joins the mesh later: its first migration calls `SELECT ops.member('fp_<name>')` and then makes its own
-- tables. The role may then own scopes, move progress, write its outbox and close its phases, as the first services may.
CREATE FUNCTION ops.member(role text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    target text;
BEGIN
    BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- roles belong to the whole cluster: another database or a concurrent start made it
    END;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    FOREACH target IN ARRAY ARRAY['ops.owner', 'ops.lease', 'ops.progress'] LOOP
        PERFORM ops.allow(target::regclass, 'INSERT, UPDATE', ARRAY[role]);
    END LOOP;
    FOREACH target IN ARRAY ARRAY[
        'ops.outbox', 'ops.outbox_fact', 'ops.quarantine', 'ops.span', 'ops.receipt', 'ops.gate_closure'
    ] LOOP
        PERFORM ops.allow(target::regclass, 'INSERT', ARRAY[role]);
    END LOOP;
    EXECUTE format('GRANT SELECT ON ops.meter TO %I', role); -- what a phase of its own cost
END $$;
