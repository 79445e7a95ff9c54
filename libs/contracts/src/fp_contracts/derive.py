"""Recipes of derived ids and hashes: one place, so that a replay gives the same ones (contracts.md §4)."""

import binascii
from typing import Any

from fp_contracts.canonical import digest_of
from fp_contracts.ids import h32


def decision_id(run: str, source_event_id: str, bundle_ref: str | None, origin: tuple[str, int, int]) -> str:
    """H32(source identity, bundle_ref, origin offset)."""
    topic, partition, offset = origin
    return h32("decision", run, "traffic_fraud", source_event_id, bundle_ref or "", topic, str(partition), str(offset))


def action_id(of_decision: str, kind: str) -> str:
    """One action per (decision, kind)."""
    return h32("action", of_decision, kind)


def case_id(run: str, event_class: str, event_id: str) -> str:
    """case_id = H32(run, event_class, event_id)."""
    return h32("case", run, event_class, event_id)


def trigger_id(of_case: str, trigger_type: str, cause: str) -> str:
    """One trigger per (case, type, cause)."""
    return h32("trigger", of_case, trigger_type, cause)


def assertion_id(
    run: str, event_id: str, label_type: str, source: str, actor: str, value: str, observed_us: int
) -> str:
    """One label assertion per (payment, type, source, actor, value, time observed)."""
    return h32("label", run, event_id, label_type, source, actor, value, str(observed_us))


def vector_text(packed: bytes) -> str:
    """Packed little-endian float64 to base64 text."""
    return binascii.b2a_base64(packed, newline=False).decode()


def vector_bytes(text: str) -> bytes:
    """base64 text back to packed float64; ValueError when it is not base64."""
    return binascii.a2b_base64(text, strict_mode=True)


# What R3 compares between two runs of a world (dataflow.md §8): inclusion lists, no offsets, run ids or clocks.
SNAPSHOT_FIELDS = (
    "flow_id", "account_id", "merchant_id", "release_us", "event_us", "amount_minor", "currency", "channel",
    "instrument_id", "device_id", "join_status", "degrade_reasons", "feature_schema_digest", "feature_vector",
)  # fmt: skip
DECISION_FIELDS = (
    "flow_id", "account_id", "merchant_id", "event_us", "amount_minor", "currency", "action", "score",
    "reason_codes", "posture", "bundle_ref", "policy_rev", "snapshot_hash", "feature_vector",
)  # fmt: skip
TRIGGER_FIELDS = (
    "trigger_type", "source_event_id", "flow_id", "account_id", "merchant_id", "event_us", "amount_minor", "currency",
    "action", "reason_codes",
)  # fmt: skip
LABEL_FIELDS = ("label_type", "label_value", "effective_us", "observed_us", "source", "actor")


def snapshot_hash(payload: dict[str, Any], source_event_id: str) -> str:
    """Digest of a snapshot over what replays (no offsets, run id, epoch, watermark or clock)."""
    return digest_of({"source_event_id": source_event_id, **{name: payload[name] for name in SNAPSHOT_FIELDS}})


def content_fingerprint(fields: tuple[str, ...], payload: dict[str, Any], subject: str) -> str:
    """Digest over a named field list; `subject` is the world event id the record speaks of."""
    return digest_of({"subject": subject, **{name: payload[name] for name in fields}})


def multiset_digest(fingerprints: list[str]) -> str:
    """One digest of many fingerprints regardless of their order (a multiset)."""
    return digest_of(sorted(fingerprints))
