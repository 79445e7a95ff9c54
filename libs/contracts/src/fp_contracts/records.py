"""Record bodies: the registry event_type -> payload model, and how a body is built and read."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from fp_contracts import control, downstream
from fp_contracts.canonical import trusted_bytes
from fp_contracts.envelope import Envelope
from fp_contracts.ids import h32
from fp_contracts.ingress import INGRESS_TYPES
from fp_contracts.timestamps import to_text

CONTROL_ADAPTER: TypeAdapter[control.ControlPayload] = TypeAdapter(control.ControlPayload)
DERIVED_TYPES: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "feature_snapshot": downstream.FeatureSnapshot,
        "decision": downstream.Decision,
        "action_outcome": downstream.ActionOutcome,
        "audit_record": downstream.AuditRecord,
        "case_trigger": downstream.CaseTrigger,
        "label_assertion": downstream.LabelAssertion,
    }
)
CONTROL_MODELS: tuple[type[BaseModel], ...] = get_args(get_args(control.ControlPayload)[0])
CONTROL_TYPES: tuple[str, ...] = tuple(sorted(model.model_fields["type"].default for model in CONTROL_MODELS))


class RecordError(ValueError):
    """A body that breaks its contract."""


@dataclass(frozen=True, slots=True)
class Pins:
    """What every envelope of a run carries."""

    platform_run_id: str
    scenario_run_id: str
    manifest_fingerprint: str
    run_config_digest: str


def body_of(
    pins: Pins,
    event_type: str,
    event_id: str,
    ts_us: int,
    producer: str,
    payload: BaseModel,
    traceparent: str | None = None,
) -> bytes:
    """A record body as canonical JSON bytes: equal facts give equal bytes."""
    return trusted_bytes(
        {
            "event_id": event_id,
            "event_type": event_type,
            "schema_version": "v1",
            "ts_utc": to_text(ts_us),
            "platform_run_id": pins.platform_run_id,
            "scenario_run_id": pins.scenario_run_id,
            "manifest_fingerprint": pins.manifest_fingerprint,
            "run_config_digest": pins.run_config_digest,
            "producer": producer,
            "traceparent": traceparent,
            "payload": payload.model_dump(mode="json"),
        }
    )


def read_envelope(body: bytes) -> Envelope:
    """A body as Envelope; unknown fields are ignored (tolerant consumer). RecordError when it breaks the contract."""
    try:
        return Envelope.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        raise RecordError(_first(error)) from error


def read_derived(body: bytes) -> tuple[Envelope, Any]:
    """A derived record as (Envelope, payload model); RecordError for an unknown type or a broken payload."""
    envelope = read_envelope(body)
    model = DERIVED_TYPES.get(envelope.event_type)
    if model is None:
        raise RecordError(f"unknown event_type {envelope.event_type[:60]}")
    try:
        # JSON mode: tuples and enums arrive as arrays and text.
        return envelope, model.model_validate_json(orjson.dumps(envelope.payload), extra="ignore")
    except ValidationError as error:
        raise RecordError(_first(error)) from error


def read_control(body: bytes) -> tuple[Envelope, control.ControlPayload]:
    """A control record as (Envelope, payload)."""
    envelope = read_envelope(body)
    try:
        return envelope, CONTROL_ADAPTER.validate_json(orjson.dumps(envelope.payload), extra="ignore")
    except ValidationError as error:
        raise RecordError(_first(error)) from error


def control_event_id(platform_run_id: str, payload: control.ControlPayload, *salt: str) -> str:
    """Derived identity of a control event: (run, type, salt); the salt names what may happen once."""
    return h32("control", platform_run_id, payload.type, *salt)


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"[:200]


__all__ = [
    "CONTROL_TYPES", "DERIVED_TYPES", "INGRESS_TYPES", "Pins", "RecordError", "body_of", "control_event_id",
    "read_control", "read_derived", "read_envelope",
]  # fmt: skip
