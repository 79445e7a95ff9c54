"""The statements of the hot path: one claim with its lines, one set of facts, whatever the lanes in it."""

from fp_contracts.topics import INGRESS
from fp_ig.rowcopy import COLUMNS


def _each_topic(text: str) -> str:
    return ", ".join(text.format(number) for number in range(len(INGRESS)))


_SEQS = _each_topic("seq_{}")

# A whole claim but its lines: each part of it waits for nothing but the one before. The owner's row is locked until
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
), journaled AS (
    INSERT INTO ig.journal (run_no, lane, first_lane_seq, last_lane_seq, n, body)
    SELECT %s, lane::smallint, first_lane_seq, last_lane_seq, n::integer, body
    FROM unnest(%s, %s, %s, %s, %s) AS t (lane, first_lane_seq, last_lane_seq, n, body)
)
SELECT (SELECT count(*) FROM owner), (SELECT count(*) FROM moved)
"""
RECORD = """
WITH owner AS (SELECT 1 FROM ops.owner WHERE scope = %s AND epoch = %s FOR SHARE)
INSERT INTO ig.fact (run_no, lane, topic, first_seq, first_offset, n, how)
SELECT %s, lane::smallint, topic::smallint, first_seq, first_offset, n, how::"char"
FROM unnest(%s, %s, %s, %s, %s, %s) AS t (lane, topic, first_seq, first_offset, n, how), owner
"""
# The lines of a claim, in its transaction. COPY costs the server 0.6 of what INSERT … ON CONFLICT did: no test before
# each row and no second record for it in the write-ahead log. An identity claimed before fails the whole of it.
LINES = f"COPY ig.line ({COLUMNS}) FROM STDIN (FORMAT BINARY)"
IDENTITY = "line_identity"  # the unique index of claimed identities
