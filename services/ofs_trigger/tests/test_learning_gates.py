"""P12–P14: closed on read-back reports; each broken thing blocks with its own code, and a resume goes on from there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fp_contracts import control as c
from fp_contracts import topics
from fp_contracts.dataset import OfsRequest
from fp_contracts.ids import phase_execution_id
from fp_contracts.phases import PHASES
from fp_ofs_trigger.domain import LEARNING_PHASES
from fp_ofs_trigger.runners import Ended
from fp_ofs_trigger.service import Heard

from .conftest import Lane, MemoryStore, after_spine, header_of

B12, B12_1, B13, B13_1, B14, B14_1 = (f"DFULL-RUN-B{code}" for code in ("12", "12.1", "13", "13.1", "14", "14.1"))


def failed(outcome: Any, reason: str = "why") -> Ended:
    return Ended(outcome, reason, None, b"", "acted", {})


def test_the_corridor_is_owned_here() -> None:
    assert all(PHASES[phase].owner == "ofs_trigger" for phase in LEARNING_PHASES)


def test_a_full_run_learns_from_its_archive_to_a_candidate(lane: Lane) -> None:
    lane.through("P15")
    assert lane.acted.ran == ["P12", "P13", "P14"]
    for phase in ("P12", "P13", "P14"):
        event = lane.state.attempts[phase].event
        assert isinstance(event, c.GatePassed)
        assert {ref.key.rpartition("/")[2] for ref in event.evidence} == {
            f"{name}.json" for name in PHASES[phase].evidence
        }
    fingerprint = lane.evidence_of("P12", "readiness")["window_fingerprint"]
    assert lane.evidence_of("P13", "fingerprint")["dataset_fingerprint"] == fingerprint
    assert lane.evidence_of("P14", "bundle_receipt")["manifest"]["document"]["dataset_fingerprint"] == fingerprint
    assert lane.evidence_of("P12", "readiness")["job"]["read_back"]["topic"] == topics.OFS_EVENTS


def test_a_spine_run_asks_for_no_job_and_claims_no_phase() -> None:
    lane = Lane(after_spine(header_of("spine")))
    for phase in LEARNING_PHASES:
        lane.turn(phase)
    assert [lane.state.state_of(phase) for phase in LEARNING_PHASES] == ["OPEN"] * 4
    assert lane.jobs.jobs == {}
    assert lane.waiting == {}


def test_a_restart_while_a_job_runs_asks_again_under_the_same_identity(lane: Lane) -> None:
    lane.desk.p12(lane.state)
    lane.restart()
    lane.desk.p12(lane.state)
    lane.agents()
    assert lane.acted.ran == ["P12"]
    assert lane.close("P12") == "PASS"


@pytest.mark.parametrize(
    ("phase", "outcome", "code"),
    [
        (phase, outcome, code)
        for phase, code in (("P12", B12_1), ("P13", B13), ("P14", B14))
        for outcome in ("UNAVAILABLE", "FAILED", "TIMED_OUT", "KILLED", "USAGE")
    ],
)
def test_a_job_that_does_not_finish_blocks_and_a_resume_runs_it_again(
    lane: Lane, phase: str, outcome: str, code: str
) -> None:
    lane.acted.end[phase] = failed(outcome)
    lane.through(phase)
    assert lane.close(phase) == "BLOCKED"
    assert lane.blockers(phase) == [f"{code} job ended: {outcome}: why, required DONE"]
    assert lane.active() is None
    ran = list(lane.acted.ran)
    lane.acted.end.clear()
    resume(lane, phase)
    assert lane.close(phase) == "PASS"
    assert lane.acted.ran == [*ran, phase]


def resume(lane: Lane, phase: str) -> None:
    ref = c.EvidenceRef(key="r", sha256="0" * 64, size=1)
    lane.tell(
        c.RunResumeRequested(
            phase=phase, attempt=2, reset_class="service_runtime", reason="again", actor="ana", receipt_ref=ref
        )
    )


@pytest.mark.parametrize("phase", ["P12", "P13", "P14"])
def test_a_job_that_never_ends_blocks_at_the_hard_stop(lane: Lane, phase: str) -> None:
    lane.through(phase)
    lane.agents = lambda: None  # type: ignore[method-assign]  # nobody hears the request
    assert lane.close(phase) == "OPEN"
    lane.turn(phase, patience=True)
    assert lane.blockers(phase) == [
        f"{PHASES[phase].blockers[-1 if phase == 'P12' else 0]} job ended: running, required DONE"
    ]


def blocked(*codes: str) -> Callable[[dict[str, Any]], None]:
    def change(result: dict[str, Any]) -> None:
        result["status"] = "BLOCKED"
        result["blockers"] = [{"code": code, "reason": "the job says so"} for code in codes]

    return change


@pytest.mark.parametrize(
    ("phase", "said", "codes"),
    [
        ("P12", B12, {B12, B12_1}),
        ("P12", B12_1, {B12_1}),
        ("P12", "DFULL-RUN-B7", {B12_1}),
        ("P13", B13_1, {B13, B13_1}),
        ("P13", B12, {B13}),
        ("P14", B14_1, {B14, B14_1}),
    ],
)
def test_a_blocked_job_blocks_its_phase_by_codes_of_that_phase(
    lane: Lane, phase: str, said: str, codes: set[str]
) -> None:
    lane.through(phase)
    lane.acted.change["result"] = blocked(said)
    assert lane.close(phase) == "BLOCKED"
    assert {found.split()[0] for found in lane.blockers(phase)} == codes


Change = Callable[[dict[str, Any]], None]


def setting(*path: Any, to: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        found: Any = document
        for name in path[:-1]:
            found = found[name]
        found[path[-1]] = to

    return change


P12_BROKEN = {
    "leakage found": ("leakage", setting("findings", 0, "violations", to=3), B12, "checks with violations"),
    "a poison passed": ("leakage", setting("findings", 1, "poison_caught", to=False), B12, "miss their own poison"),
    "a check without a number": ("leakage", setting("findings", 1, "violations", to=None), B12, "with violations"),
    "no finding at all": ("leakage", setting("findings", to=[]), B12, "checks that were not made"),
    "findings of nonsense": ("leakage", setting("findings", to=[7]), B12, "miss their own poison"),
    "labels not complete": ("readiness", setting("label_horizon_us", to=1), B12, "labels complete up to"),
    "another window": ("result", setting("dataset_fingerprint", to="0" * 64), B12_1, "window fingerprint"),
    "no report": ("result", setting("leakage", to=None), B12_1, "reports that do not read back"),
    "a ref of nonsense": ("result", setting("leakage", to={"key": 1}), B12_1, "reports that do not read back"),
    "another report": ("result", setting("leakage", "sha256", to="0" * 64), B12_1, "reports that do not read back"),
}


@pytest.mark.parametrize("what", P12_BROKEN)
def test_p12_blocks_on_each_broken_thing(lane: Lane, what: str) -> None:
    name, change, code, why = P12_BROKEN[what]
    lane.acted.change[name] = change
    assert lane.close("P12") == "BLOCKED"
    assert any(found.startswith(code) and why in found for found in lane.blockers("P12")), lane.blockers("P12")


def test_a_label_as_of_in_the_future_blocks_before_any_job_counts(lane: Lane) -> None:
    """Window 1 has not ended: nothing says that the label lane is closed up to the as-of."""
    lane.state = replace(lane.state, windows_ended={})
    assert lane.close("P12") == "BLOCKED"
    assert [found.split(":")[0] for found in lane.blockers("P12")] == [f"{B12} label as-of"]


def test_a_basis_with_less_than_was_reconciled_blocks(lane: Lane) -> None:
    lane.archive.counts[topics.TRAFFIC] += 1
    assert lane.close("P12") == "BLOCKED"
    assert lane.blockers("P12") == [
        f"{B12_1} basis covers what was reconciled: {topics.TRAFFIC}: 60 of 61, required all"
    ]


P13_BROKEN = {
    "parity not complete": ("parity", setting("equal", to=99), B13, "online/offline parity"),
    "parity of fewer payments": ("parity", lambda found: found.update(payments=99, equal=99), B13, "offline parity"),
    "parity denied": ("parity", setting("ok", to=False), B13, "parity report"),
    "recipe not executed": ("rollback_recipe", setting("executed", to=[]), B13, "rollback recipe executed"),
    "recipe that failed": ("rollback_recipe", setting("ok", to=False), B13, "rollback recipe executed"),
    "rows that do not add up": ("manifest", setting("rows", to=91), B13, "rows = labelled frauds + legit"),
    "payments that do not add up": ("manifest", setting("label_counts", "payments", to=101), B13, "payments = all"),
    "files that do not add up": ("manifest", setting("files", 0, "rows", to=1), B13_1, "rows = rows of the files"),
    "another fingerprint": ("manifest", setting("dataset_fingerprint", to="0" * 64), B13_1, "manifest's fingerprint"),
    "material that P12 did not leave": (
        "result", setting("material", to={"key": "datasets/x", "sha256": "0" * 64, "size": 1}), B13, "recomputed",
    ),
    "no manifest": ("result", setting("manifest", to=None), B13_1, "reports that do not read back"),
    "a manifest of nonsense": ("manifest", setting("columns", to=7), B13_1, "reports that do not read back"),
    "no recipe": ("result", setting("rollback_recipe", to=None), B13_1, "reports that do not read back"),
}  # fmt: skip


@pytest.mark.parametrize("what", P13_BROKEN)
def test_p13_blocks_on_each_broken_thing(lane: Lane, what: str) -> None:
    name, change, code, why = P13_BROKEN[what]
    lane.through("P13")
    lane.acted.change[name] = change
    assert lane.close("P13") == "BLOCKED"
    assert any(found.startswith(code) and why in found for found in lane.blockers("P13")), lane.blockers("P13")


def test_evidence_of_p12_that_was_changed_blocks_p13(lane: Lane) -> None:
    lane.through("P13")
    spoil(lane.evidence, evidence_key(lane, "P12", "readiness"))
    assert lane.close("P13") == "BLOCKED"
    assert lane.blockers("P13")[0].startswith(f"{B13_1} fingerprint that P12 committed: None")


def test_what_p12_left_is_handed_to_the_dataset_job_and_what_it_reused_is_said(lane: Lane) -> None:
    left = {"key": "datasets/x/material/y.arrow", "sha256": "1" * 64, "size": 9}
    lane.acted.change["result"] = setting("material", to=left)
    assert lane.close("P12") == "PASS"
    assert lane.close("P13") == "PASS"
    request = OfsRequest.model_validate_json(lane.jobs.jobs[lane.state.platform_run_id, "P13", 1].request)
    assert request.material is not None
    assert request.material.model_dump(mode="json") == left
    assert lane.evidence_of("P13", "fingerprint")["reused_material"] == left


def test_a_dataset_that_changed_between_p13_and_p14_blocks(lane: Lane) -> None:
    lane.through("P14")
    spoil(lane.learning, lane.evidence_of("P13", "manifest")["ref"]["key"])
    assert lane.close("P14") == "BLOCKED"
    assert lane.blockers("P14")[0].startswith(f"{B14} dataset of P13: EvidenceBroken")


def evidence_key(lane: Lane, phase: str, name: str) -> str:
    run = lane.state.platform_run_id
    return PHASES[phase].evidence_key(run, phase_execution_id(run, phase, 1), name)


def spoil(store: MemoryStore, key: str) -> None:
    """Other bytes under a write-once key, as a broken disk or a hand would leave them."""
    store.objects[key] += b" "


AP = ("summary", "candidate", "average_precision_ppm")
P14_BROKEN = {
    "under the floor": ("result", setting(*AP, to=499_999), B14_1, "precision"),
    "no precision": ("result", setting(*AP, to=None), B14_1, "precision"),
    "test before train": ("result", setting("summary", "windows", "test_start_us", to=9), B14, "result"),
    "no fraud in the test": ("result", setting("summary", "candidate", "frauds", to=0), B14_1, "test rows with fraud"),
    "a failed check": ("result", setting("summary", "checks", to=[["shuffle", False]]), B14_1, "shuffle"),
    "no check": ("result", setting("summary", "checks", to=[]), B14_1, "checks of the evaluation"),
    "not eligible": ("result", setting("eligible", to=False), B14_1, "eligible"),
    "no bundle": ("result", setting("bundle", to=None), B14, "names no bundle"),
    "no summary": ("result", setting("summary", to=None), B14, "names no bundle"),
    "another request": ("result", setting("train_request_digest", to="0" * 64), B14, "result of this request"),
    "another schema": ("fields", setting("feature_schema_digest", to="0" * 64), B14, "bundle: feature schema"),
    "another policy": ("fields", setting("policy_rev", to="p9"), B14, "bundle: policy"),
    "another dataset": ("fields", setting("dataset_fingerprint", to="0" * 64), B14, "provenance"),
    "corrupt model": ("fields", setting("model_size", to=7), B14, "model file"),
    "corrupt manifest": ("bundle", setting("model_digest", to="0" * 64), B14, "bundle manifest"),
    "no report": ("result", setting("eval_report", to=None), B14, "reports that do not read back"),
    "no safe-disable": ("result", setting("safe_disable", to=None), B14, "safe-disable path"),
    "no tracker refs": ("result", setting("mlflow_refs", to=None), B14, "reports that do not read back"),
}  # fmt: skip


@pytest.mark.parametrize("what", P14_BROKEN)
def test_p14_blocks_on_each_broken_thing(lane: Lane, what: str) -> None:
    name, change, code, why = P14_BROKEN[what]
    lane.through("P14")
    lane.acted.change[name] = change
    assert lane.close("P14") == "BLOCKED"
    assert any(found.startswith(code) and why in found for found in lane.blockers("P14")), lane.blockers("P14")
    assert lane.active() is None


def test_a_result_that_is_not_canonical_is_no_result(lane: Lane) -> None:
    lane.acted.change["result"] = setting("metrics", to={"rate": 0.5})
    assert lane.close("P12") == "BLOCKED"
    assert "not canonical" in lane.blockers("P12")[0]


@pytest.mark.parametrize("body", [b'{"rate": 0.5}', b"no JSON", b'{"a": 1, "a": 2}'])
def test_a_report_without_a_canonical_form_is_no_report(lane: Lane, body: bytes) -> None:
    ref = lane.learning.put("odd.json", body).model_dump(mode="json")
    lane.acted.change["result"] = setting("leakage", to=ref)
    assert lane.close("P12") == "BLOCKED"
    assert any("no canonical JSON" in found for found in lane.blockers("P12"))


def test_a_request_that_was_changed_in_the_store_is_not_run(lane: Lane) -> None:
    lane.desk.p12(lane.state)
    (asked,) = lane.jobs.jobs.values()
    spoil(lane.learning, asked.event.request.key)
    assert lane.close("P12") == "BLOCKED"
    assert lane.acted.ran == []
    assert "request EvidenceBroken" in lane.blockers("P12")[0]


def test_jobs_of_another_run_are_passed_over(lane: Lane) -> None:
    lane.desk.p12(lane.state)
    lane.state = replace(lane.state, platform_run_id="platform_20260301T080000Z-other")
    lane.agents()
    assert lane.acted.ran == []


def test_records_that_break_their_contract_are_passed_over(lane: Lane) -> None:
    for topic in (topics.OFS_REQUESTS, topics.REGISTRY_EVENTS):
        lane.events.on_record(Heard(topic, 0, 0, b"nonsense"))
    assert lane.events.metrics() == {"ofs_requests": 1, "registry_events": 1}
