"""The outbox: records durable in the transaction of their effects, published later, their offsets recorded as facts.

What is unpublished is found by an anti-join against the facts, never by a position: rows commit out of order.
A record whose reply was lost has no fact and is published again with the same bytes and sequence (law 4).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fp_runtime import together
from fp_runtime.bus import Delivery, Out, Producer
from fp_runtime.errors import Unavailable
from fp_runtime.pgarrays import byteas, int8s, texts
from fp_runtime.postgres import Connection, Cursor, transaction
from fp_runtime.together import Step

DRAIN_BATCH = 2_000
_as = tuple.__new__  # a named tuple without its Python-level constructor, once per record


class Queued(NamedTuple):
    """A record with its place: seq is dense from 1 per (source, topic, partition)."""

    source: str
    seq: int
    out: Out


class Published(NamedTuple):
    """Where one queued record was acknowledged."""

    source: str
    topic: str
    partition: int
    seq: int
    offset: int


class Fact(NamedTuple):
    """Seq first_seq + i lies at offset first_offset + i, for 0 <= i < n."""

    source: str
    topic: str
    partition: int
    first_seq: int
    first_offset: int
    n: int


_STORE = """
INSERT INTO ops.outbox (run, source, topic, part, seq, key, header, traceparent, body)
SELECT %s, source, topic, part::int4, seq, key, header, traceparent, body
FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s) AS t (source, topic, part, seq, key, header, traceparent, body)
RETURNING 1
"""
_RECORD = """
INSERT INTO ops.outbox_fact (run, source, topic, part, first_seq, first_offset, n)
SELECT %s, source, topic, part::int4, first_seq, first_offset, n
FROM unnest(%s, %s, %s, %s, %s, %s) AS t (source, topic, part, first_seq, first_offset, n)
ON CONFLICT DO NOTHING RETURNING 1
"""


def stored(run: str, rows: Sequence[Queued]) -> list[Step]:
    """Store records with their exact bytes; a unique violation means a sequence was given twice."""
    if not rows:
        return []
    sources, seqs, outs = zip(*rows, strict=True)
    names, parts, keys, bodies, headers, traces = zip(*outs, strict=True)
    columns = (
        texts(sources), texts(names), int8s(parts), int8s(seqs),
        byteas(keys), byteas(headers), byteas(traces), byteas(bodies),
    )  # fmt: skip
    return [Step(_STORE, (run, *columns))]


def add(cur: Cursor, run: str, rows: Sequence[Queued]) -> None:
    """`stored` by itself."""
    if steps := stored(run, rows):
        together.execute(cur, steps)


def merge(published: Iterable[Published]) -> list[Fact]:
    """Acknowledged records as the fewest facts, ordered: both seq and offset must go on by one."""
    facts: list[Fact] = []
    start, n = None, 0
    for one in sorted(set(published)):
        source, topic, partition, seq, offset = one
        if start is not None and (source, topic, partition, seq - n, offset - n) == start:
            n += 1
            continue
        if start is not None:
            facts.append(Fact(*start, n))
        start, n = one, 1
    return facts if start is None else [*facts, Fact(*start, n)]


def recorded(run: str, published: Iterable[Published]) -> list[Step]:
    """Record where records were acknowledged; the same fact again changes nothing."""
    facts = merge(published)
    if not facts:
        return []
    sources, names, parts, seqs, offsets, counts = zip(*facts, strict=True)
    return [Step(_RECORD, (run, texts(sources), texts(names), *map(int8s, (parts, seqs, offsets, counts))))]


def record_facts(cur: Cursor, run: str, published: Iterable[Published]) -> None:
    """`recorded` by itself."""
    if steps := recorded(run, published):
        together.execute(cur, steps)


_UNPUBLISHED = """
WITH stored AS (
    SELECT topic, part, int8range(min(seq), max(seq), '[]') AS span
    FROM ops.outbox WHERE run = %(run)s AND source = %(source)s GROUP BY topic, part
), covered AS (
    SELECT topic, part, range_agg(int8range(first_seq, first_seq + n)) AS spans
    FROM ops.outbox_fact WHERE run = %(run)s AND source = %(source)s GROUP BY topic, part
), gap AS (
    SELECT topic, part, unnest(int8multirange(s.span) - coalesce(c.spans, '{}'::int8multirange)) AS span
    FROM stored s LEFT JOIN covered c USING (topic, part)
)
SELECT o.seq, g.topic, g.part, o.key, o.body, o.header, o.traceparent
FROM gap g CROSS JOIN LATERAL (
    SELECT * FROM ops.outbox
    WHERE run = %(run)s AND source = %(source)s AND topic = g.topic AND part = g.part
        AND seq >= lower(g.span) AND seq < upper(g.span)
    ORDER BY seq LIMIT %(limit)s -- the limit keeps this an index scan per gap
) o
ORDER BY g.topic, g.part, o.seq LIMIT %(limit)s
"""


def unpublished(conn: Connection, run: str, source: str, limit: int | None = None) -> list[Queued]:
    """Stored records of `source` without a fact, ordered by topic, partition and seq; the first `limit` of them."""
    rows = conn.execute(_UNPUBLISHED, {"run": run, "source": source, "limit": limit})
    return [Queued(source, row[0], Out(*row[1:])) for row in rows.fetchall()]


def acknowledged(rows: Sequence[Queued], deliveries: Sequence[Delivery]) -> list[Published]:
    """Those of `rows` whose delivery names an offset; the others stay unpublished."""
    return [
        _as(Published, (source, out.topic, out.partition, seq, offset))
        for (source, seq, out), (offset, _, _) in zip(rows, deliveries, strict=True)
        if offset is not None
    ]


def publish(conn: Connection, producer: Producer, run: str, rows: Sequence[Queued]) -> None:
    """Publish committed rows and record their facts; Unavailable when one is not acknowledged (others' facts stay)."""
    deliveries = producer.publish([row.out for row in rows])
    acked = acknowledged(rows, deliveries)
    with transaction(conn) as cur:
        record_facts(cur, run, acked)
    if len(acked) < len(rows):
        reasons = {f"{delivery.error} {delivery.reason}".strip() for delivery in deliveries if delivery.offset is None}
        raise Unavailable(f"outbox: {len(rows) - len(acked)} records not acknowledged ({', '.join(sorted(reasons))})")


def drain(conn: Connection, producer: Producer, run: str, sources: Sequence[str]) -> int:
    """Publish everything that is stored and unpublished, in order; the number published. For every start."""
    total = 0
    for source in sources:
        while rows := unpublished(conn, run, source, DRAIN_BATCH):
            publish(conn, producer, run, rows)
            total += len(rows)
    return total
