"""The two statements of the hot path: one claim, one set of facts. Each is one round trip, whatever the lanes in it."""

from fp_contracts.header import NONE_TS
from fp_contracts.topics import INGRESS


def _each_topic(text: str) -> str:
    return ", ".join(text.format(number) for number in range(len(INGRESS)))


_SEQS = _each_topic("seq_{}")

# One statement for a whole claim: each part of it waits for nothing but the one before. The owner's row is locked until
# the commit, as ownership.guard does. Counts come back; anything but the expected ones rolls the claim back.
CLAIM = f"""
WITH owner AS (
    SELECT 1 FROM ops.owner WHERE scope = %s AND epoch = %s FOR SHARE
), moved AS (
    UPDATE ig.lane l SET last_lane_seq = t.last_lane_seq, floor_us = t.floor_us, last_seqs = ARRAY[{_SEQS}]
    FROM unnest(%s, %s, %s, %s, %s, {_each_topic("%s")})
         AS t (lane, before_seq, before_us, last_lane_seq, floor_us, {_SEQS})
    WHERE l.run_no = %s AND l.lane = t.lane AND l.last_lane_seq = t.before_seq AND l.floor_us = t.before_us
    RETURNING 1
), claimed AS (
    INSERT INTO ig.line (run_no, lane, lane_seq, class, principal, kind, seq, order_us, frontier_us, identity,
                         payload_hash, reason)
    SELECT %s, lane::smallint, lane_seq, (CASE WHEN seq > 0 THEN 'A' WHEN reason = '' THEN 'D' ELSE 'Q' END)::"char",
           principal::integer, kind::smallint, nullif(seq, 0), nullif(order_us, {NONE_TS}),
           nullif(frontier_us, {NONE_TS}), nullif(identity, ''::bytea), payload_hash, nullif(reason, '')
    FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
         AS t (lane, lane_seq, principal, kind, seq, order_us, frontier_us, identity, payload_hash, reason)
    ON CONFLICT (identity) WHERE class = 'A' DO NOTHING
    RETURNING 1
), journaled AS (
    INSERT INTO ig.journal (run_no, lane, first_lane_seq, last_lane_seq, n, body)
    SELECT %s, lane::smallint, first_lane_seq, last_lane_seq, n::integer, body
    FROM unnest(%s, %s, %s, %s, %s) AS t (lane, first_lane_seq, last_lane_seq, n, body)
)
SELECT (SELECT count(*) FROM owner), (SELECT count(*) FROM moved), (SELECT count(*) FROM claimed)
"""
RECORD = """
WITH owner AS (SELECT 1 FROM ops.owner WHERE scope = %s AND epoch = %s FOR SHARE)
INSERT INTO ig.fact (run_no, lane, topic, first_seq, first_offset, n, how)
SELECT %s, lane::smallint, topic::smallint, first_seq, first_offset, n, how::"char"
FROM unnest(%s, %s, %s, %s, %s, %s) AS t (lane, topic, first_seq, first_offset, n, how), owner
"""
