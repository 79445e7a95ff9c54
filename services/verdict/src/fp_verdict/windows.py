"""Window 2: every equation of law 12 again, over the records between its start and its end (dataflow.md §7). Pure.

What is counted on the bus is counted by event time; table rows by what came since P11 counted them. So a record of
window 1 that comes late stands on one side only, and is seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from fp_contracts.canonical import digest_of
from fp_contracts.control import BundleSwitched, Check, EvidenceRef, WindowReconciled
from fp_contracts.derive import DECISION_FIELDS, content_fingerprint
from fp_contracts.evaluation import Predicate
from fp_contracts.phases import PHASES
from fp_contracts.reasons import SCHEMA_MISMATCH
from fp_contracts.runconfig import Window
from fp_verdict.reconcile import Documents, Equation, SpineFacts, archive_complete, equations

UNRECONCILED = PHASES["P15"].blockers[0]
MAX_FAULTS = 100
ABSOLUTE = ("span_breaks", "open_unknowns")
"""Rows that are wrong whenever they are not zero: never counted from a start."""


@dataclass
class Deciders:
    """Which bundle decided what, against what the partitions reported; fed with each decision of the window."""

    reports: Sequence[BundleSwitched]
    by_bundle: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    shadows: dict[str, int] = field(default_factory=dict)
    """Challenger and how it did: its name, or its name and why it has no score -> decisions."""
    shadow_prints: list[str] = field(default_factory=list)

    def take(self, order_us: int, partition: int, body: bytes) -> None:
        """One decision: by what was in force and by nothing else, unless its features are of another schema."""
        payload = orjson.loads(body)["payload"]
        used, expected = payload["bundle_ref"], self._expected(order_us, partition)
        name = str(used or "guardrails")
        self.by_bundle[name] = self.by_bundle.get(name, 0) + 1
        subject = payload["source_event"]["event_id"]
        self.fingerprints.append(content_fingerprint(DECISION_FIELDS, payload, subject))
        for told in payload["shadow"]:
            self._beside(subject, told)
        unasked = used is None and payload["reason_codes"] == [SCHEMA_MISMATCH]
        if used != expected and not unasked and len(self.faults) < MAX_FAULTS:
            self.faults.append(f"{payload['decision_id']} by {name}, {expected or 'guardrails'} was in force")

    def _beside(self, subject: str, told: Mapping[str, Any]) -> None:
        """The challenger has a fingerprint of its own (ADR 16): what it says is no part of a decision's."""
        name = told["bundle_ref"] if told["reason"] is None else f"{told['bundle_ref']} {told['reason']}"
        self.shadows[name] = self.shadows.get(name, 0) + 1
        self.shadow_prints.append(digest_of({"subject": subject, **told}))

    def _expected(self, order_us: int, partition: int) -> str | None:
        """What was in force at an event time: the last revision that took effect up to then."""
        own = [r for r in self.reports if r.partition == partition and r.effective_us <= order_us]
        return max(own, key=lambda r: r.revision).bundle_ref if own else None


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """What the re-check rests on. `counted`: facts over the window alone.

    merged_us: up to where every ingress partition is merged; by_bundle, misdecided: what `Deciders` found;
    promoted: the bundle that the run promoted; decision_fingerprint: over the content of the window's decisions.
    """

    number: int
    window: Window
    merged_us: int
    counted: SpineFacts
    by_bundle: Mapping[str, int]
    misdecided: tuple[str, ...]
    promoted: str | None
    decision_fingerprint: str = ""
    shadows: Mapping[str, int] = field(default_factory=dict)
    shadow_fingerprint: str = ""


def over_window(
    whole: SpineFacts, before: Mapping[str, int], lines: int, requests: int, ingress: int
) -> SpineFacts:  # fmt: skip
    """Facts of a window from facts of the whole run. `before` = P11's rows; lines, requests, ingress: of the window."""
    rows = {name: n if name in ABSOLUTE else n - before.get(name, 0) for name, n in whole.rows.items()}
    documents: Documents = {
        ("P7", "offset_proof"): {"partitions": [{"matched": ingress}]},
        ("P8", "core_snapshot"): {"stream": {"auth_requests": requests}},
    }
    return replace(whole, rows=rows, documents=documents, declared_lines=lines)


def complete(facts: WindowFacts) -> bool:
    """Whether everything of the window can be there, so that counting makes sense."""
    return facts.merged_us >= facts.window.end_us and archive_complete(facts.counted)


def evaluate(facts: WindowFacts) -> tuple[Predicate, ...]:
    """All checks; nothing is final but what says another thing than what was promised."""
    found = equations(facts.counted) if complete(facts) else ()
    mismatches = [fault for state in facts.counted.archive.values() for fault in state.mismatches]
    holes = [hole for state in facts.counted.archive.values() for hole in state.holes]
    requests = int(facts.counted.documents["P8", "core_snapshot"]["stream"]["auth_requests"])
    promoted = facts.by_bundle.get(facts.promoted or "", 0)
    checks = (
        _is("merged up to", str(facts.merged_us), f"at least {facts.window.end_us}",
            facts.merged_us >= facts.window.end_us),
        _is("archive of the eight data topics", "; ".join(holes[:3]) or "no hole", "no hole",
            archive_complete(facts.counted)),
        _is("evidence of P1–P11 read back", "; ".join(facts.counted.unreadable[:3]) or "all", "all",
            not facts.counted.unreadable, final=True),
    )  # fmt: skip
    if not complete(facts):
        return checks
    return (
        *checks,
        _is("archive objects match the topics", "; ".join(mismatches[:3]) or "all", "all", not mismatches, final=True),
        _is("auth requests", str(requests), "at least 1", requests > 0),
        *(_is(e.name, f"{e.left} = {e.right}", "both sides equal", e.ok) for e in found),
        _is("decisions by another bundle than the one in force", "; ".join(facts.misdecided[:3]) or "none", "none",
            not facts.misdecided, final=True),
        _is("decisions by the promoted bundle", str(promoted), "at least 1", promoted > 0),
        _is("truth tables are append-only", "; ".join(facts.counted.truth_breaches[:3]) or "all", "all",
            not facts.counted.truth_breaches, final=True),
    )  # fmt: skip


def report(run: str, facts: WindowFacts) -> dict[str, Any]:
    """The evidence of a re-check; the event that publishes it derives from this document alone."""
    found: Sequence[Equation] = equations(facts.counted) if complete(facts) else ()
    return {
        "run": run,
        "window": facts.number,
        "start_us": facts.window.start_us,
        "end_us": facts.window.end_us,
        "checks": [
            {"name": p.name, "observed": p.observed, "required": p.required, "ok": p.ok} for p in evaluate(facts)
        ],
        "equations": [{"name": e.name, "left": e.left, "right": e.right, "ok": e.ok} for e in found],
        "rows": dict(facts.counted.rows),
        "bus": dict(facts.counted.bus or {}),
        "promoted": facts.promoted,
        "decisions_by_bundle": dict(facts.by_bundle),
        "decision_fingerprint": facts.decision_fingerprint,
        "shadow_scores": dict(facts.shadows),
        "shadow_fingerprint": facts.shadow_fingerprint,
    }


def settled(predicates: Sequence[Predicate]) -> bool:
    """Whether waiting changes nothing: all hold, or one is false for good."""
    return all(p.ok for p in predicates) or any(p.final and not p.ok for p in predicates)


def outline(document: Mapping[str, Any]) -> list[Any]:
    """What stands still once nothing of the window comes any more; spend goes on."""
    return [document["rows"], document["bus"], document["decisions_by_bundle"]]


def announcement(document: Mapping[str, Any], ref: EvidenceRef) -> WindowReconciled:
    """The event that a report asks for."""
    checks = tuple(Check.model_validate(check) for check in document["checks"])
    return WindowReconciled(window=int(document["window"]), checks=checks, report_ref=ref)


def _is(name: str, observed: str, required: str, ok: bool, final: bool = False) -> Predicate:
    return Predicate(name, observed, required, ok, UNRECONCILED, final)
