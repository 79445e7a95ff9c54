"""Decisions that ask for nothing, told apart without their models: all but a few in a hundred. Pure.

Strict: what passes here, the contract's models accept too (a test holds it to them). What does not pass may still be
sound; its reader is `fp_contracts.records.read_derived`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fp_contracts.records import Pins

_Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
_Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_Time = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")]
_Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
_Minor = Annotated[int, Meta(ge=-(2**53), le=2**53)]
_Micros = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Offset(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class _SourceEvent(msgspec.Struct):
    event_id: _Id
    origin: _Offset


class _Decision(msgspec.Struct):
    """fp_contracts.downstream.Decision without intents."""

    decision_id: _Hex32
    source_event: _SourceEvent
    flow_id: _Id
    account_id: _Id | None
    merchant_id: _Id
    event_us: _Micros
    amount_minor: _Minor
    currency: _Currency
    action: Literal["ALLOW", "STEP_UP", "REVIEW", "BLOCK"]
    score: str | None
    reason_codes: tuple[str, ...]
    posture: Literal["NORMAL", "DEGRADED_CONTEXT", "GUARDRAILS_ONLY", "FAIL_CLOSED"]
    bundle_ref: str | None
    policy_rev: str
    snapshot_hash: _Hex64
    feature_vector: str
    snapshot_offset: _Offset
    intents: tuple[()]
    shadow: tuple[str, ...] = ()
    supersedes: _Hex32 | None = None


class _Body(msgspec.Struct):
    """fp_contracts.envelope.Envelope around it."""

    event_id: _Id
    event_type: Literal["decision"]
    schema_version: Literal["v1"]
    ts_utc: _Time
    platform_run_id: str
    scenario_run_id: str
    manifest_fingerprint: str
    run_config_digest: str
    producer: _Id
    payload: _Decision
    traceparent: str | None = None


_decoder = msgspec.json.Decoder(_Body)


def asks_for_nothing(body: bytes, pins: Pins) -> bool:
    """Whether a record body is a sound decision of the run with these pins, without intents; False for all else."""
    try:
        found = _decoder.decode(body)
    except msgspec.MsgspecError:
        return False
    return (
        found.platform_run_id == pins.platform_run_id
        and found.scenario_run_id == pins.scenario_run_id
        and found.manifest_fingerprint == pins.manifest_fingerprint
        and found.run_config_digest == pins.run_config_digest
    )
