"""Cases as folds of their timelines: what is appended, and when something attaches (contracts.md §4). Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fp_cm_ls import labels
from fp_cm_ls.labels import DISPOSITION, Word
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
    """A case as its timeline tells it; the order in which its parts came changes nothing. Money in minor units."""

    case_id: str
    triggers: frozenset[str] = frozenset()
    payments: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, frozenset[Word]] = field(default_factory=dict)
    assignee: str | None = None
    notes: int = 0
    n: int = 0

    @property
    def amount_minor(self) -> int:
        """Sum over the triggered payments, each once however many triggers it brought."""
        return sum(self.payments.values())

    @property
    def labels(self) -> dict[str, str]:
        """The fraud disposition of each labelled payment, as all that was said of it resolves."""
        found = {event_id: labels.best(words) for event_id, words in self.said.items()}
        return {event_id: value for event_id, value in found.items() if value is not None}

    @property
    def status(self) -> str:
        """OPEN until every triggered payment has a label that is no CONFLICT; CLOSED then."""
        known = {event_id for event_id, value in self.labels.items() if value != labels.CONFLICT}
        return "CLOSED" if self.payments and known >= self.payments.keys() else "OPEN"


def fold(case: Case, entry: Entry) -> Case:
    """The case after one more event of its timeline."""
    case = replace(case, n=case.n + 1)
    detail = entry.detail
    match entry.kind:
        case Kind.CASE_TRIGGERED:
            payments = {**case.payments, str(detail["event_id"]): int(detail["amount_minor"])}
            return replace(case, triggers=case.triggers | {entry.ref}, payments=payments)
        case Kind.ACTION_OUTCOME_ATTACHED:
            return replace(case, outcomes={**case.outcomes, entry.ref: str(detail["status"])})
        case Kind.LABEL_ACCEPTED | Kind.INVESTIGATOR_ASSERTION:
            return _labelled(case, entry)
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


def _labelled(case: Case, entry: Entry) -> Case:
    detail = entry.detail
    if detail["label_type"] != DISPOSITION:
        return case
    event_id = str(detail["event_id"])
    word = Word(str(detail["source"]), int(detail["effective_us"]), entry.event_us, str(detail["label_value"]))
    return replace(case, said={**case.said, event_id: case.said.get(event_id, frozenset()) | {word}})


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
        "effective_us": assertion.effective_us,
    }
    return Entry(case_id, kind, assertion.assertion_id, assertion.observed_us, detail)
