"""Assertions, triggers and outcomes by the contract; a plan of one run."""

from collections.abc import Callable
from typing import Any

import pytest

from fp_cm_ls.plan import RunPlan
from fp_contracts import derive
from fp_contracts.downstream import ActionOutcome, CaseTrigger, LabelAssertion, LabelSubject
from fp_contracts.ids import h32, run_tag
from fp_contracts.records import Pins

RUN = "platform_20260101T000000Z"
PINS = Pins(RUN, "b" * 32, "a" * 64, "c" * 64)
END_US = 1_000_000


@pytest.fixture
def plan() -> RunPlan:
    return RunPlan(PINS, run_tag(RUN), {}, label_delay_us=10, window_end_us=END_US, label_parts=3)


@pytest.fixture
def assertion() -> Callable[..., LabelAssertion]:
    """assertion(event_id="e1", **changes): its id is the derived one unless given."""

    def make(event_id: str = "e1", run: str = RUN, merchant: str = "m1", **changes: Any) -> LabelAssertion:
        fields: dict[str, Any] = {
            "label_type": "fraud_disposition", "label_value": "FRAUD_CONFIRMED", "effective_us": 5, "observed_us": 9,
            "source": "EXTERNAL", "actor": "adjudicator",
        } | changes  # fmt: skip
        known = [fields[name] for name in ("label_type", "source", "actor", "label_value", "observed_us")]
        subject = LabelSubject(platform_run_id=run, event_id=event_id, merchant_id=merchant, account_id="a1")
        derived: dict[str, Any] = {"assertion_id": derive.assertion_id(run, event_id, *known)}
        return LabelAssertion(subject=subject, **(derived | fields))

    return make


@pytest.fixture
def trigger() -> Callable[..., CaseTrigger]:
    def make(event_id: str = "e1", case: str = "c1", kind: Any = "DECISION_ESCALATION") -> CaseTrigger:
        return CaseTrigger(
            case_id=h32(case), trigger_id=h32("t", event_id, kind), trigger_type=kind, decision_id=h32("d", event_id),
            source_event_id=event_id, flow_id="f1", account_id="a1", merchant_id="m1", event_us=5, amount_minor=700,
            currency="EUR", action="REVIEW", reason_codes=(), intents=1,
        )  # fmt: skip

    return make


@pytest.fixture
def outcome() -> Callable[..., ActionOutcome]:
    def make(event_id: str = "e1") -> ActionOutcome:
        return ActionOutcome(
            action_id=h32("o", event_id), decision_id=h32("d", event_id), account_id="a1", flow_id="f1",
            source_event_id=event_id, kind="HOLD_FOR_REVIEW", idempotency_key="k", origin="DF", status="EXECUTED",
            attempts=1, reason=None,
        )  # fmt: skip

    return make
