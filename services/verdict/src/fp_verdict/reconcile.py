"""P11 SPINE_OBS_GOV_CLOSED: the spine's numbers as equations, recomputed from tables, topics and evidence. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fp_contracts import topics
from fp_contracts.evaluation import Evaluation, Predicate
from fp_contracts.phases import PHASES

CLOSURE, PACK = PHASES["P11"].blockers
Documents = Mapping[tuple[str, str], Mapping[str, Any]]
"""(phase, name) -> evidence document of a passed gate, read back by its reference."""


@dataclass(frozen=True, slots=True)
class Equation:
    """Both sides of one conservation law. `final` = waiting cannot make them equal."""

    name: str
    left: int
    right: int
    final: bool = True

    @property
    def ok(self) -> bool:
        """Whether both sides are equal."""
        return self.left == self.right


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """The archive of one topic: records on the bus in [start, end), records in its objects, and what is wrong."""

    on_bus: int
    archived: int
    holes: tuple[str, ...] = ()
    mismatches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpineFacts:
    """Everything P11 rests on. rows, bus: counts by name; `bus` is None while the archive is not complete.

    comparison: the non-regression pack, None when it could not be made; waived: a waiver of it is in force.
    """

    documents: Documents
    unreadable: tuple[str, ...]
    declared_lines: int
    rows: Mapping[str, int]
    archive: Mapping[str, ArchiveState]
    bus: Mapping[str, int] | None
    metered: int
    booked: int
    unbooked: int
    truth_breaches: tuple[str, ...]
    report: Mapping[str, Any]
    comparison: Mapping[str, Any] | None
    waived: bool
    governance: tuple[Mapping[str, Any], ...]
    chain_fault: str | None
    cut: int


def archive_complete(facts: SpineFacts) -> bool:
    """Whether every data topic is archived without a hole, so that reading the topics makes sense."""
    return set(facts.archive) == set(topics.DATA) and not any(found.holes for found in facts.archive.values())


def equations(facts: SpineFacts) -> tuple[Equation, ...]:
    """Every equation of law 12, each side from its own source."""
    rows, bus = facts.rows, facts.bus or {}
    core = _doc(facts, "P8", "core_snapshot")
    proof = _doc(facts, "P7", "offset_proof")
    stream: Mapping[str, Any] = core.get("stream") or {}
    matched = sum(int(part["matched"]) for part in proof.get("partitions", []))
    classed = rows["lines_admitted"] + rows["lines_duplicate"] + rows["lines_quarantined"]
    return (
        Equation("lines sent = admitted + duplicate + quarantined", facts.declared_lines, classed),
        Equation("admitted lines = records on the ingress topics", rows["lines_admitted"], matched),
        Equation("auth requests = snapshots on the bus", int(stream.get("auth_requests", -1)),
                 bus.get("snapshots", -2)),
        Equation("snapshots on the bus = decisions", bus.get("snapshots", -1), rows["decisions"]),
        Equation("decisions = decisions on the bus", rows["decisions"], bus.get("decisions", -1)),
        Equation("decisions = DECIDED audit records", rows["decisions"], rows["decided"]),
        Equation("intents = outcomes", rows["intents"], rows["outcomes"]),
        Equation("outcomes = outcomes on the bus", rows["outcomes"], bus.get("outcomes", -1)),
        Equation("outcomes = OUTCOME audit records", rows["outcomes"], rows["outcome_audits"]),
        Equation("audit records = audit records on the bus", rows["decided"] + rows["outcome_audits"],
                 bus.get("audits", -1)),
        Equation("escalated decisions = case triggers", rows["escalated"], rows["triggers"]),
        Equation("case triggers = case triggers on the bus", rows["triggers"], bus.get("triggers", -1)),
        Equation("case triggers = CASE_TRIGGERED entries", rows["triggers"], rows["triggered_entries"]),
        Equation("label assertions = labels on the bus", rows["assertions"], bus.get("labels", -1)),
        Equation("labels on the bus = merged + pending beyond the window", bus.get("labels", -1),
                 rows["labels_merged"] + rows["labels_pending"], final=False),
        *(Equation(f"archived = bus: {name}", found.archived, found.on_bus) for name, found in _archived(facts)),
        Equation("spans that do not tile", rows["span_breaks"], 0),
        Equation("publishes in doubt", rows["open_unknowns"], 0),
        Equation("booked + unbooked spend = metered, µUSD", facts.booked + facts.unbooked, facts.metered),
    )  # fmt: skip


def evaluate_p11(facts: SpineFacts) -> Evaluation:
    """What only needs time (the archive's tail) is not final; an equation that fails over complete facts is."""
    complete = archive_complete(facts)
    found = equations(facts) if complete else ()
    mismatches = [fault for _, state in _archived(facts) for fault in state.mismatches]
    return Evaluation(
        (
            _is("evidence of P1–P10 read back", "; ".join(facts.unreadable[:3]) or "all", "all", not facts.unreadable,
                CLOSURE),
            _is("archive of the eight data topics", _holes(facts), "no hole", complete, CLOSURE, final=False),
            _is("archive objects match the topics", "; ".join(mismatches[:3]) or "all", "all", not mismatches, CLOSURE),
            *(_is(e.name, f"{e.left} = {e.right}", "both sides equal", e.ok, CLOSURE, e.final) for e in found),
            _is("truth tables are append-only", "; ".join(facts.truth_breaches[:3]) or "all", "all",
                not facts.truth_breaches, CLOSURE),
            _is("governance log", facts.chain_fault or f"{len(facts.governance)} entries, chained",
                "at least 1 entry, chained", facts.chain_fault is None and bool(facts.governance), CLOSURE),
            *_non_regression(facts),
        ),
        _documents(facts, found),
    )  # fmt: skip


def _non_regression(facts: SpineFacts) -> tuple[Predicate, ...]:
    pack = facts.comparison
    if pack is None:
        return (_is("non-regression pack", "missing", "made", False, PACK),)
    baseline = str(pack["baseline"])
    differ = [str(name) for name in pack["different"]]
    seen = f"against {baseline}: {', '.join(differ) or 'none'}" + (" (waived)" if facts.waived and differ else "")
    return (
        _is("non-regression pack", f"baseline: {baseline}", "made", True, PACK),
        _is("results that differ from the baseline", seen, "none, or waived", not differ or facts.waived, PACK),
    )


def _documents(facts: SpineFacts, found: Sequence[Equation]) -> dict[str, Any]:
    entries = [dict(entry) for entry in facts.governance]
    documents: dict[str, Any] = {
        "run_report": {**facts.report, "rows": dict(facts.rows), "bus": dict(facts.bus or {})},
        "reconciliation": {
            "equations": [{"name": e.name, "left": e.left, "right": e.right, "ok": e.ok} for e in found],
            "archive": {
                name: {"on_bus": state.on_bus, "archived": state.archived, "holes": list(state.holes),
                       "mismatches": list(state.mismatches)}
                for name, state in _archived(facts)
            },
            "spend_microusd": {"metered": facts.metered, "booked": facts.booked, "unbooked": facts.unbooked},
        },
        "log": {"entries": entries},
        "closure_marker": {
            "entries": len(entries), "head": entries[-1]["entry_hash"] if entries else None, "control_cut": facts.cut,
        },
    }  # fmt: skip
    if facts.comparison is not None:
        documents["non_regression"] = dict(facts.comparison)
    return documents


def compare(
    current: Mapping[str, Any], baseline: Mapping[str, Any] | None, computation: str, rates: Mapping[str, int]
) -> dict[str, Any]:
    """The non-regression pack: fingerprints and counts of this run against those of `baseline` (its own pack).

    Rates are told, not judged: they belong to the machine.
    """
    known: Mapping[str, Any] = {} if baseline is None else baseline["results"]
    different = [] if baseline is None else sorted(
        name for name in current.keys() | known.keys() if current.get(name) != known.get(name)
    )  # fmt: skip
    return {
        "baseline": "none" if baseline is None else baseline["run"],
        "computation": computation,
        "results": dict(current),
        "baseline_results": dict(known),
        "different": different,
        "rates": dict(rates),
        "baseline_rates": {} if baseline is None else dict(baseline["rates"]),
    }


def results_of(documents: Documents) -> dict[str, Any]:
    """What two runs of one computation must share: four fingerprints and the counts of what replays."""
    core = documents.get(("P8", "core_snapshot"), {}).get("stream") or {}
    decided = documents.get(("P9", "decision_snapshot"), {})
    cases = documents.get(("P10", "closure"), {})
    actions = {f"decided_{name}": n for name, n in decided.get("by_action", {}).items()}
    policies = {f"policy_{name}": n for name, n in decided.get("by_policy_rev", {}).items()}
    return {
        "snapshot_fingerprint": core.get("snapshot_fingerprint"),
        "decision_fingerprint": decided.get("decision_fingerprint"),
        "trigger_fingerprint": cases.get("trigger_fingerprint"),
        "label_fingerprint": cases.get("label_fingerprint"),
        "auth_requests": core.get("auth_requests"),
        "decisions": decided.get("decisions"),
        "escalated": decided.get("escalated"),
        "triggers": cases.get("triggers"),
        "cases": cases.get("cases"),
        "labels": cases.get("labels"),
        **actions,
        **policies,
    }


def _archived(facts: SpineFacts) -> list[tuple[str, ArchiveState]]:
    return [(name, facts.archive[name]) for name in topics.DATA if name in facts.archive]


def _holes(facts: SpineFacts) -> str:
    holes = [hole for _, state in _archived(facts) for hole in state.holes]
    missing = [name for name in topics.DATA if name not in facts.archive]
    return "; ".join((holes + missing)[:3]) or "no hole"


def _doc(facts: SpineFacts, phase: str, name: str) -> Mapping[str, Any]:
    return facts.documents.get((phase, name), {})


def _is(name: str, observed: str, required: str, ok: bool, code: str, final: bool = True) -> Predicate:
    return Predicate(name, observed, required, ok, code, final)
