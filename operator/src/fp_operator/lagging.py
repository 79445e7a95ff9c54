"""How far each stage of a run is behind the bus, and what lies on a topic."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.fold import RunState
from fp_contracts.header import HeaderError, unpack
from fp_contracts.timestamps import to_text
from fp_runtime.bus import Consumer, Record, TopicPartition
from fp_runtime.errors import UserError
from fp_runtime.postgres import Connection


def lag(conn: Connection, consumer: Consumer, state: RunState) -> list[dict[str, Any]]:
    """One row per (stage, topic): records on the topic since the pin, how many the stage's spans cover, the rest."""
    assert state.header is not None
    starts = {(topic, part): at for topic in topics.DATA for part, at in state.header.starts(topic).items()}
    ends = consumer.ends(list(starts))
    covered = conn.execute(
        "SELECT stage, topic, part, max(next_offset) FROM ops.span WHERE run = %s GROUP BY stage, topic, part",
        (state.platform_run_id,),
    ).fetchall()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for stage, topic, part, position in covered:
        row = rows.setdefault(
            (stage, topic), {"stage": stage, "topic": topic, "partitions": 0, "records": 0, "lag": 0}
        )  # fmt: skip
        row["partitions"] += 1
        row["records"] += ends[topic, part] - starts[topic, part]
        row["lag"] += max(0, ends[topic, part] - position)
    return [rows[key] for key in sorted(rows)]


def on_topics(consumer: Consumer, state: RunState) -> dict[str, int]:
    """Topic -> records on it since the run's pin (watermarks and later runs included)."""
    assert state.header is not None
    starts = {(topic, part): at for topic in topics.DATA for part, at in state.header.starts(topic).items()}
    ends = consumer.ends(list(starts))
    counts = dict.fromkeys(topics.DATA, 0)
    for (topic, part), at in starts.items():
        counts[topic] += ends[topic, part] - at
    return counts


def topic_of(text: str) -> str:
    """A topic by its name or a unique part of it; UserError."""
    found = [name for name in topics.TOPICS if text == name] or [name for name in topics.TOPICS if text in name]
    if len(found) != 1:
        why = "no such topic" if not found else f"stands for {', '.join(found)}"
        raise UserError(f"topic {text[:60]!r}", why, f"one of {', '.join(topics.TOPICS)}")
    return found[0]


def newest(consumer: Consumer, topic: str, n: int, profile: str) -> list[Record]:
    """Up to `n` of the newest records of a topic of an environment, oldest first by time."""
    tps = [(topic, part) for part in range(topics.pinned(profile)[topic].partitions)]
    ends, begins = consumer.ends(tps), consumer.begins(tps)
    starts = {tp: max(begins[tp], ends[tp] - n) for tp in tps if ends[tp] > begins[tp]}
    found = sorted(_until(consumer, starts, ends), key=lambda record: (record.timestamp_ms, record.partition))
    return found[-n:]


def _until(
    consumer: Consumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> Iterator[Record]:  # fmt: skip
    left = set(starts)
    if left:
        consumer.assign(starts)
    while left:
        for record in consumer.poll(500, 1.0):
            place = (record.topic, record.partition)
            if record.offset < ends[place]:
                yield record
            if record.offset + 1 >= ends[place]:
                left.discard(place)


def decoded(record: Record) -> dict[str, Any]:
    """A record for people: place, header fields, body as JSON where it is JSON."""
    found: dict[str, Any] = {"partition": record.partition, "offset": record.offset, "key": _text(record.key)}
    try:
        header = unpack(record.header)
        found |= {
            "kind": header.kind.name,
            "source": header.source,
            "seq": header.seq,
            "order": to_text(header.order_us),
        }
        found |= {"marks": [f"{m.source}@{to_text(m.frontier_us)}" for m in header.marks]} if header.marks else {}
    except HeaderError:
        found["kind"] = "CONTROL" if record.topic == topics.CONTROL else "?"
    try:
        found["body"] = orjson.loads(record.value) if record.value else None
    except orjson.JSONDecodeError:
        found["body"] = _text(record.value)
    return found


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="replace")
