"""Deciding one payment: its snapshot, its account's history and the policy to a decision. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fp_contracts import derive
from fp_contracts.reasons import SCHEMA_MISMATCH, Action, Degrade, Posture
from fp_contracts.timestamps import US_PER_DAY
from fp_df import ids
from fp_df.policy import FACTS, Policy, decide, escalates, silent, stronger
from fp_df.snapshot import Snapshot
from fp_features import CORE_V1, AccountState

INTENTS: Mapping[Action, str] = {
    Action.STEP_UP: "REQUEST_STEP_UP",
    Action.REVIEW: "HOLD_FOR_REVIEW",
    Action.BLOCK: "BLOCK_PAYMENT",
}

SCORE_REASONS: Mapping[Action, tuple[str, ...]] = {
    Action.ALLOW: (), Action.STEP_UP: ("SCORE_STEP_UP",), Action.REVIEW: ("SCORE_REVIEW",),
    Action.BLOCK: ("SCORE_BLOCK",),
}  # fmt: skip
NO_REASONS: tuple[str, ...] = ()
_as = tuple.__new__  # a named tuple without its Python-level constructor, once per payment
_SCHEMA = CORE_V1.schema_digest


@dataclass(frozen=True, slots=True)
class Switch:
    """A policy in force from an event time (µs of the merge order) on."""

    effective_us: int
    policy: Policy


class Scored(NamedTuple):
    """What a model says of one payment: its score in [0, 1] (None = it has none) and the action that asks for."""

    score: float | None
    action: Action


class Advice(NamedTuple):
    """The model side of one decision: the bundle in force (None = guardrails only), what it says, and why not more."""

    bundle_ref: str | None
    scored: Scored | None
    reason: str | None


GUARDRAILS = Advice(None, None, Degrade.MODEL_MISSING.value)
_BY_GUARDRAILS = Action.ALLOW, (Degrade.MODEL_MISSING.value,), Posture.GUARDRAILS_ONLY


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
    bundle_ref: str | None
    score: float | None


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
    schema_digest: str, degrade_reasons: Sequence[str], vector: Sequence[float], policy: Policy,
    advice: Advice = GUARDRAILS,
) -> tuple[Action, tuple[str, ...], Posture]:  # fmt: skip
    """Action, reasons and posture of a payment: of guardrails and model the stronger action wins."""
    if schema_digest != _SCHEMA:
        return Action.BLOCK, (SCHEMA_MISMATCH,), Posture.FAIL_CLOSED
    values = (*vector, 1.0 if degrade_reasons else 0.0)
    if len(values) == len(FACTS) and silent(policy, values):
        action, reasons = Action.ALLOW, NO_REASONS
    else:
        action, reasons = decide(policy, dict(zip(FACTS, values, strict=True)))
    asked, codes, posture = _BY_GUARDRAILS if advice is GUARDRAILS else _by_model(policy, advice)
    if asked is not Action.ALLOW:
        action = stronger(action, asked)
    if degrade_reasons:
        # Unknown is never approval: a payment whose parts did not come is at least stepped up.
        action = stronger(action, Action.STEP_UP)
        if posture is not Posture.FAIL_CLOSED:
            posture = Posture.DEGRADED_CONTEXT
        return action, (*reasons, *degrade_reasons, *codes), posture
    return action, (*reasons, *codes), posture


def _by_model(policy: Policy, advice: Advice) -> tuple[Action, tuple[str, ...], Posture]:
    """What the model side asks for. A model that should decide and cannot is an unknown, and so never an approval."""
    why = () if advice.reason is None else (advice.reason,)
    if advice.bundle_ref is None:
        asked = Action.STEP_UP if advice.reason == Degrade.MODEL_UNUSABLE else Action.ALLOW
        return asked, why, Posture.GUARDRAILS_ONLY
    if advice.scored is None or advice.scored.score is None:
        return Action(policy.errored_action), (Degrade.MODEL_ERRORED.value, *why), Posture.FAIL_CLOSED
    asked = advice.scored.action
    return asked, (*SCORE_REASONS[asked], *why), Posture.NORMAL


def make_decision(
    run: str, snapshot: Snapshot, vector: tuple[float, ...], policy: Policy, advice: Advice = GUARDRAILS
) -> Decided:
    """The decision on one payment; a pure function of snapshot, whole feature vector, policy and what the model says.

    Under another schema no bundle is in force: what it would say of these numbers means nothing.
    """
    schema_digest = snapshot.schema_digest
    if schema_digest != _SCHEMA:
        advice = GUARDRAILS
    action, reasons, posture = judge(schema_digest, snapshot.degrade_reasons, vector, policy, advice)
    bundle_ref, scored, _ = advice
    decision_id = ids.decision_id(run, snapshot.event_id, snapshot.origin, bundle_ref)
    kind = INTENTS.get(action)
    action_id = None if kind is None else derive.action_id(decision_id, kind)
    values = (
        decision_id, snapshot, vector, action, reasons, posture, policy.policy_rev, action_id,
        escalates(policy, action), bundle_ref, None if scored is None else scored.score,
    )  # fmt: skip
    return _as(Decided, values)


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
