"""Reading the claims back from PostgreSQL: rows with their exact bytes, facts as ranges, gaps between the two."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lz4.block  # type: ignore[import-untyped] # ships no types
import orjson

from fp_contracts.envelope import BATCH_LIMIT
from fp_contracts.header import NONE_TS
from fp_contracts.reasons import LineClass, Quarantine
from fp_ig.claims import KIND_TOPIC, Lane, Row
from fp_ig.records import Attempt, Fact, Stamp, attempt
from fp_runtime.postgres import Connection, Cursor

ROW = "lane, lane_seq, class, reason, principal, kind, seq, order_us, frontier_us, identity, payload_hash"
_CLASSES = {"A": LineClass.ADMITTED, "D": LineClass.DUPLICATE, "Q": LineClass.QUARANTINED}
_BATCHES_AT_ONCE = 8


def packed(lines: Sequence[bytes]) -> bytes:
    """Lines as one compressed body; they hold no newline."""
    body: bytes = lz4.block.compress(b"\n".join(lines))
    return body


def unpacked(body: bytes) -> list[bytes]:
    """The lines of a body, exactly as they were."""
    lines: bytes = lz4.block.decompress(body)
    return lines.split(b"\n")


def row_of(values: tuple[Any, ...]) -> Row:
    """A row of ig.line selected as ROW."""
    lane, lane_seq, line_class, reason, principal, kind, seq, order_us, frontier_us, identity, digest = values
    return Row(
        lane,
        lane_seq,
        _CLASSES[_text(line_class)],
        Quarantine(reason) if reason else None,
        principal,
        kind,
        seq or 0,
        NONE_TS if order_us is None else order_us,
        NONE_TS if frontier_us is None else frontier_us,
        identity or b"",
        digest,
    )


def facts(cur: Cursor, run_no: int, lane: int, topic: int) -> list[Fact]:
    """The publish facts of a lane's topic, by sequence."""
    cur.execute(
        "SELECT lane, topic, first_seq, first_offset, n, how FROM ig.fact"
        " WHERE run_no = %s AND lane = %s AND topic = %s ORDER BY first_seq",
        (run_no, lane, topic),
    )
    return [Fact(lane, topic, seq, offset, n, _text(how)) for lane, topic, seq, offset, n, how in cur]


def missing_seqs(cur: Cursor, run_no: int, lane: Lane) -> dict[int, set[int]]:
    """Claimed sequences of a lane without a fact, by topic; empty when all have one."""
    missing = {}
    for topic, last_seq in enumerate(lane.last_seqs):
        covered = 0
        open_seqs: set[int] = set()
        for fact in facts(cur, run_no, lane.number, topic):
            open_seqs.update(range(covered + 1, fact.first_seq))
            covered = fact.first_seq + fact.n - 1
        open_seqs.update(range(covered + 1, last_seq + 1))
        if open_seqs:
            missing[topic] = open_seqs
    return missing


def first_open_line(cur: Cursor, run_no: int, lane: int, missing: Mapping[int, set[int]]) -> int:
    """The lowest lane_seq among the claims whose sequences are missing."""
    lowest: list[int] = []
    for topic, seqs in missing.items():
        kinds = [kind for kind, number in KIND_TOPIC.items() if number == topic]
        cur.execute(
            "SELECT min(lane_seq) FROM ig.line"
            " WHERE run_no = %s AND lane = %s AND class = 'A' AND kind = ANY(%s) AND seq >= %s",
            (run_no, lane, kinds, min(seqs)),
        )
        lowest += [lane_seq for (lane_seq,) in cur if lane_seq is not None]
    return min(lowest)


def claimed_lines(
    conn: Connection, run_no: int, lane: int, up_to: int | None = None, first: int = 1
) -> Iterator[tuple[Row, bytes]]:
    """Admitted rows of a lane with their exact bytes, in lane order, from the batch that holds lane_seq `first` up to
    lane_seq `up_to`; memory holds a few batches.

    ValueError when a batch's bytes and rows do not match in number.
    """
    after = first - BATCH_LIMIT
    while True:
        batches = conn.execute(
            "SELECT first_lane_seq, last_lane_seq, body FROM ig.journal"
            " WHERE run_no = %s AND lane = %s AND first_lane_seq > %s ORDER BY first_lane_seq LIMIT %s",
            (run_no, lane, after, _BATCHES_AT_ONCE),
        ).fetchall()
        if not batches:
            return
        for first, last, body in batches:
            after = first
            rows = conn.execute(
                f"SELECT {ROW} FROM ig.line WHERE run_no = %s AND lane = %s AND lane_seq BETWEEN %s AND %s"
                " AND class = 'A' ORDER BY lane_seq",
                (run_no, lane, first, last),
            ).fetchall()
            for values, raw in zip(rows, unpacked(body), strict=True):
                row = row_of(values)
                if up_to is not None and row.lane_seq > up_to:
                    return
                yield row, raw


def attempt_of(stamp: Stamp, row: Row, raw: bytes) -> Attempt:
    """The record of an admitted row, built again from what was claimed; equal to the first one."""
    doc = orjson.loads(raw)
    traceparent = doc.get("traceparent")
    key = doc["payload"]["merchant_id"].encode()
    return attempt(stamp, row, key, raw, None if traceparent is None else traceparent.encode())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
