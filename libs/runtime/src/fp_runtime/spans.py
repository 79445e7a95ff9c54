"""Spans: which offsets a stage consumed, as facts. The spans of a closed run tile [start, end) of each partition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from fp_runtime.postgres import Connection, Cursor


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets [first_offset, next_offset) of one topic-partition, with counts by kind or reason."""

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    counts: Mapping[str, int] = field(default_factory=dict)


def record(cur: Cursor, run: str, stage: str, spans: Sequence[Span]) -> None:
    """Insert spans in the transaction of their effects; a unique violation means the same start twice."""
    record_all(cur, run, [(stage, span) for span in spans])


def record_all(cur: Cursor, run: str, spans: Sequence[tuple[str, Span]]) -> None:
    """`record` for (stage, span) of several stages at once."""
    if not spans:
        return
    rows = [(stage, s.topic, s.partition, s.first_offset, s.next_offset, orjson.dumps(dict(s.counts)).decode())
            for stage, s in spans]  # fmt: skip
    cur.execute(
        "INSERT INTO ops.span (run, stage, topic, part, first_offset, next_offset, counts)"
        " SELECT %s, * FROM unnest(%b::text[], %b::text[], %b::int4[], %b::int8[], %b::int8[], %b::jsonb[])",
        (run, *map(list, zip(*rows, strict=True))),
    )


def load(conn: Connection, run: str, stage: str) -> list[Span]:
    """All spans of a stage, ordered by topic, partition and first offset."""
    rows = conn.execute(
        "SELECT topic, part, first_offset, next_offset, counts FROM ops.span"
        " WHERE run = %s AND stage = %s ORDER BY topic, part, first_offset",
        (run, stage),
    )
    return [Span(*row) for row in rows.fetchall()]


def breaks(spans: Sequence[Span], start: int, end: int) -> list[str]:
    """Where the spans of one partition, ordered by first offset, fail to tile [start, end); empty = they tile."""
    found = []
    at = start
    for span in spans:
        if span.first_offset != at:
            kind = "gap" if span.first_offset > at else "overlap"
            low, high = sorted((at, span.first_offset))
            found.append(f"{kind} [{low}, {high})")
        at = max(at, span.next_offset)
    if at != end:
        found.append(f"gap [{at}, {end})" if at < end else f"beyond the end by {at - end}")
    return found
