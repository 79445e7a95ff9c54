"""Derived records of df as they are published: place, sequence, packed header, exact bytes. Pure."""

from collections.abc import Mapping
from hashlib import sha256

import orjson

from fp_contracts import topics
from fp_contracts.envelope import SCHEMA_VERSION
from fp_contracts.header import Kind, pack_plain
from fp_contracts.ids import run_tag
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_text
from fp_runtime.bus import Out
from fp_runtime.outbox import Queued

PRODUCER = "df"
_new = tuple.__new__  # a named tuple without its Python-level constructor, twice per record
_TYPES = (
    (Kind.DECISION, "decision", topics.RTDL),
    (Kind.ACTION_OUTCOME, "action_outcome", topics.RTDL),
    (Kind.AUDIT_RECORD, "audit_record", topics.AUDIT),
    (Kind.CASE_TRIGGER, "case_trigger", topics.CASE_TRIGGERS),
)


class RecordWriter:
    """Writes the records of one source; sequences are dense from 1 per (topic, partition).

    `partitions`: how many each topic has that the records go to.
    """

    def __init__(
        self, pins: Pins, source: str, partitions: Mapping[str, int],
        seqs: Mapping[tuple[str, int], int] | None = None,
    ) -> None:  # fmt: skip
        self.source = source
        self.seqs = dict(seqs or {})
        self._name = source.encode()
        self._tag = run_tag(pins.platform_run_id)
        world = f'"manifest_fingerprint":"{pins.manifest_fingerprint}","payload":'
        self._types = {
            kind: (topic, partitions[topic], f'","event_type":"{event_type}",{world}')
            for kind, event_type, topic in _TYPES
        }
        self._run = (
            f',"platform_run_id":"{pins.platform_run_id}","producer":"{PRODUCER}",'
            f'"run_config_digest":"{pins.run_config_digest}","scenario_run_id":"{pins.scenario_run_id}",'
            f'"schema_version":"{SCHEMA_VERSION}",'
        )
        self._at: tuple[int, bytes | None] | None = None
        self._ending = ""
        """What a record at this time and trace ends with: as a rule that of the last one, a decision's audit link."""

    def write(
        self, kind: Kind, event_id: str, key: str, order_us: int, payload: str, traceparent: bytes | None
    ) -> Queued:
        """The next record of its topic-partition, with the next sequence there; `payload` is canonical JSON."""
        topic, partitions, middle = self._types[kind]
        partition = partition_of(key, partitions)
        place = topic, partition
        seq = self.seqs[place] = self.seqs.get(place, 0) + 1
        if self._at != (order_us, traceparent):
            self._move(order_us, traceparent)
        body = f'{{"event_id":"{event_id}{middle}{payload}{self._ending}'.encode()
        header = pack_plain(kind, self._tag, self._name, seq, order_us, sha256(body).digest())
        out = _new(Out, (topic, partition, key.encode(), body, header, traceparent))
        return _new(Queued, (self.source, seq, out))

    def _move(self, order_us: int, trace: bytes | None) -> None:
        text = orjson.dumps(None if trace is None else trace.decode("utf-8", "replace")).decode()
        self._at = order_us, trace
        self._ending = f'{self._run}"traceparent":{text},"ts_utc":"{to_text(order_us)}"}}'
