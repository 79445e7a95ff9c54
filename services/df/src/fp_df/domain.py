"""Deciding one payment: its snapshot, its account's history and the policy to a decision. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fp_contracts import derive
from fp_contracts.reasons import Action, Degrade, Posture
from fp_contracts.timestamps import US_PER_DAY
from fp_df import ids
from fp_df.policy import Policy, decide, escalates, silent, stronger
from fp_df.snapshot import Snapshot
from fp_features import CORE_V1, AccountState

INTENTS: Mapping[Action, str] = {
    Action.STEP_UP: "REQUEST_STEP_UP",
    Action.REVIEW: "HOLD_FOR_REVIEW",
    Action.BLOCK: "BLOCK_PAYMENT",
}

SCHEMA_MISMATCH = "FEATURE_SCHEMA_MISMATCH"
FACTS = (*CORE_V1.names, "degraded")
"""What rules may ask for."""
NO_REASONS: tuple[str, ...] = ()
_PLACES = {name: place for place, name in enumerate(FACTS)}


@dataclass(frozen=True, slots=True)
class Switch:
    """A policy in force from an event time (µs of the merge order) on."""

    effective_us: int
    policy: Policy


class Decided(NamedTuple):
    """One decision. `vector` is the whole feature vector; `action_id` is None when nothing is to be done."""

    decision_id: str
    snapshot: Snapshot
    vector: tuple[float, ...]
    action: Action
    reasons: tuple[str, ...]
    posture: Posture
    policy_rev: str
    action_id: str | None
    escalated: bool


def policy_at(switches: Sequence[Switch], order_us: int) -> Policy:
    """The policy in force at a place in the merge order; `switches` ascend and the first holds from the beginning."""
    for switch in reversed(switches):
        if switch.effective_us <= order_us:
            return switch.policy
    raise ValueError(f"no policy holds at {order_us}")


def full_vector(snapshot: Snapshot, account: AccountState, order_us: int) -> tuple[float, ...]:
    """Take a payment into its account's state, then its whole vector: the snapshot's part, then the account's part."""
    account.update(snapshot.payment, order_us)
    return snapshot.vector + CORE_V1.account_values(snapshot.payment, account)


def judge(
    schema_digest: str, degrade_reasons: Sequence[str], vector: Sequence[float], policy: Policy
) -> tuple[Action, tuple[str, ...], Posture]:
    """Action, reasons and posture of a payment. No model decides yet: GUARDRAILS_ONLY, and it says so."""
    if schema_digest != CORE_V1.schema_digest:
        return Action.BLOCK, (SCHEMA_MISMATCH,), Posture.FAIL_CLOSED
    values = (*vector, 1.0 if degrade_reasons else 0.0)
    if len(values) == len(FACTS) and silent(policy, _PLACES, values):
        action, reasons = Action.ALLOW, NO_REASONS
    else:
        action, reasons = decide(policy, dict(zip(FACTS, values, strict=True)))
    if degrade_reasons:
        # Unknown is never approval: a payment whose parts did not come is at least stepped up.
        action = stronger(action, Action.STEP_UP)
        return action, (*reasons, *degrade_reasons, Degrade.MODEL_MISSING.value), Posture.DEGRADED_CONTEXT
    return action, (*reasons, Degrade.MODEL_MISSING.value), Posture.GUARDRAILS_ONLY


def make_decision(run: str, snapshot: Snapshot, vector: tuple[float, ...], policy: Policy) -> Decided:
    """The decision on one payment; a pure function of the snapshot, the whole feature vector and the policy."""
    action, reasons, posture = judge(snapshot.schema_digest, snapshot.degrade_reasons, vector, policy)
    decision_id = ids.decision_id(run, snapshot.event_id, snapshot.origin)
    kind = INTENTS.get(action)
    action_id = None if kind is None else derive.action_id(decision_id, kind)
    return Decided(
        decision_id, snapshot, vector, action, reasons, posture, policy.policy_rev, action_id, escalates(policy, action)
    )  # fmt: skip


def trigger_of(run: str, decided: Decided) -> dict[str, Any]:
    """The CaseTrigger payload of an escalated decision; one case per account and day of event time."""
    snapshot = decided.snapshot
    payment = snapshot.payment
    case_id = derive.case_id(run, "traffic_fraud", case_subject(snapshot))
    return {
        "case_id": case_id,
        "trigger_id": derive.trigger_id(case_id, "DECISION_ESCALATION", decided.decision_id),
        "trigger_type": "DECISION_ESCALATION",
        "decision_id": decided.decision_id,
        "source_event_id": snapshot.event_id,
        "flow_id": snapshot.flow_id,
        "account_id": snapshot.account_id,
        "merchant_id": payment.merchant_id,
        "event_us": payment.ts_us,
        "amount_minor": payment.amount_minor,
        "currency": snapshot.currency,
        "action": decided.action.value,
        "reason_codes": decided.reasons,
        "intents": int(decided.action_id is not None),
    }


def case_subject(snapshot: Snapshot) -> str:
    """What a case is about: all escalations of one account on one UTC day; a payment of its own without an account."""
    if snapshot.account_id is None:
        return snapshot.event_id
    return f"{snapshot.account_id}|{snapshot.payment.ts_us // US_PER_DAY}"
