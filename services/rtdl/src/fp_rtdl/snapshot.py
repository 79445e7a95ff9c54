"""A snapshot as the record it is published as. Pure: equal snapshots give equal bytes, whoever writes them.

Canonical JSON is put together from fragments in key order, which costs a quarter of dictionaries and sorting; tests
hold the bytes to `fp_contracts.records.body_of` and the hash to `fp_contracts.derive.snapshot_hash`.
"""

import hashlib
from functools import lru_cache

import orjson

from fp_contracts import topics
from fp_contracts.derive import vector_text
from fp_contracts.envelope import SCHEMA_VERSION
from fp_contracts.header import Kind, pack_plain
from fp_contracts.ids import framed, run_tag
from fp_contracts.partition import partition_of
from fp_contracts.reasons import JoinStatus
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_text
from fp_features import CORE_V1
from fp_rtdl.domain import Snapshot
from fp_runtime.bus import Out

PRODUCER = "rtdl"
_READY, _DEGRADED = JoinStatus.READY.value, JoinStatus.DEGRADED.value
_CONTEXT = (topics.ARRIVAL_EVENTS, topics.ARRIVAL_ENTITIES, topics.FLOW_ANCHOR)


def source_of(part: int) -> str:
    """The source name of the snapshots of an ingress partition."""
    return f"rtdl:{part}"


class SnapshotWriter:
    """Writes the snapshots of one partition to so many `targets`; `seqs` is the last sequence of each, dense from 1."""

    def __init__(self, pins: Pins, part: int, targets: int) -> None:
        self.seqs = [0] * targets
        self._targets = targets
        self.source = source_of(part)
        self._source = self.source.encode()
        self._tails = {topic: f'"partition":{part},"topic":"{topic}"}}' for topic in topics.INGRESS}
        self._traffic = self._tails[topics.TRAFFIC]
        self._schema = f'"feature_schema_digest":"{CORE_V1.schema_digest}","feature_vector":"'
        self._world = f'"manifest_fingerprint":"{pins.manifest_fingerprint}",'
        self._run = (
            f'"platform_run_id":"{pins.platform_run_id}","producer":"{PRODUCER}",'
            f'"run_config_digest":"{pins.run_config_digest}","scenario_run_id":"{pins.scenario_run_id}",'
            f'"schema_version":"{SCHEMA_VERSION}",'
        )
        self._tag = run_tag(pins.platform_run_id)
        self._identity = framed("snapshot", pins.platform_run_id)

    def write(self, snapshot: Snapshot) -> Out:
        """The next record of its target: by account, or by flow where no anchor told the account."""
        auth, anchor = snapshot.auth, snapshot.anchor
        key = anchor.account_id if anchor else auth.flow_id
        target = partition_of(key, self._targets)
        self.seqs[target] += 1
        digest, payload = self._payload(snapshot)
        seq = self.seqs[target]
        header = pack_plain(Kind.FEATURE_SNAPSHOT, self._tag, self._source, seq, snapshot.release_us, digest)
        trace = auth.traceparent.encode() if auth.traceparent else None
        return Out(topics.RTDL, target, key.encode(), self._body(snapshot, payload), header, trace)

    def _body(self, snapshot: Snapshot, payload: str) -> bytes:
        source = snapshot.auth.event_id.encode()
        event_id = hashlib.sha256(self._identity + len(source).to_bytes(4, "big") + source).hexdigest()[:32]
        return (
            f'{{"event_id":"{event_id}","event_type":"feature_snapshot",{self._world}"payload":{payload},{self._run}'
            f'"traceparent":{_text(snapshot.auth.traceparent)},"ts_utc":"{to_text(snapshot.release_us)}"}}'
        ).encode()

    def _payload(self, snapshot: Snapshot) -> tuple[bytes, str]:
        """(snapshot_hash as bytes, payload): the hash covers what replays, so no offsets and no merged position."""
        auth, anchor, arrival, entities = snapshot.auth, snapshot.anchor, snapshot.arrival, snapshot.entities
        instrument = entities.instrument_id if entities else anchor.instrument_id if anchor else None
        head = (
            f'{{"account_id":{_name(anchor.account_id if anchor else None)},"amount_minor":{auth.amount_minor},'
            f'"channel":{_name(arrival.channel if arrival else None)},'
        )
        body = (
            f'"currency":"{auth.currency}","degrade_reasons":[{_list(snapshot.reasons)}],'
            f'"device_id":{_name(entities.device_id if entities else None)},"event_us":{auth.ts_us},'
            f'{self._schema}{vector_text(snapshot.vector)}",'
            f'"flow_id":{_text(auth.flow_id)},"instrument_id":{_name(instrument)},'
            f'"join_status":"{_DEGRADED if snapshot.reasons else _READY}","merchant_id":{_name(auth.merchant_id)},'
        )
        release, event_id = f'"release_us":{snapshot.release_us},', _text(auth.event_id)
        digest = hashlib.sha256(f'{head}{body}{release}"source_event_id":{event_id}}}'.encode())
        payload = (
            f'{head}"context_offsets":[{self._context_offsets(snapshot)}],{body}"merged_n":{snapshot.merged_n},{release}'
            f'"snapshot_hash":"{digest.hexdigest()}","source_event":{{"event_id":{event_id},'
            f'"origin":{{"offset":{auth.offset},{self._traffic}}}}}'
        )
        return digest.digest(), payload

    def _context_offsets(self, snapshot: Snapshot) -> str:
        parts = zip(_CONTEXT, (snapshot.arrival, snapshot.entities, snapshot.anchor), strict=True)
        tails = self._tails
        return ",".join([f'{{"offset":{part.offset},{tails[topic]}' for topic, part in parts if part is not None])


def _text(value: str | None) -> str:
    """A string or null as JSON."""
    return orjson.dumps(value).decode()


_name = lru_cache(maxsize=65_536)(_text)  # for what comes again: merchants, accounts and what belongs to them


def _list(codes: tuple[str, ...]) -> str:
    """Reason codes as JSON items; they need no escapes."""
    return ",".join(f'"{code}"' for code in codes)
