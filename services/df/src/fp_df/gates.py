"""P9: every payment decided, audited and acted upon, once (gates.md). Pure: facts in, evaluation out."""

from collections.abc import Mapping
from dataclasses import dataclass

from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES

CHAIN, AUDIT = PHASES["P9"].blockers


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """Counts over one run: `topic_*` are distinct (source, seq) read back from the bus, `row_*` are table rows.

    replayed / unequal: decisions re-evaluated from their recorded inputs (R1), and how many came out otherwise.
    unmatched: intents and outcomes of which the other side has none (equal counts of different actions).
    """

    caught_up: bool
    open_gaps: int
    unpublished: int
    quarantined: int
    topic_auth_requests: int
    topic_snapshots: int
    topic_decisions: int
    topic_outcomes: int
    topic_audits: int
    row_decisions: int
    row_intents: int
    row_outcomes: int
    row_decided: int
    row_outcome_audits: int
    chain_faults: tuple[str, ...]
    chains: Mapping[str, tuple[int, str]]
    replayed: int
    unequal: int
    unmatched: int
    fingerprint: str
    by_action: Mapping[str, int]
    by_posture: Mapping[str, int]
    by_policy: Mapping[str, int]
    by_status: Mapping[str, int]
    escalated: int


def evaluate_p9(facts: DecisionFacts) -> Evaluation:
    """Equations over rows and topics; those that only need time are not final until the stage has caught up."""
    final = facts.caught_up and facts.unpublished == 0
    return Evaluation(
        (
            _is("decided to the window's end", str(facts.caught_up), "True", facts.caught_up, CHAIN, False),
            _zero("open sequence gaps", facts.open_gaps, CHAIN, False),
            _zero("unpublished records", facts.unpublished, CHAIN, False),
            _zero("quarantined records", facts.quarantined, CHAIN, True),
            _is("payments", str(facts.topic_auth_requests), "at least 1", facts.topic_auth_requests > 0, CHAIN, final),
            _equal("auth requests = snapshots", facts.topic_auth_requests, facts.topic_snapshots, CHAIN, final),
            _equal("snapshots = decisions", facts.topic_snapshots, facts.row_decisions, CHAIN, final),
            _equal("decisions = decisions on the bus", facts.row_decisions, facts.topic_decisions, CHAIN, final),
            _equal("intents = outcomes", facts.row_intents, facts.row_outcomes, CHAIN, False),
            _zero("intents and outcomes of different actions", facts.unmatched, CHAIN, False),
            _equal("outcomes = outcomes on the bus", facts.row_outcomes, facts.topic_outcomes, CHAIN, False),
            _equal("decisions = DECIDED records", facts.row_decisions, facts.row_decided, AUDIT, final),
            _equal("outcomes = OUTCOME records", facts.row_outcomes, facts.row_outcome_audits, AUDIT, False),
            _equal(
                "audit rows = audit records on the bus", facts.row_decided + facts.row_outcome_audits,
                facts.topic_audits, AUDIT, False,
            ),
            _is("audit chains recompute", "; ".join(facts.chain_faults) or "all", "all", not facts.chain_faults, AUDIT,
                True),
            _equal("decisions replayed", facts.replayed, facts.row_decisions, CHAIN, final),
            _zero("replayed decisions that differ", facts.unequal, CHAIN, True),
        ),
        _documents(facts),
    )  # fmt: skip


def _documents(facts: DecisionFacts) -> dict[str, object]:
    return {
        "decision_snapshot": {
            "auth_requests": facts.topic_auth_requests,
            "snapshots": facts.topic_snapshots,
            "decisions": facts.row_decisions,
            "decisions_on_bus": facts.topic_decisions,
            "replayed": facts.replayed,
            "unequal": facts.unequal,
            "decision_fingerprint": facts.fingerprint,
            "by_action": dict(facts.by_action),
            "by_posture": dict(facts.by_posture),
            "by_policy_rev": dict(facts.by_policy),
            "escalated": facts.escalated,
        },
        "action_snapshot": {
            "intents": facts.row_intents,
            "outcomes": facts.row_outcomes,
            "outcomes_on_bus": facts.topic_outcomes,
            "by_status": dict(facts.by_status),
        },
        "audit_snapshot": {
            "decided": facts.row_decided,
            "outcome": facts.row_outcome_audits,
            "on_bus": facts.topic_audits,
            "chains": {name: {"links": n, "head": head} for name, (n, head) in facts.chains.items()},
            "faults": list(facts.chain_faults),
        },
    }


def _is(name: str, observed: str, required: str, ok: bool, code: str, final: bool) -> Predicate:
    return Predicate(name, observed, required, ok, code, final)


def _equal(name: str, left: int, right: int, code: str, final: bool) -> Predicate:
    return Predicate(name, f"{left} = {right}", "both sides equal", left == right, code, final)


def _zero(name: str, n: int, code: str, final: bool) -> Predicate:
    return Predicate(name, str(n), "0", n == 0, code, final)
