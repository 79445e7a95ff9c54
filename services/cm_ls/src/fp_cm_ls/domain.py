"""Cases as folds of their timelines: what is appended, and when something attaches (contracts.md §4). Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fp_contracts.downstream import ActionOutcome, CaseTrigger, LabelAssertion


class Kind(StrEnum):
    """Events of a case timeline."""

    CASE_TRIGGERED = "CASE_TRIGGERED"
    EVIDENCE_ATTACHED = "EVIDENCE_ATTACHED"
    ACTION_INTENT_REQUESTED = "ACTION_INTENT_REQUESTED"
    ACTION_OUTCOME_ATTACHED = "ACTION_OUTCOME_ATTACHED"
    LABEL_PENDING = "LABEL_PENDING"
    LABEL_ACCEPTED = "LABEL_ACCEPTED"
    LABEL_REJECTED = "LABEL_REJECTED"
    INVESTIGATOR_ASSERTION = "INVESTIGATOR_ASSERTION"
    ASSIGNED = "ASSIGNED"
    SNOOZED = "SNOOZED"
    NOTE = "NOTE"


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a timeline, before it has its number. (kind, ref) stands at most once in a case."""

    case_id: str
    kind: Kind
    ref: str
    event_us: int
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A case as its timeline tells it. Money in minor units."""

    case_id: str
    triggers: tuple[str, ...] = ()
    amount_minor: int = 0
    outcomes: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    assignee: str | None = None
    notes: int = 0
    n: int = 0

    @property
    def status(self) -> str:
        """OPEN until every triggered payment has a label; CLOSED then."""
        return "CLOSED" if self.triggers and len(self.labels) >= len(self.triggers) else "OPEN"


def fold(case: Case, entry: Entry) -> Case:
    """The case after one more event of its timeline."""
    case = replace(case, n=case.n + 1)
    detail = entry.detail
    match entry.kind:
        case Kind.CASE_TRIGGERED:
            amount = case.amount_minor + int(detail["amount_minor"])
            return replace(case, triggers=(*case.triggers, entry.ref), amount_minor=amount)
        case Kind.ACTION_OUTCOME_ATTACHED:
            return replace(case, outcomes={**case.outcomes, entry.ref: str(detail["status"])})
        case Kind.LABEL_ACCEPTED | Kind.INVESTIGATOR_ASSERTION:
            return replace(case, labels={**case.labels, str(detail["event_id"]): str(detail["label_value"])})
        case Kind.ASSIGNED:
            return replace(case, assignee=str(detail["assignee"]))
        case Kind.NOTE:
            return replace(case, notes=case.notes + 1)
        case (
            Kind.EVIDENCE_ATTACHED
            | Kind.ACTION_INTENT_REQUESTED
            | Kind.LABEL_PENDING
            | Kind.LABEL_REJECTED
            | Kind.SNOOZED
        ):
            return case


def fold_all(case_id: str, entries: Iterable[Entry]) -> Case:
    """A case from its whole timeline, in order."""
    case = Case(case_id)
    for entry in entries:
        case = fold(case, entry)
    return case


def triggered(trigger: CaseTrigger) -> tuple[Entry, ...]:
    """What a trigger appends: itself, and the intents that its decision asked for."""
    detail = {
        "trigger_type": trigger.trigger_type,
        "decision_id": trigger.decision_id,
        "event_id": trigger.source_event_id,
        "amount_minor": trigger.amount_minor,
        "currency": trigger.currency,
        "action": trigger.action,
        "reason_codes": list(trigger.reason_codes),
    }
    first = Entry(trigger.case_id, Kind.CASE_TRIGGERED, trigger.trigger_id, trigger.event_us, detail)
    if trigger.intents == 0 or trigger.decision_id is None:
        return (first,)
    asked = {"intents": trigger.intents, "action": trigger.action}
    return (
        first,
        Entry(trigger.case_id, Kind.ACTION_INTENT_REQUESTED, trigger.decision_id, trigger.event_us, asked),
    )


def outcome_attached(case_id: str, outcome: ActionOutcome, event_us: int) -> Entry:
    """An outcome of a decision that belongs to the case."""
    detail = {"decision_id": outcome.decision_id, "kind": outcome.kind, "status": outcome.status}
    return Entry(case_id, Kind.ACTION_OUTCOME_ATTACHED, outcome.action_id, event_us, detail)


def label_attached(case_id: str, assertion: LabelAssertion) -> Entry:
    """A label of a payment that belongs to the case."""
    kind = Kind.INVESTIGATOR_ASSERTION if assertion.source == "HUMAN" else Kind.LABEL_ACCEPTED
    detail = {
        "event_id": assertion.subject.event_id,
        "label_type": assertion.label_type,
        "label_value": assertion.label_value,
        "source": assertion.source,
    }
    return Entry(case_id, kind, assertion.assertion_id, assertion.observed_us, detail)
