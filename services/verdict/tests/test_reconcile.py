"""P11: every equation and every other demand, broken one at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fp_contracts import topics
from fp_contracts.phases import PHASES
from fp_verdict.reconcile import (
    CLOSURE,
    PACK,
    ArchiveState,
    SpineFacts,
    compare,
    equations,
    evaluate_p11,
    results_of,
)  # fmt: skip
from fp_verify.verdict import EQUATIONS, equation_faults

ROWS = {
    "lines_admitted": 90, "lines_duplicate": 7, "lines_quarantined": 3, "decisions": 20, "decided": 20, "intents": 6,
    "outcomes": 6, "outcome_audits": 6, "escalated": 4, "triggers": 4, "triggered_entries": 4, "cases": 3,
    "assertions": 5, "quarantined_records": 0, "open_unknowns": 0, "span_breaks": 0, "labels_merged": 2,
    "labels_pending": 3,
}  # fmt: skip
BUS = {"snapshots": 20, "decisions": 20, "outcomes": 6, "audits": 26, "triggers": 4, "labels": 5}
DOCUMENTS: dict[tuple[str, str], dict[str, Any]] = {
    ("P7", "offset_proof"): {"partitions": [{"matched": 40}, {"matched": 50}]},
    ("P8", "core_snapshot"): {"stream": {"auth_requests": 20, "snapshot_fingerprint": "s"}},
    ("P9", "decision_snapshot"): {"decision_fingerprint": "d", "by_action": {"ALLOW": 14}, "decisions": 20},
}
PACKED = compare({"decisions": 20}, {"run": "platform_1", "results": {"decisions": 20}, "rates": {}}, "c", {})
GREEN = SpineFacts(
    documents=DOCUMENTS, unreadable=(), declared_lines=100, rows=ROWS,
    archive={name: ArchiveState(10, 10) for name in topics.DATA}, bus=BUS, metered=9, booked=7, unbooked=2,
    truth_breaches=(), report={}, comparison=PACKED, waived=False, governance=({"entry_hash": "h"},), chain_fault=None,
    cut=5,
)  # fmt: skip


def row(name: str) -> Callable[[], SpineFacts]:
    return lambda: replace(GREEN, rows={**ROWS, name: ROWS[name] + 1})


def bus(name: str) -> Callable[[], SpineFacts]:
    return lambda: replace(GREEN, bus={**BUS, name: BUS[name] + 1})


def archive(state: ArchiveState) -> Callable[[], SpineFacts]:
    return lambda: replace(GREEN, archive={**GREEN.archive, topics.AUDIT: state})


JUDGED_ROWS = sorted(ROWS.keys() - {"cases", "quarantined_records"})
DIFFERENT = compare({"decisions": 21}, {"run": "platform_1", "results": {"decisions": 20}, "rates": {}}, "c", {})
BREAKS: dict[str, tuple[Callable[[], SpineFacts], str]] = {
    **{f"row {name}": (row(name), CLOSURE) for name in JUDGED_ROWS},
    **{f"bus {name}": (bus(name), CLOSURE) for name in BUS},
    "declared lines": (lambda: replace(GREEN, declared_lines=101), CLOSURE),
    "a claim has no record": (
        lambda: replace(GREEN, documents={**DOCUMENTS, ("P7", "offset_proof"): {"partitions": [{"matched": 89}]}}),
        CLOSURE),
    "P8 counted another number of requests": (
        lambda: replace(GREEN, documents={**DOCUMENTS, ("P8", "core_snapshot"): {"stream": {"auth_requests": 19}}}),
        CLOSURE),
    "a sample is booked twice": (lambda: replace(GREEN, booked=8), CLOSURE),
    "the archive lacks a record": (archive(ArchiveState(10, 9)), CLOSURE),
    "the archive has a hole": (archive(ArchiveState(10, 10, holes=("x",))), CLOSURE),
    "the archive says something else": (archive(ArchiveState(10, 10, mismatches=("x",))), CLOSURE),
    "an archive is missing": (
        lambda: replace(GREEN, archive={k: v for k, v in GREEN.archive.items() if k != topics.LABELS}), CLOSURE),
    "evidence is gone": (lambda: replace(GREEN, unreadable=("k",)), CLOSURE),
    "a truth table is open": (lambda: replace(GREEN, truth_breaches=("df.decision",)), CLOSURE),
    "no governance": (lambda: replace(GREEN, governance=()), CLOSURE),
    "the governance chain is broken": (lambda: replace(GREEN, chain_fault="entry 2"), CLOSURE),
    "no pack": (lambda: replace(GREEN, comparison=None), PACK),
    "a result differs from the baseline": (lambda: replace(GREEN, comparison=DIFFERENT), PACK),
}  # fmt: skip


def test_a_reconciled_spine_passes() -> None:
    evaluation = evaluate_p11(GREEN)
    assert [p for p in evaluation.predicates if not p.ok] == []
    assert set(evaluation.documents) == set(PHASES["P11"].evidence)


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_reaches_its_blocker(name: str) -> None:
    make, code = BREAKS[name]
    evaluation = evaluate_p11(make())
    assert {p.code for p in evaluation.predicates if not p.ok} == {code}


def test_the_archive_s_tail_and_late_labels_may_still_come() -> None:
    for facts in (archive(ArchiveState(10, 9, holes=("x",)))(), row("labels_pending")()):
        assert not evaluate_p11(facts).settled()


def test_a_waived_difference_passes() -> None:
    assert all(p.ok for p in evaluate_p11(replace(GREEN, comparison=DIFFERENT, waived=True)).predicates)


def test_verification_demands_exactly_these_equations() -> None:
    assert tuple(e.name for e in equations(GREEN)) == EQUATIONS
    shown = evaluate_p11(GREEN).documents["reconciliation"]
    assert equation_faults(shown) == []
    assert equation_faults({"equations": shown["equations"][1:]}) == [f"equation missing: {EQUATIONS[0]}"]


def test_the_first_run_has_no_baseline_and_differs_from_nothing() -> None:
    pack = compare({"decisions": 20}, None, "c", {"lines_per_s": 3})
    assert (pack["baseline"], pack["different"], pack["rates"]) == ("none", [], {"lines_per_s": 3})


def test_results_are_compared_by_name_on_both_sides() -> None:
    earlier = {"run": "r", "results": {"a": 1, "gone": 2}, "rates": {}}
    assert compare({"a": 1, "new": 3}, earlier, "c", {})["different"] == ["gone", "new"]
    assert results_of(DOCUMENTS)["decided_ALLOW"] == 14
