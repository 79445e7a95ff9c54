"""A snapshot as the record it is published as. Pure: equal snapshots give equal bytes, whoever writes them.

Dictionaries are built by sorted keys or sorted by orjson: canonical JSON; a test holds the
bytes to `fp_contracts.records.body_of` and the hash to `fp_contracts.derive.snapshot_hash`.
"""

import hashlib
from typing import Any

import orjson

from fp_contracts import topics
from fp_contracts.derive import vector_text
from fp_contracts.header import Header, Kind, pack
from fp_contracts.ids import framed, run_tag
from fp_contracts.partition import partition_of
from fp_contracts.reasons import JoinStatus
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_text
from fp_features import CORE_V1
from fp_rtdl.domain import Snapshot
from fp_runtime.bus import Out

PRODUCER = "rtdl"
TARGETS = topics.TOPICS[topics.RTDL].partitions


def source_of(part: int) -> str:
    """The source name of the snapshots of an ingress partition."""
    return f"rtdl:{part}"


class SnapshotWriter:
    """Writes the snapshots of one partition; `seqs` is the last sequence per target partition, dense from 1."""

    def __init__(self, pins: Pins, part: int) -> None:
        self.seqs = [0] * TARGETS
        self.source = source_of(part)
        self._part = part
        self._pins = pins
        self._tag = run_tag(pins.platform_run_id)
        self._identity = framed("snapshot", pins.platform_run_id)

    def write(self, snapshot: Snapshot) -> Out:
        """The next record of its target: by account, or by flow where no anchor told the account."""
        auth, anchor = snapshot.auth, snapshot.anchor
        key = anchor.account_id if anchor else auth.flow_id
        target = partition_of(key, TARGETS)
        self.seqs[target] += 1
        digest, payload = self._payload(snapshot)
        header = Header(
            Kind.FEATURE_SNAPSHOT, self._tag, self.source, self.seqs[target], snapshot.release_us, digest
        )  # fmt: skip
        trace = auth.traceparent.encode() if auth.traceparent else None
        return Out(topics.RTDL, target, key.encode(), self._body(snapshot, payload), pack(header), trace)

    def _body(self, snapshot: Snapshot, payload: dict[str, Any]) -> bytes:
        pins = self._pins
        event_id = hashlib.sha256(self._identity + framed(snapshot.auth.event_id)).hexdigest()[:32]
        return orjson.dumps(
            {
                "event_id": event_id,
                "event_type": "feature_snapshot",
                "manifest_fingerprint": pins.manifest_fingerprint,
                "payload": payload,
                "platform_run_id": pins.platform_run_id,
                "producer": PRODUCER,
                "run_config_digest": pins.run_config_digest,
                "scenario_run_id": pins.scenario_run_id,
                "schema_version": "v1",
                "traceparent": snapshot.auth.traceparent,
                "ts_utc": to_text(snapshot.release_us),
            }
        )

    def _payload(self, snapshot: Snapshot) -> tuple[bytes, dict[str, Any]]:
        """(snapshot_hash as bytes, payload): the hash covers what replays, so no offsets and no merged position."""
        auth = snapshot.auth
        replayed = _replayed(snapshot)
        digest = hashlib.sha256(orjson.dumps({**replayed, "source_event_id": auth.event_id}, option=_SORTED)).digest()
        payload = {
            **replayed,
            "context_offsets": self._context_offsets(snapshot),
            "merged_n": snapshot.merged_n,
            "snapshot_hash": digest.hex(),
            "source_event": {
                "event_id": auth.event_id,
                "origin": self._offset(topics.TRAFFIC, auth.offset),
            },
        }
        return digest, dict(sorted(payload.items()))

    def _context_offsets(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        parts = (
            (topics.ARRIVAL_EVENTS, snapshot.arrival),
            (topics.ARRIVAL_ENTITIES, snapshot.entities),
            (topics.FLOW_ANCHOR, snapshot.anchor),
        )
        return [self._offset(topic, part.offset) for topic, part in parts if part is not None]

    def _offset(self, topic: str, offset: int) -> dict[str, Any]:
        return {"offset": offset, "partition": self._part, "topic": topic}


_SORTED = orjson.OPT_SORT_KEYS


def _replayed(snapshot: Snapshot) -> dict[str, Any]:
    """The fields of `derive.SNAPSHOT_FIELDS`."""
    auth, anchor, arrival, entities = snapshot.auth, snapshot.anchor, snapshot.arrival, snapshot.entities
    return {
        "account_id": anchor.account_id if anchor else None,
        "amount_minor": auth.amount_minor,
        "channel": arrival.channel if arrival else None,
        "currency": auth.currency,
        "degrade_reasons": list(snapshot.reasons),
        "device_id": entities.device_id if entities else None,
        "event_us": auth.ts_us,
        "feature_schema_digest": CORE_V1.schema_digest,
        "feature_vector": vector_text(snapshot.vector),
        "flow_id": auth.flow_id,
        "instrument_id": entities.instrument_id if entities else anchor.instrument_id if anchor else None,
        "join_status": (JoinStatus.DEGRADED if snapshot.reasons else JoinStatus.READY).value,
        "merchant_id": auth.merchant_id,
        "release_us": snapshot.release_us,
    }
