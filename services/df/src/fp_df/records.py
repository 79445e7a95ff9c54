"""Derived records of df as they are published: place, sequence, packed header, exact bytes. Pure."""

import hashlib
from collections import Counter
from collections.abc import Mapping

from pydantic import BaseModel

from fp_contracts import topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.header import Header, Kind, pack
from fp_contracts.ids import run_tag
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_text
from fp_runtime.bus import Out
from fp_runtime.outbox import Queued

PRODUCER = "df"
_TYPES: Mapping[Kind, tuple[str, str]] = {
    Kind.DECISION: ("decision", topics.RTDL),
    Kind.ACTION_OUTCOME: ("action_outcome", topics.RTDL),
    Kind.AUDIT_RECORD: ("audit_record", topics.AUDIT),
    Kind.CASE_TRIGGER: ("case_trigger", topics.CASE_TRIGGERS),
}


class RecordWriter:
    """Writes the records of one source; sequences are dense from 1 per (topic, partition)."""

    def __init__(self, pins: Pins, source: str, seqs: Mapping[tuple[str, int], int] | None = None) -> None:
        self.source = source
        self.seqs: Counter[tuple[str, int]] = Counter(seqs or {})
        self._tag = run_tag(pins.platform_run_id)
        self._envelope = {
            "manifest_fingerprint": pins.manifest_fingerprint,
            "platform_run_id": pins.platform_run_id,
            "producer": PRODUCER,
            "run_config_digest": pins.run_config_digest,
            "scenario_run_id": pins.scenario_run_id,
            "schema_version": "v1",
        }

    def write(
        self, kind: Kind, event_id: str, key: str, order_us: int, payload: BaseModel, traceparent: bytes | None
    ) -> Queued:
        """The next record of its topic-partition, with the next sequence there."""
        event_type, topic = _TYPES[kind]
        partition = partition_of(key, topics.TOPICS[topic].partitions)
        self.seqs[topic, partition] += 1
        seq = self.seqs[topic, partition]
        content = payload.model_dump(mode="json")
        body = trusted_bytes(
            {
                **self._envelope,
                "event_id": event_id,
                "event_type": event_type,
                "ts_utc": to_text(order_us),
                "traceparent": None if traceparent is None else traceparent.decode(),
                "payload": content,
            }
        )
        header = Header(kind, self._tag, self.source, seq, order_us, hashlib.sha256(body).digest())
        return Queued(self.source, seq, Out(topic, partition, key.encode(), body, pack(header), traceparent))
