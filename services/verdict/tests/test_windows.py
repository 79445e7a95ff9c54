"""Window 2: every equation again, broken one at a time; and what a record of window 1 that comes late does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from fp_contracts import topics
from fp_contracts.control import BundleSwitched, EvidenceRef
from fp_contracts.derive import DECISION_FIELDS
from fp_contracts.runconfig import Window
from fp_verdict import windows
from fp_verdict.reconcile import ArchiveState, SpineFacts
from fp_verdict.windows import Deciders, WindowFacts
from fp_verify.verdict import EQUATIONS

BEFORE = {
    "lines_admitted": 90, "lines_duplicate": 7, "lines_quarantined": 3, "decisions": 20, "decided": 20, "intents": 6,
    "outcomes": 6, "outcome_audits": 6, "escalated": 4, "triggers": 4, "triggered_entries": 4, "cases": 3,
    "assertions": 5, "quarantined_records": 0, "open_unknowns": 0, "span_breaks": 0, "labels_merged": 2,
    "labels_pending": 3,
}  # fmt: skip
NOW = {
    "lines_admitted": 120, "lines_duplicate": 9, "lines_quarantined": 4, "decisions": 27, "decided": 27, "intents": 9,
    "outcomes": 9, "outcome_audits": 9, "escalated": 6, "triggers": 6, "triggered_entries": 6, "cases": 4,
    "assertions": 8, "quarantined_records": 0, "open_unknowns": 0, "span_breaks": 0, "labels_merged": 7,
    "labels_pending": 1,
}  # fmt: skip
BUS = {"snapshots": 7, "decisions": 7, "outcomes": 3, "audits": 10, "triggers": 2, "labels": 3}
WHOLE = SpineFacts(
    documents={}, unreadable=(), declared_lines=0, rows=NOW, archive={n: ArchiveState(10, 10) for n in topics.DATA},
    bus=BUS, metered=9, booked=7, unbooked=2, truth_breaches=(), report={}, comparison=None, waived=False,
    governance=(), chain_fault=None, cut=0,
)  # fmt: skip
MINE = "bundle:m"


def facts(
    whole: SpineFacts = WHOLE, lines: int = 33, requests: int = 7, ingress: int = 30, **other: Any
) -> WindowFacts:
    counted = windows.over_window(whole, BEFORE, lines, requests, ingress)
    values: dict[str, Any] = {
        "number": 2, "window": Window(start_us=90, end_us=120), "merged_us": 120, "counted": counted,
        "by_bundle": {MINE: 5, "guardrails": 2}, "misdecided": (), "promoted": MINE,
    }  # fmt: skip
    return WindowFacts(**(values | other))


def failing(found: WindowFacts) -> set[str]:
    return {p.name for p in windows.evaluate(found) if not p.ok}


def row(name: str) -> Callable[[], WindowFacts]:
    return lambda: facts(replace(WHOLE, rows={**NOW, name: NOW[name] + 1}))


def bus(name: str) -> Callable[[], WindowFacts]:
    return lambda: facts(replace(WHOLE, bus={**BUS, name: BUS[name] + 1}))


JUDGED = sorted(NOW.keys() - {"cases", "quarantined_records"})
BREAKS: dict[str, Callable[[], WindowFacts]] = {
    **{f"row {name}": row(name) for name in JUDGED},
    **{f"bus {name}": bus(name) for name in BUS},
    "lines": lambda: facts(lines=34),
    "a request without a snapshot": lambda: facts(requests=8),
    "a claim without a record": lambda: facts(ingress=29),
    "not merged to its end": lambda: facts(merged_us=119),
    "a hole in the archive": lambda: facts(
        replace(WHOLE, archive={**WHOLE.archive, topics.AUDIT: ArchiveState(10, 9, holes=("x",))})
    ),
    "an archive that says something else": lambda: facts(
        replace(WHOLE, archive={**WHOLE.archive, topics.AUDIT: ArchiveState(10, 10, mismatches=("x",))})
    ),
    "decided by another bundle": lambda: facts(misdecided=("d by y, x was in force",)),
    "the promoted bundle decided nothing": lambda: facts(by_bundle={"guardrails": 7}),
    "no promotion is known": lambda: facts(promoted=None),
    "P11 does not read back": lambda: facts(replace(WHOLE, unreadable=("P11 run_report",))),
    "a truth table is open": lambda: facts(replace(WHOLE, truth_breaches=("df.decision",))),
}


def test_a_window_that_adds_up_passes_over_every_equation_by_name() -> None:
    assert failing(facts()) == set()
    report = windows.report("run", facts())
    assert tuple(equation["name"] for equation in report["equations"]) == EQUATIONS
    said = windows.announcement(orjson.loads(orjson.dumps(report)), EvidenceRef(key="k", sha256="a" * 64, size=1))
    assert said.window == 2
    assert len(said.checks) == len(windows.evaluate(facts()))


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_seen(name: str) -> None:
    found = BREAKS[name]()
    assert failing(found)
    assert any(not check["ok"] for check in windows.report("run", found)["checks"])


def test_zero_traffic_is_no_window() -> None:
    still = replace(WHOLE, rows=BEFORE, bus=dict.fromkeys(BUS, 0))
    assert "auth requests" in failing(facts(still, lines=0, requests=0, ingress=0))


def test_a_late_record_of_window_1_stands_on_one_side_only() -> None:
    late = facts(replace(WHOLE, rows={**NOW, "decisions": 28, "decided": 28}))
    assert "snapshots on the bus = decisions" in failing(late)


def test_what_may_still_come_is_not_final_and_a_wrong_decider_is() -> None:
    assert not windows.settled(windows.evaluate(BREAKS["row outcomes"]()))
    assert not windows.settled(windows.evaluate(BREAKS["not merged to its end"]()))
    assert windows.settled(windows.evaluate(BREAKS["decided by another bundle"]()))
    assert windows.settled(windows.evaluate(facts()))


def test_a_window_stands_still_while_spend_goes_on() -> None:
    later = facts(replace(WHOLE, metered=12, booked=9, unbooked=3))
    moved = facts(replace(WHOLE, rows={**NOW, "outcomes": 10}))
    now = windows.outline(windows.report("run", facts()))
    assert windows.report("run", later)["equations"] != windows.report("run", facts())["equations"]
    assert windows.outline(windows.report("run", later)) == now
    assert windows.outline(windows.report("run", moved)) != now


def report_of(part: int, revision: int, effective_us: int, bundle: str | None) -> BundleSwitched:
    return BundleSwitched(
        bundle_slot="s", revision=revision, bundle_ref=bundle, source="global" if bundle else "guardrails",
        effective_us=effective_us, partition=part, merged_n=1,
    )  # fmt: skip


REPORTS = [report_of(0, 1, 90, MINE), report_of(0, 2, 100, None), report_of(0, 3, 105, MINE)]


def told(payload: dict[str, Any], *shadow: dict[str, Any]) -> bytes:
    return orjson.dumps({"payload": {**payload, "source_event": {"event_id": "e"}, "shadow": shadow}})


def test_a_challenger_has_a_fingerprint_of_its_own_and_none_in_the_decisions() -> None:
    payload = dict.fromkeys(DECISION_FIELDS, "x") | {"bundle_ref": MINE, "posture": "NORMAL", "decision_id": "d"}
    scored = {"bundle_ref": "bundle:b", "score": "s", "action": "ALLOW", "reason": None}
    unusable = {"bundle_ref": "bundle:b", "score": None, "action": None, "reason": "CHALLENGER_UNUSABLE"}
    found = []
    for shadow in ((), (scored,), ({**scored, "score": "t"},), (unusable,)):
        deciders = Deciders(REPORTS)
        deciders.take(90, 0, told(payload, *shadow))
        assert (deciders.faults, deciders.by_bundle) == ([], {MINE: 1})
        found.append((deciders.fingerprints, deciders.shadow_prints, deciders.shadows))
    assert len({str(prints) for prints, _, _ in found}) == 1
    assert len({str(prints) for _, prints, _ in found}) == 4
    assert [shadows for _, _, shadows in found] == [
        {}, {"bundle:b": 1}, {"bundle:b": 1}, {"bundle:b CHALLENGER_UNUSABLE": 1},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("at_us", "used", "reasons", "ok"),
    [
        (90, MINE, [], True),
        (99, "bundle:other", [], False),
        (100, None, ["MODEL_MISSING"], True),
        (100, MINE, [], False),
        (105, MINE, [], True),
        (106, None, ["JOIN_TIMEOUT", "MODEL_MISSING"], False),
        (106, None, ["MODEL_MISSING"], False),
        (106, None, ["FEATURE_SCHEMA_MISMATCH"], True),
        (106, "bundle:other", ["FEATURE_SCHEMA_MISMATCH"], False),
        (106, None, [], False),
        (89, MINE, [], False),
    ],
)
def test_every_decision_is_by_the_bundle_in_force(at_us: int, used: str | None, reasons: list[str], ok: bool) -> None:
    deciders = Deciders(REPORTS)
    payload = dict.fromkeys(DECISION_FIELDS, "x") | {"bundle_ref": used, "reason_codes": reasons, "decision_id": "d"}
    deciders.take(at_us, 0, told(payload))
    assert (deciders.faults == []) is ok
    assert deciders.by_bundle == {used or "guardrails": 1}
