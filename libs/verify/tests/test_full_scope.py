"""A full run: window 2 must add up, its proof cells are proven one by one, and what is not proven is named."""

from typing import Any, Literal

import orjson
import pytest

from fp_contracts.proofs import LANES, PROOFS
from fp_verify.check import verify
from fp_verify.log import RawRecord, read_log
from fp_verify.sample import RUN, GreenRun, close_p16, corridor_documents, make_config, until_p11, until_p15
from fp_verify.verdict import EQUATIONS

REPORT = f"evidence/runs/{RUN}/obs/window-2/reconciliation.json"


def final_of(run: GreenRun) -> dict[str, Any]:
    final: dict[str, Any] = orjson.loads(run.objects[close_p16(run)])
    assert verify(run.objects.__getitem__, read_log(RUN, run.records)).mismatches == ()
    return final


def open_cells(final: dict[str, Any]) -> set[tuple[str, str]]:
    return {(lane, proof) for lane in LANES for proof in PROOFS if final["proofs"][lane][proof] == "OPEN"}


@pytest.mark.parametrize("profile", ["local", "kind"])
def test_a_full_run_that_shows_everything_is_green(profile: Literal["local", "kind"]) -> None:
    final = final_of(until_p15(GreenRun(config=make_config("full", profile))))
    assert open_cells(final) == set()
    assert final["equations"]["broken"] == []
    assert [line for line in final["open"] if "/" not in line.split(":")[0]] == []
    assert (final["verdict"], final["spine_verdict"]) == ("GREEN", "GREEN")


def test_every_partition_that_the_header_names_must_have_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = corridor_documents("local")
    monkeypatch.setattr("fp_verify.sample.corridor_documents", lambda _: fewer)
    final = final_of(until_p15(GreenRun(config=make_config("full", "kind"))))
    assert open_cells(final) == {("mpr", "deploy"), ("mpr", "rollback")}
    assert any("partitions on the bundle: 2, required 6" in line for line in final["open"])


def test_without_a_drill_the_cells_of_the_kills_are_open_by_name() -> None:
    final = final_of(until_p15(drill=False))
    drilled = {(lane, proof) for lane in ("ofs", "mf") for proof in ("failure_drill", "recovery")}
    spine = {("spine", proof) for proof in ("monitor", "failure_drill", "recovery")}
    assert open_cells(final) == drilled | spine
    assert "ofs/failure_drill: drill: not requested, required requested, and the job killed" in final["open"]


def test_without_its_learning_phases_every_cell_of_those_lanes_is_open() -> None:
    final = final_of(until_p11(run=GreenRun(config=make_config("full"))))
    assert open_cells(final) == {(lane, proof) for lane in LANES if lane != "spine" for proof in PROOFS}
    assert "window 2: nothing shows that it is reconciled" in final["open"]
    assert final["spine_verdict"] == "GREEN"


def test_a_broken_equation_of_window_2_blocks_the_platform_and_not_the_spine() -> None:
    final = final_of(until_p15(broken=EQUATIONS[3]))
    assert any(line.startswith(f"window 2: equation broken: {EQUATIONS[3]}") for line in final["open"])
    assert ("mf", "rollback") in open_cells(final)
    assert (final["verdict"], final["spine_verdict"]) == ("BLOCKED", "GREEN")


def test_a_spine_run_asks_for_no_second_window() -> None:
    assert not any("window 2" in line for line in final_of(until_p11())["open"])


@pytest.mark.parametrize("change", [lambda body: None, lambda body: body[:-1], lambda body: b"{}"])
def test_the_report_of_window_2_cannot_be_changed(change: Any) -> None:
    run = until_p15()
    close_p16(run)
    body = change(run.objects.pop(REPORT))
    run.objects |= {} if body is None else {REPORT: body}
    result = verify(run.objects.__getitem__, read_log(RUN, run.records))
    assert result.result == "FAIL"
    assert "DFULL-RUN-B15" in {m.blocker for m in result.mismatches if m.key == REPORT}


def test_an_event_that_says_more_than_its_report_is_seen() -> None:
    run = until_p15(broken=EQUATIONS[3])
    at = next(n for n, r in enumerate(run.records) if b'"type":"window_reconciled"' in r.value)
    forged = run.records[at].value.replace(b"4 = 5", b"4 = 4").replace(b'"ok":false', b'"ok":true')
    assert forged != run.records[at].value
    run.records[at] = RawRecord(run.records[at].offset, run.records[at].key, forged)
    final = final_of(run)
    assert "window 2: its event and its report say different things" in final["open"]


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "the corridor did not read its event back": (
        "deploy", "promotion_receipt", {"promotion": {"event": {"type": "BUNDLE_PROMOTED_ACTIVE"}}}),
    "the incompatible bundle was let in": ("failure_drill", "compatibility", {"probe": None, "probe_reasons": []}),
    "a restarted registry resolves otherwise": ("recovery", "active_resolution", {"restarted": {"bundle_id": "x"}}),
    "the rollback was not measured": ("rollback", "rollback_drill", {"rollback_us": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_cell_of_the_corridor_opens_when_its_artifact_does_not_show_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof, document, change = CASES[name]
    whole = corridor_documents()
    changed = {**whole, document: {**whole[document], **change}}
    monkeypatch.setattr("fp_verify.sample.corridor_documents", lambda _: changed)
    assert ("mpr", proof) in open_cells(final_of(until_p15()))
