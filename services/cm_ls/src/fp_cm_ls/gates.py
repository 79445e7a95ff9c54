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
    done = facts.lane_ended and facts.lag == 0
    return Evaluation(
        (
            _is("adjudication lane ended", str(facts.lane_ended), "True", facts.lane_ended, APPEND),
            _zero("records not yet read", facts.lag, APPEND),
            _equal("triggers on the bus = triggers", facts.topic_triggers, facts.trigger_rows, APPEND, done),
            _equal("triggers = CASE_TRIGGERED entries", facts.trigger_rows, facts.triggered_entries, APPEND, done),
            _zero("triggers in two timelines", facts.doubled_triggers, APPEND, True),
            _zero("cases without a trigger", facts.empty_cases, APPEND, True),
            _zero("timelines that are not dense", facts.broken_timelines, APPEND, True),
            _equal("outcomes of escalated decisions = attached", facts.escalated_intents, facts.outcomes_attached,
                   APPEND),
            _equal("lines declared = lines classed", facts.declared_lines, facts.lines, APPEND, done),
            _equal("lines accepted = assertions", facts.lines_by_class.get("ACCEPTED", 0), facts.assertions, APPEND,
                   True),
            _equal("label emissions = acks", facts.assertions, facts.acked, APPEND),
            _equal("assertions = labels on the bus", facts.assertions, facts.topic_labels, APPEND),
            _zero("open sequence gaps", facts.open_gaps, BOUNDARY),
            _zero("quarantined records", facts.quarantined, BOUNDARY, True),
            _zero("rejected adjudications", facts.lines_by_class.get("REJECTED", 0), BOUNDARY, True),
            _zero("conflicting assertions", facts.conflicting_lines, BOUNDARY, True),
            _is("writers of the adjudication lane", str(facts.principals), "at most 1", facts.principals <= 1, BOUNDARY,
                True),
        ),
        {
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
        },
    )  # fmt: skip


def _is(name: str, observed: str, required: str, ok: bool, code: str, final: bool = False) -> Predicate:
    return Predicate(name, observed, required, ok, code, final)


def _equal(name: str, left: int, right: int, code: str, final: bool = False) -> Predicate:
    return Predicate(name, f"{left} = {right}", "both sides equal", left == right, code, final)


def _zero(name: str, n: int, code: str, final: bool = False) -> Predicate:
    return Predicate(name, str(n), "0", n == 0, code, final)
