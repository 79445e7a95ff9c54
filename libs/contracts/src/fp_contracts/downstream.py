"""Payloads of derived records on rtdl, audit, case triggers and labels (contracts.md §4)."""

from typing import Literal

from fp_contracts.envelope import Closed, Currency, Hex32, Hex64, Id, Minor, RunId, Text, TextId, TimeUs
from fp_contracts.ingress import Channel


class Offset(Closed):
    """Where a fact was first admitted: immutable evidence (law 7)."""

    topic: str
    partition: int
    offset: int


class SourceEvent(Closed):
    """The AUTH_REQUEST a snapshot or decision answers."""

    event_id: Id
    origin: Offset


class FeatureSnapshot(Closed):
    """All parts of one payment joined, with the merchant features; vectors are base64 little-endian float64."""

    flow_id: Id
    account_id: Id | None
    merchant_id: Id
    release_us: TimeUs
    merged_n: int
    event_us: TimeUs
    amount_minor: Minor
    currency: Currency
    channel: Channel | None
    instrument_id: Id | None
    device_id: Id | None
    source_event: SourceEvent
    context_offsets: tuple[Offset, ...]
    join_status: Literal["READY", "DEGRADED"]
    degrade_reasons: tuple[str, ...]
    feature_schema_digest: Hex64
    feature_vector: str
    snapshot_hash: Hex64


class Intent(Closed):
    """One action a decision asks for; executed exactly once by its idempotency key."""

    action_id: Hex32
    kind: Literal["BLOCK_PAYMENT", "HOLD_FOR_REVIEW", "REQUEST_STEP_UP"]
    idempotency_key: Id
    origin: Literal["DF", "CASE", "HUMAN"]


class ShadowScore(Closed):
    """What the challenger said of a payment, never acted upon. `action`: what its own thresholds ask for.

    Without a score there is a reason: CHALLENGER_ERRORED, none for this payment; CHALLENGER_UNUSABLE, it cannot serve.
    """

    bundle_ref: Id
    score: str | None
    action: Literal["ALLOW", "STEP_UP", "REVIEW", "BLOCK"] | None
    reason: Literal["CHALLENGER_ERRORED", "CHALLENGER_UNUSABLE"] | None


class Decision(Closed):
    """One decision with its intents and everything it rested on."""

    decision_id: Hex32
    source_event: SourceEvent
    flow_id: Id
    account_id: Id | None
    merchant_id: Id
    event_us: TimeUs
    amount_minor: Minor
    currency: Currency
    action: Literal["ALLOW", "STEP_UP", "REVIEW", "BLOCK"]
    score: str | None
    reason_codes: tuple[str, ...]
    posture: Literal["NORMAL", "DEGRADED_CONTEXT", "GUARDRAILS_ONLY", "FAIL_CLOSED"]
    bundle_ref: str | None
    shadow: tuple[ShadowScore, ...] = ()
    policy_rev: str
    snapshot_hash: Hex64
    feature_vector: str
    snapshot_offset: Offset
    supersedes: Hex32 | None = None
    intents: tuple[Intent, ...]


class ActionOutcome(Closed):
    """How one intent ended."""

    action_id: Hex32
    decision_id: Hex32
    account_id: Id | None
    flow_id: Id
    source_event_id: Id
    kind: str
    idempotency_key: Id
    origin: Literal["DF", "CASE", "HUMAN"]
    status: Literal["EXECUTED", "DENIED", "FAILED", "UNCERTAIN"]
    attempts: int
    reason: str | None


class AuditRecord(Closed):
    """One link of an audit chain; there is one chain per (kind, rtdl partition)."""

    audit_id: Hex32
    kind: Literal["DECIDED", "OUTCOME"]
    chain: str
    chain_seq: int
    decision_id: Hex32
    action_id: Hex32 | None
    source_event: SourceEvent
    snapshot_hash: Hex64 | None
    policy_rev: str | None
    bundle_ref: str | None
    content_fingerprint: Hex64
    prev_hash: Hex64
    record_hash: Hex64


class CaseTrigger(Closed):
    """A decision (or another signal) that a case must look at."""

    case_id: Hex32
    trigger_id: Hex32
    trigger_type: Literal["DECISION_ESCALATION", "ACTION_FAILURE", "ANOMALY", "EXTERNAL_SIGNAL", "MANUAL_ASSERTION"]
    decision_id: Hex32 | None
    source_event_id: Id
    flow_id: Id
    account_id: Id | None
    merchant_id: Id
    event_us: TimeUs
    amount_minor: Minor
    currency: Currency
    action: str
    reason_codes: tuple[str, ...]
    intents: int


class LabelSubject(Closed):
    """Which payment a label speaks of."""

    platform_run_id: RunId
    event_id: TextId
    merchant_id: TextId
    account_id: TextId | None


class LabelAssertion(Closed):
    """What somebody knows of a payment; insert-only, a correction is a new assertion."""

    assertion_id: Hex32
    subject: LabelSubject
    label_type: Literal["fraud_disposition", "chargeback_status", "account_takeover"]
    label_value: Text
    effective_us: TimeUs
    observed_us: TimeUs
    source: Literal["HUMAN", "EXTERNAL", "AUTO"]
    actor: TextId
    evidence_refs: tuple[Text, ...] = ()


FRAUD_DISPOSITIONS = ("FRAUD_CONFIRMED", "FRAUD_SUSPECTED", "LEGIT_CONFIRMED")
SOURCE_RANK = {"AUTO": 1, "EXTERNAL": 2, "HUMAN": 3}
