"""Deciding one partition: snapshots in merged order to decisions, audit links and case triggers. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fp_contracts import derive
from fp_contracts.downstream import AuditRecord, CaseTrigger, Decision, FeatureSnapshot, Intent, Offset
from fp_contracts.reasons import Action, Degrade, Posture
from fp_df import audit
from fp_df.policy import Policy, decide, escalates, stronger
from fp_features import CORE_V1, AccountState, Payment, pack, unpack

INTENTS: Mapping[Action, str] = {
    Action.STEP_UP: "REQUEST_STEP_UP",
    Action.REVIEW: "HOLD_FOR_REVIEW",
    Action.BLOCK: "BLOCK_PAYMENT",
}

JOIN_REASONS = frozenset({Degrade.JOIN_TIMEOUT, Degrade.WINDOW_END, Degrade.FLOW_REBIND})


@dataclass(frozen=True, slots=True)
class Switch:
    """A policy in force from an event time (µs of the merge order) on."""

    effective_us: int
    policy: Policy


@dataclass(frozen=True, slots=True)
class Decided:
    """Everything that one payment's decision brings about."""

    decision: Decision
    audit: AuditRecord
    trigger: CaseTrigger | None


def policy_at(switches: Sequence[Switch], order_us: int) -> Policy:
    """The policy in force at a place in the merge order; `switches` ascend and the first holds from the beginning."""
    return next(switch.policy for switch in reversed(switches) if switch.effective_us <= order_us)


def apply_payment(account: AccountState, snapshot: FeatureSnapshot, order_us: int) -> Payment:
    """Take a payment into its account's state; the only way in which state changes, deciding or re-feeding."""
    payment = Payment(
        snapshot.event_us, snapshot.amount_minor, snapshot.channel, snapshot.merchant_id, snapshot.instrument_id,
        snapshot.device_id,
    )  # fmt: skip
    account.update(payment, order_us)
    return payment


def full_vector(snapshot: FeatureSnapshot, payment: Payment, account: AccountState) -> tuple[float, ...]:
    """The whole feature vector: the snapshot's part as it came, then the account's part."""
    return (*unpack(derive.vector_bytes(snapshot.feature_vector)), *CORE_V1.account_values(payment, account))


def judge(
    schema_digest: str, degrade_reasons: Sequence[str], vector: Sequence[float], policy: Policy
) -> tuple[Action, tuple[str, ...], Posture]:
    """Action, reasons and posture of a payment. No model decides yet: GUARDRAILS_ONLY, and it says so."""
    if schema_digest != CORE_V1.schema_digest:
        return Action.BLOCK, ("FEATURE_SCHEMA_MISMATCH",), Posture.FAIL_CLOSED
    facts = dict(zip(CORE_V1.names, vector, strict=True)) | {"degraded": float(bool(degrade_reasons))}
    action, reasons = decide(policy, facts)
    if degrade_reasons:
        # Unknown is never approval: a payment whose parts did not come is at least stepped up.
        action = stronger(action, Action.STEP_UP)
        return action, (*reasons, *degrade_reasons, Degrade.MODEL_MISSING), Posture.DEGRADED_CONTEXT
    return action, (*reasons, Degrade.MODEL_MISSING), Posture.GUARDRAILS_ONLY


def make_decision(
    run: str, snapshot: FeatureSnapshot, at: Offset, payment: Payment, account: AccountState, policy: Policy
) -> Decision:
    """The decision on one payment; a pure function of the snapshot, the account's history and the policy."""
    vector = full_vector(snapshot, payment, account)
    action, reasons, posture = judge(snapshot.feature_schema_digest, snapshot.degrade_reasons, vector, policy)
    source = snapshot.source_event
    origin = (source.origin.topic, source.origin.partition, source.origin.offset)
    decision_id = derive.decision_id(run, source.event_id, None, origin)
    return Decision(
        decision_id=decision_id,
        source_event=source,
        flow_id=snapshot.flow_id,
        account_id=snapshot.account_id,
        merchant_id=snapshot.merchant_id,
        event_us=snapshot.event_us,
        amount_minor=snapshot.amount_minor,
        currency=snapshot.currency,
        action=action.value,
        score=None,
        reason_codes=tuple(str(reason) for reason in reasons),
        posture=posture.value,
        bundle_ref=None,
        policy_rev=policy.policy_rev,
        snapshot_hash=snapshot.snapshot_hash,
        feature_vector=derive.vector_text(pack(vector)),
        snapshot_offset=at,
        intents=_intents(decision_id, action),
    )


def _intents(decision_id: str, action: Action) -> tuple[Intent, ...]:
    kind = INTENTS.get(action)
    if kind is None:
        return ()
    action_id = derive.action_id(decision_id, kind)
    return (Intent(action_id=action_id, kind=kind, idempotency_key=action_id, origin="DF"),)  # type: ignore[arg-type]


def fingerprint(decision: Decision) -> str:
    """What R3 compares of a decision."""
    return derive.content_fingerprint(
        derive.DECISION_FIELDS, decision.model_dump(mode="json"), decision.source_event.event_id
    )


def decided_link(
    run: str, chain: str, chain_seq: int, prev_hash: str, decision: Decision, content_fingerprint: str
) -> AuditRecord:
    """The DECIDED audit record of a decision."""
    fields = {
        "kind": "DECIDED",
        "decision_id": decision.decision_id,
        "action_id": None,
        "source_event": decision.source_event.model_dump(mode="json"),
        "snapshot_hash": decision.snapshot_hash,
        "policy_rev": decision.policy_rev,
        "bundle_ref": decision.bundle_ref,
        "content_fingerprint": content_fingerprint,
    }
    return audit.link(run, chain, chain_seq, prev_hash, fields)


def trigger_of(run: str, decision: Decision, policy: Policy) -> CaseTrigger | None:
    """The case trigger of a decision that the policy escalates; one case per account and day of event time."""
    if not escalates(policy, Action(decision.action)):
        return None
    case_id = derive.case_id(run, "traffic_fraud", case_subject(decision))
    return CaseTrigger(
        case_id=case_id,
        trigger_id=derive.trigger_id(case_id, "DECISION_ESCALATION", decision.decision_id),
        trigger_type="DECISION_ESCALATION",
        decision_id=decision.decision_id,
        source_event_id=decision.source_event.event_id,
        flow_id=decision.flow_id,
        account_id=decision.account_id,
        merchant_id=decision.merchant_id,
        event_us=decision.event_us,
        amount_minor=decision.amount_minor,
        currency=decision.currency,
        action=decision.action,
        reason_codes=decision.reason_codes,
        intents=len(decision.intents),
    )


def case_subject(decision: Decision) -> str:
    """What a case is about: all escalations of one account on one UTC day; a payment of its own without an account."""
    if decision.account_id is None:
        return decision.source_event.event_id
    return f"{decision.account_id}|{decision.event_us // 86_400_000_000}"
