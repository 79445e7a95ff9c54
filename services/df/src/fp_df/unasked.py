"""Decisions that ask for nothing, told apart without their models: all but a few in a hundred. Pure.

Strict: what passes here, the contract's models accept too (a test holds it to them). What does not pass may still be
sound; its reader is `fp_contracts.records.read_derived`.
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fp_contracts.envelope import CURRENCY
from fp_contracts.ids import HEX32, HEX64
from fp_contracts.records import Pins

_Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_Minor = Annotated[int, Meta(ge=-(2**53), le=2**53)]
_Micros = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Offset(msgspec.Struct, gc=False):
    topic: str
    partition: int
    offset: int


class _SourceEvent(msgspec.Struct, gc=False):
    event_id: _Id
    origin: _Offset


class _Decision(msgspec.Struct, gc=False):
    """fp_contracts.downstream.Decision without intents."""

    decision_id: str
    source_event: _SourceEvent
    flow_id: _Id
    account_id: _Id | None
    merchant_id: _Id
    event_us: _Micros
    amount_minor: _Minor
    currency: str
    action: Literal["ALLOW", "STEP_UP", "REVIEW", "BLOCK"]
    score: str | None
    reason_codes: tuple[str, ...]
    posture: Literal["NORMAL", "DEGRADED_CONTEXT", "GUARDRAILS_ONLY", "FAIL_CLOSED"]
    bundle_ref: str | None
    policy_rev: str
    snapshot_hash: str
    feature_vector: str
    snapshot_offset: _Offset
    intents: tuple[()]
    shadow: tuple[str, ...] = ()
    supersedes: _Hex32 | None = None


class _Body(msgspec.Struct, gc=False):
    """fp_contracts.envelope.Envelope around it."""

    event_id: _Id
    event_type: Literal["decision"]
    schema_version: Literal["v1"]
    ts_utc: str
    platform_run_id: str
    scenario_run_id: str
    manifest_fingerprint: str
    run_config_digest: str
    producer: _Id
    payload: _Decision
    traceparent: str | None = None


_decoder = msgspec.json.Decoder(_Body)
# Four patterns at one look, a quarter of what msgspec asks for them: a space is in none of them.
_are_formed = re.compile(
    rf"{HEX32.pattern} {HEX64.pattern} {CURRENCY.pattern} [0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T"
    r"[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
).fullmatch


def asks_for_nothing(body: bytes, pins: Pins) -> bool:
    """Whether a record body is a sound decision of the run with these pins, without intents; False for all else."""
    try:
        found = _decoder.decode(body)
    except msgspec.MsgspecError:
        return False
    asked = found.payload
    return (
        _are_formed(f"{asked.decision_id} {asked.snapshot_hash} {asked.currency} {found.ts_utc}") is not None
        and found.platform_run_id == pins.platform_run_id
        and found.scenario_run_id == pins.scenario_run_id
        and found.manifest_fingerprint == pins.manifest_fingerprint
        and found.run_config_digest == pins.run_config_digest
    )
