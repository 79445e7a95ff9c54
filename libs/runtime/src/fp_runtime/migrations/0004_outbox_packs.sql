-- The outbox by packs (ADR 20): a row holds what one transaction added to a chain (run, source, topic, part).

DO $$
BEGIN
    IF EXISTS (SELECT FROM ops.outbox) THEN
        RAISE EXCEPTION 'this database holds records of runs in a form that is read no more'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = '`fp down`, then remove the state folder or name a new one by FP_STATE_DIR;'
                         ' on a server of your own, name a new database';
    END IF;
END $$;

-- body = LZ4 block (with its size) of a msgpack array of [key, header, traceparent or nil, value], one per sequence.
ALTER TABLE ops.outbox
    DROP COLUMN seq, -- and the primary key with it
    DROP COLUMN key,
    DROP COLUMN header,
    DROP COLUMN traceparent,
    ADD COLUMN first_seq bigint NOT NULL CHECK (first_seq > 0),
    ADD COLUMN last_seq bigint NOT NULL,
    ADD COLUMN prev_seq bigint GENERATED ALWAYS AS (NULLIF(first_seq - 1, 0)) STORED,
    ALTER COLUMN body SET STORAGE EXTERNAL;

-- Packs tile 1..n of their chain: none is given twice, none follows but on the end of another.
ALTER TABLE ops.outbox
    ADD CHECK (last_seq >= first_seq),
    ADD PRIMARY KEY (run, source, topic, part, first_seq),
    ADD CONSTRAINT outbox_end UNIQUE (run, source, topic, part, last_seq),
    ADD CONSTRAINT outbox_follows FOREIGN KEY (run, source, topic, part, prev_seq)
        REFERENCES ops.outbox (run, source, topic, part, last_seq);
