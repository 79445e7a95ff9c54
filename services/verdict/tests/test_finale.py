"""P16: a verdict needs everything, and a second process that says the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fp_contracts.control import EvidenceRef, TeardownRehearsed
from fp_contracts.fold import Attempt
from fp_verdict.closing import scope_is_open
from fp_verdict.finale import INCOMPLETE, INCONSISTENT, FinalFacts, announcement, evaluate_p16
from fp_verify.log import read_log
from fp_verify.sample import RUN, until_p11

FINAL: dict[str, Any] = {
    "phases": {"P1": {"state": "PASS"}}, "proofs": {"spine": {"deploy": "PASS"}}, "equations": {"broken": []},
    "verdict": "GREEN", "spine_verdict": "GREEN", "profile": "local", "merkle_root": "a" * 64,
}  # fmt: skip
SAME = {"result": "PASS", "verdict": "GREEN", "spine_verdict": "GREEN", "mismatches": []}


def facts(final: dict[str, Any] | None = None) -> FinalFacts:
    return FinalFacts({"source_matrix": {}, "proof_matrix": {}, "final_verdict": final or FINAL}, (), (), SAME)


BREAKS: dict[str, tuple[Callable[[], FinalFacts], str]] = {
    "a phase is open": (lambda: facts({**FINAL, "phases": {"P12": {"state": "OPEN"}}}), INCOMPLETE),
    "a cell is open": (lambda: facts({**FINAL, "proofs": {"ofs": {"deploy": "OPEN"}}}), INCOMPLETE),
    "an equation is broken": (lambda: facts({**FINAL, "equations": {"broken": ["x"]}}), INCOMPLETE),
    "evidence is broken": (lambda: replace(facts(), faults=("k: missing",)), INCOMPLETE),
    "an artifact says something else": (lambda: replace(facts(), conflicts=("deploy",)), INCONSISTENT),
    "no second opinion": (lambda: replace(facts(), second_opinion=None), INCONSISTENT),
    "another second opinion": (
        lambda: replace(facts(), second_opinion={**SAME, "spine_verdict": "BLOCKED"}), INCONSISTENT),
    "verification fails": (
        lambda: replace(facts(), second_opinion={**SAME, "result": "FAIL", "mismatches": [{"key": "k", "why": "w"}]}),
        INCONSISTENT),
}  # fmt: skip


def test_a_complete_platform_passes() -> None:
    assert all(p.ok for p in evaluate_p16(facts()).predicates)


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_reaches_its_blocker_for_good(name: str) -> None:
    make, code = BREAKS[name]
    evaluation = evaluate_p16(make())
    assert {p.code for p in evaluation.predicates if not p.ok} == {code}
    assert evaluation.settled()


def test_the_announcement_says_what_the_document_says() -> None:
    ref = EvidenceRef(key="k", sha256="b" * 64, size=1)
    said = announcement({**FINAL, "verdict": "BLOCKED"}, ref)
    assert (said.verdict, said.spine_verdict, said.verdict_ref) == ("BLOCKED", "GREEN", ref)


def test_a_full_scope_waits_for_its_phases_and_a_spine_does_not() -> None:
    state = read_log(RUN, until_p11().records).state
    assert state.header is not None
    assert not scope_is_open(state)
    config = state.header.config.model_copy(update={"scope": "full"})
    full = replace(state, header=state.header.model_copy(update={"config": config}))
    assert scope_is_open(full)
    passed = {**full.attempts, **{phase: Attempt(1, "PASS") for phase in ("P12", "P13", "P14", "P15")}}
    assert scope_is_open(replace(full, attempts=passed)), "a teardown rehearsed later could not be proven any more"
    told = TeardownRehearsed(
        scratch_run="platform_20260101T001000Z-r0123456789ab", actor="a", reason="b", evidence=(), outlived=(),
        fault="it could not be",
    )  # fmt: skip
    full = replace(full, rehearsals=(told,))
    assert not scope_is_open(replace(full, attempts=passed))
    blocked = {**passed, "P14": Attempt(1, "BLOCKED")}
    assert scope_is_open(replace(full, attempts=blocked)), "a resume must find the run open"
