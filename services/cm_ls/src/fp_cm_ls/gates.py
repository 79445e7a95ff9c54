"""P10: every escalation in exactly one case, every label acknowledged (gates.md). Pure: facts in, evaluation out."""

from collections.abc import Mapping
from dataclasses import dataclass

from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES

APPEND, BOUNDARY = PHASES["P10"].blockers


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """Counts over one run: `topic_*` are distinct (source, seq) read back from the bus, the rest are table rows."""

    lane_ended: bool
    lag: int
    open_gaps: int
    quarantined: int
    topic_triggers: int
    trigger_rows: int
    triggered_entries: int
    doubled_triggers: int
    cases: int
    empty_cases: int
    broken_timelines: int
    escalated_intents: int
    outcomes_attached: int
    lines: int
    lines_by_class: Mapping[str, int]
    declared_lines: int
    assertions: int
    acked: int
    topic_labels: int
    conflicting_lines: int
    principals: int
    trigger_fingerprint: str
    label_fingerprint: str
    entries_by_kind: Mapping[str, int]


def evaluate_p10(facts: CaseFacts) -> Evaluation:
    """Equations over rows and topics; what only needs time is never final."""
    return Evaluation((*_cases(facts), *_labels(facts), *_boundary(facts)), _documents(facts))


def _cases(facts: CaseFacts) -> tuple[Predicate, ...]:
    done = facts.lane_ended and facts.lag == 0
    return (
        _zero("records not yet read", facts.lag, APPEND),
        _equal("triggers on the bus = triggers", facts.topic_triggers, facts.trigger_rows, APPEND, done),
        _equal("triggers = CASE_TRIGGERED entries", facts.trigger_rows, facts.triggered_entries, APPEND, True),
        _zero("triggers in two timelines", facts.doubled_triggers, APPEND, True),
        _zero("cases without a trigger", facts.empty_cases, APPEND, True),
        _zero("timelines that are not dense", facts.broken_timelines, APPEND, True),
        _equal(
            "outcomes of escalated decisions = attached", facts.escalated_intents, facts.outcomes_attached, APPEND
        ),
    )  # fmt: skip


def _labels(facts: CaseFacts) -> tuple[Predicate, ...]:
    ended, accepted = facts.lane_ended, facts.lines_by_class.get("ACCEPTED", 0)
    return (
        Predicate("adjudication lane ended", str(ended), "True", ended, APPEND),
        _equal("lines declared = lines classed", facts.declared_lines, facts.lines, APPEND, ended),
        _equal("lines accepted = assertions", accepted, facts.assertions, APPEND, ended),
        _equal("label emissions = acks", facts.assertions, facts.acked, APPEND),
        _equal("assertions = labels on the bus", facts.assertions, facts.topic_labels, APPEND),
    )


def _boundary(facts: CaseFacts) -> tuple[Predicate, ...]:
    one = facts.principals <= 1
    return (
        _zero("open sequence gaps", facts.open_gaps, BOUNDARY),
        _zero("quarantined records", facts.quarantined, BOUNDARY, True),
        _zero("rejected adjudications", facts.lines_by_class.get("REJECTED", 0), BOUNDARY, True),
        _zero("conflicting assertions", facts.conflicting_lines, BOUNDARY, True),
        Predicate("writers of the adjudication lane", str(facts.principals), "at most 1", one, BOUNDARY, True),
    )


def _documents(facts: CaseFacts) -> dict[str, dict[str, object]]:
    return {
        "closure": {
            "cases": facts.cases,
            "triggers": facts.trigger_rows,
            "entries_by_kind": dict(facts.entries_by_kind),
            "outcomes_attached": facts.outcomes_attached,
            "labels": facts.assertions,
            "lines_by_class": dict(facts.lines_by_class),
            "trigger_fingerprint": facts.trigger_fingerprint,
            "label_fingerprint": facts.label_fingerprint,
        },
        "append_proofs": {
            "topic_triggers": facts.topic_triggers,
            "topic_labels": facts.topic_labels,
            "labels_acked": facts.acked,
            "doubled_triggers": facts.doubled_triggers,
            "broken_timelines": facts.broken_timelines,
            "escalated_intents": facts.escalated_intents,
            "quarantined": facts.quarantined,
        },
    }


def _equal(name: str, left: int, right: int, code: str, final: bool = False) -> Predicate:
    return Predicate(name, f"{left} = {right}", "both sides equal", left == right, code, final)


def _zero(name: str, n: int, code: str, final: bool = False) -> Predicate:
    return Predicate(name, str(n), "0", n == 0, code, final)
