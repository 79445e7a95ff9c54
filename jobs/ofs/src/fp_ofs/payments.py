"""Payments as their snapshots must have said them: the facts of a build, and the hash that rtdl should have written."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from fp_contracts.canonical import trusted_bytes
from fp_contracts.derive import SNAPSHOT_FIELDS, vector_text
from fp_contracts.reasons import JoinStatus
from fp_ofs.features import schema_of
from fp_ofs.join import Released, Step

FACTS = schema_of(
    {
        "lane": "int32", "n": "int64", "event_id": "string", "flow_id": "string", "account_id": "string",
        "merchant_id": "string", "event_us": "int64", "release_us": "int64", "amount_minor": "int64",
        "currency": "string", "channel": "string", "instrument_id": "string", "device_id": "string", "mcc": "string",
        "country": "string", "reasons": "string",
    }
)  # fmt: skip
FLOAT_BYTES = 8


def fact_table(lane: int, steps: Iterable[Step]) -> pa.Table:
    """The payments among a lane's steps (schema FACTS); `reasons` are joined by commas."""
    rows = [_fact(lane, n, step) for n, step in enumerate(steps) if isinstance(step, Released)]
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(FACTS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, FACTS, strict=True)]
    return pa.table(arrays, schema=FACTS)


def _fact(lane: int, n: int, step: Released) -> tuple[object, ...]:
    auth, anchor, arrival, entities = step.auth, step.anchor, step.arrival, step.entities
    return (
        lane, n, auth.event_id, auth.flow_id, anchor.account_id if anchor else None, auth.merchant_id, auth.ts_us,
        step.release_us, auth.amount_minor, auth.currency, arrival.channel if arrival else None, step.instrument_id,
        entities.device_id if entities else None, arrival.mcc if arrival else None,
        arrival.country if arrival else None, ",".join(step.reasons),
    )  # fmt: skip


def expected_hash(fact: dict[str, Any], snapshot_vector: bytes, schema_digest: str) -> str:
    """The snapshot_hash (hex64) that a snapshot equal to this payment must carry.

    Same recipe as `fp_contracts.derive.snapshot_hash`; a test holds them together.
    """
    reasons = fact["reasons"].split(",") if fact["reasons"] else []
    known = {
        **fact,
        "join_status": (JoinStatus.DEGRADED if reasons else JoinStatus.READY).value,
        "degrade_reasons": reasons,
        "feature_schema_digest": schema_digest,
        "feature_vector": vector_text(snapshot_vector),
    }
    doc = {name: known[name] for name in SNAPSHOT_FIELDS}
    return hashlib.sha256(trusted_bytes({"source_event_id": fact["event_id"], **doc})).hexdigest()
