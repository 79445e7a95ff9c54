"""The outbox: records durable in the transaction of their effects, published later, their offsets recorded as facts.

A chain is what one source wrote to one topic-partition; what a transaction adds to it is one row, a pack (ADR 20). The
database takes a pack only on the end of the one before it, so each chain has one writer at a time.
What is unpublished is found by an anti-join against the facts, never by a position: acknowledgements have holes.
A record whose reply was lost has no fact and is published again with the same bytes and sequence (law 4).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import lz4.block  # type: ignore[import-untyped] # ships no types
import msgspec

from fp_runtime import together
from fp_runtime.bus import Delivery, Out, Producer
from fp_runtime.errors import Unavailable
from fp_runtime.pgarrays import byteas, int8s, texts
from fp_runtime.postgres import Connection, Cursor, transaction
from fp_runtime.together import Step

DRAIN_BATCH = 2_000
_PACKS_AT_ONCE = 16
_as = tuple.__new__  # a named tuple without its Python-level constructor, once per record


class Queued(NamedTuple):
    """A record with its place: seq is dense from 1 per chain (source, topic, partition)."""

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


_Packed = tuple[bytes, bytes, bytes | None, bytes]
"""Key, header, traceparent, value of one record, as they lie in a pack."""
_Place = tuple[str, str, int]
_Pack = tuple[_Place, int, list[_Packed]]
"""Chain, first seq and records."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Packed]).decode

_STORE = """
INSERT INTO ops.outbox (run, source, topic, part, first_seq, last_seq, body)
SELECT %s, source, topic, part::int4, first_seq, last_seq, body
FROM unnest(%s, %s, %s, %s, %s, %s) AS t (source, topic, part, first_seq, last_seq, body)
RETURNING 1
"""
_RECORD = """
INSERT INTO ops.outbox_fact (run, source, topic, part, first_seq, first_offset, n)
SELECT %s, source, topic, part::int4, first_seq, first_offset, n
FROM unnest(%s, %s, %s, %s, %s, %s) AS t (source, topic, part, first_seq, first_offset, n)
ON CONFLICT DO NOTHING RETURNING 1
"""


def stored(run: str, rows: Sequence[Queued]) -> list[Step]:
    """Store records with their exact bytes, one row per chain, which the step counts.

    An integrity error means that a chain does not go on by one: a sequence was given twice or left out.
    """
    if not rows:
        return []
    places, firsts, contents = zip(*_packs(rows), strict=True)
    sources, names, parts = zip(*places, strict=True)
    lasts = [first + len(records) - 1 for first, records in zip(firsts, contents, strict=True)]
    columns = (
        texts(sources), texts(names), int8s(parts), int8s(firsts), int8s(lasts),
        byteas([packed(records) for records in contents]),
    )  # fmt: skip
    return [Step(_STORE, (run, *columns))]


def _packs(rows: Sequence[Queued]) -> list[_Pack]:
    """The rows as packs, in one pass. A break in a chain begins another pack: the database judges it."""
    packs: list[_Pack] = []
    last: dict[_Place, _Pack] = {}
    for source, seq, (topic, partition, key, value, header, trace) in rows:
        place = source, topic, partition
        pack = last.get(place)
        if pack is None or seq != pack[1] + len(pack[2]):
            pack = last[place] = place, seq, []
            packs.append(pack)
        pack[2].append((key, header, trace, value))
    return packs


def packed(records: Sequence[_Packed]) -> bytes:
    """Records as the body of a pack."""
    body: bytes = lz4.block.compress(_encode(records))
    return body


def unpacked(body: bytes) -> list[_Packed]:
    """What `packed` was given."""
    return _decode(lz4.block.decompress(body))


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


# Packs tile 1..n of their chain, so the one that holds a seq is the first that ends at or behind it.
_UNPUBLISHED = """
WITH stored AS (
    SELECT topic, part, int8multirange(int8range(1, max(last_seq), '[]')) AS span
    FROM ops.outbox WHERE run = %(run)s AND source = %(source)s GROUP BY topic, part
), covered AS (
    SELECT topic, part, range_agg(int8range(first_seq, first_seq + n)) AS spans
    FROM ops.outbox_fact WHERE run = %(run)s AND source = %(source)s GROUP BY topic, part
), gap AS (
    SELECT topic, part, unnest(s.span - coalesce(c.spans, '{}'::int8multirange)) AS span
    FROM stored s LEFT JOIN covered c USING (topic, part)
), piece AS ( -- what of a gap lies in one pack: from lo up to hi
    SELECT g.topic, g.part, o.last_seq, greatest(o.first_seq, lower(g.span)) AS lo,
        least(o.last_seq + 1, upper(g.span)) AS hi
    FROM gap g CROSS JOIN LATERAL (
        SELECT first_seq, last_seq FROM ops.outbox
        WHERE run = %(run)s AND source = %(source)s AND topic = g.topic AND part = g.part
            AND last_seq BETWEEN lower(g.span) AND (
                SELECT min(last_seq) FROM ops.outbox WHERE run = %(run)s AND source = %(source)s
                    AND topic = g.topic AND part = g.part AND last_seq >= upper(g.span) - 1)
        ORDER BY last_seq LIMIT %(limit)s -- the limit keeps this an index scan per gap
    ) o
), counted AS (
    SELECT *, sum(hi - lo) OVER (ORDER BY topic, part, lo) - (hi - lo) AS before FROM piece
), wanted AS ( -- each pack once, however many holes its facts have
    SELECT topic, part, last_seq, array_agg(lo ORDER BY lo) AS los, array_agg(hi ORDER BY lo) AS his
    FROM counted WHERE %(limit)s::int8 IS NULL OR before < %(limit)s GROUP BY topic, part, last_seq
)
SELECT o.topic, o.part, o.first_seq, w.los, w.his, o.body
FROM wanted w JOIN ops.outbox o ON o.run = %(run)s AND o.source = %(source)s AND o.topic = w.topic
    AND o.part = w.part AND o.last_seq = w.last_seq
ORDER BY w.topic, w.part, w.last_seq
"""


def unpublished(conn: Connection, run: str, source: str, limit: int | None = None) -> list[Queued]:
    """Stored records of `source` without a fact, ordered by topic, partition and seq; the first `limit` of them.

    Memory holds the packs that they lie in.
    """
    found: list[Queued] = []
    for topic, part, first, los, his, body in conn.execute(
        _UNPUBLISHED, {"run": run, "source": source, "limit": limit}
    ).fetchall():
        pack = _queued(source, topic, part, first, body)
        for low, high in zip(los, his, strict=True):
            found += pack[low - first : high - first]
    return found[:limit]


def _queued(source: str, topic: str, part: int, first: int, body: bytes) -> list[Queued]:
    """The records of a pack."""
    return [
        _as(Queued, (source, seq, _as(Out, (topic, part, key, value, header, trace))))
        for seq, (key, header, trace, value) in enumerate(unpacked(body), first)
    ]


def records(conn: Connection, run: str, prefix: str, topic: str) -> Iterator[Queued]:
    """All records that sources of a prefix wrote to a topic, by source, partition and seq; memory holds a few packs."""
    with conn.transaction(), conn.cursor(name="records") as cur:
        cur.itersize = _PACKS_AT_ONCE
        cur.execute(
            "SELECT source, topic, part, first_seq, body FROM ops.outbox"
            " WHERE run = %s AND starts_with(source, %s) AND topic = %s ORDER BY source, part, first_seq",
            (run, prefix, topic),
        )
        for pack in cur:
            yield from _queued(*pack)


def record(conn: Connection, run: str, source: str, topic: str, part: int, seq: int) -> Queued | None:
    """One record, or None when it was not stored."""
    row = conn.execute(
        "SELECT first_seq, body FROM ops.outbox WHERE run = %s AND source = %s AND topic = %s AND part = %s"
        " AND last_seq >= %s ORDER BY last_seq LIMIT 1",
        (run, source, topic, part, seq),
    ).fetchone()
    return None if row is None else _queued(source, topic, part, *row)[seq - row[0]]


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
