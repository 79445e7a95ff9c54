"""Every record and every reference of the control log counts, whether it came before the verdict was drawn or after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from fp_contracts import control as c
from fp_contracts.canonical import digest_of, sha256_hex
from fp_contracts.phases import PHASES
from fp_verify.bundle import export, load, verify_bundle
from fp_verify.check import Result, verify
from fp_verify.log import RawRecord, read_log
from fp_verify.sample import RUN, GreenRun, close_p16, green_run, until_p11, until_p15
from fp_verify.sources import blocker_of

GONE = "DFULL-RUN-B17.1"


def torn_down(build: Callable[[], GreenRun]) -> GreenRun:
    """A run with a verdict, P17 passed, its addendum put, and one more reference behind the verdict."""
    run = build()
    close_p16(run)
    run.say(c.WindowEnded(window=9, lane_seqs={}, ledger_ref=run.put("evidence/late/ledger.json", {"window": 9})), "9")
    run.close("P17")
    state = read_log(RUN, run.records).state
    gate = state.attempts["P17"].event
    assert gate is not None
    assert state.verdict is not None
    document = {
        "platform_run_id": RUN, "verdict_sha256": state.verdict.verdict_ref.sha256, "at_us": 1,
        "teardown": {ref.key.rpartition("/")[2].removesuffix(".json"): ref.sha256 for ref in gate.evidence},
        "residue_after_servers": [],
    }  # fmt: skip
    key = PHASES["P17"].evidence_key(RUN, gate.phase_execution_id, "addendum")
    run.put(key, document | {"digest": digest_of(document)})
    return run


RUNS = {"spine": until_p11, "full": until_p15}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest) -> GreenRun:
    return torn_down(RUNS[request.param])


def judged(run: GreenRun, objects: dict[str, bytes] | None = None) -> Result:
    return verify((run.objects if objects is None else objects).__getitem__, read_log(RUN, run.records))


def test_a_torn_down_run_verifies(run: GreenRun) -> None:
    assert judged(run).mismatches == ()
    named = {ref.key for _, ref in read_log(RUN, run.records).refs()}
    proofs = {key for key in run.objects if "/proofs/" in key}
    assert judged(run).objects == len(named | proofs) == len(run.objects) - 1  # the addendum: nothing names it


def test_every_reference_that_is_gone_is_named(run: GreenRun) -> None:
    refs = list(read_log(RUN, run.records).refs())
    assert {"P16", "P17", "P6"} < {phase for phase, _ in refs}
    for _, ref in refs:
        result = judged(run, {key: body for key, body in run.objects.items() if key != ref.key})
        assert result.result == "FAIL"
        assert (ref.key, "missing", GONE) in {(m.key, m.why, m.blocker) for m in result.mismatches}


@pytest.mark.parametrize("forged", [b'{"forged":true}', b"", b"[]", b"\xff"])
def test_every_reference_with_other_bytes_is_named_by_its_owners_blocker(run: GreenRun, forged: bytes) -> None:
    for phase, ref in read_log(RUN, run.records).refs():
        result = judged(run, {**run.objects, ref.key: forged})
        assert result.result == "FAIL"
        assert (ref.key, blocker_of(phase)) in {(m.key, m.blocker) for m in result.mismatches}


def test_every_flipped_byte_of_p17s_evidence_is_named(run: GreenRun) -> None:
    for phase, ref in read_log(RUN, run.records).refs():
        for at in range(ref.size if phase == "P17" else 0):
            body = bytearray(run.objects[ref.key])
            body[at] ^= 1
            assert ref.key in {m.key for m in judged(run, {**run.objects, ref.key: bytes(body)}).mismatches}


def test_a_bundle_that_was_exported_without_it_does_not_pass(run: GreenRun, tmp_path: Path) -> None:
    for n, name in enumerate(PHASES["P17"].evidence):
        objects = {key: body for key, body in run.objects.items() if not key.endswith(f"/{name}.json")}
        assert len(objects) < len(run.objects)
        export(RUN, objects.__getitem__, objects, run.records, tmp_path / str(n))
        result = verify_bundle(load(tmp_path / str(n)))
        assert (result.result, {m.blocker for m in result.mismatches}) == ("FAIL", {GONE})


def test_before_a_teardown_what_is_gone_is_its_owners() -> None:
    run = green_run()
    assert judged(run).result == "PASS"
    for phase, ref in read_log(RUN, run.records).refs():
        found = judged(run, {key: body for key, body in run.objects.items() if key != ref.key}).mismatches
        assert (ref.key, blocker_of(phase)) in {(m.key, m.blocker) for m in found}


def test_a_teardown_that_was_blocked_keeps_its_evidence_too() -> None:
    run = green_run()
    shown = run.put("evidence/blocked/snapshot.json", {"left": 1})
    receipt = c.Receipt(phase="P17", attempt=1, spend_microusd=0, first_sample=0, last_sample=0, window_us=0,
                        artifacts=(), risk_retired="")  # fmt: skip
    run.say(c.GateBlocked(phase="P17", attempt=1, phase_execution_id="a" * 32, checks=(), evidence=(shown,),
                          blockers=(), receipt=receipt))  # fmt: skip
    assert judged(run).result == "PASS"
    del run.objects[shown.key]
    assert [(m.key, m.blocker) for m in judged(run).mismatches] == [(shown.key, "DFULL-RUN-B17")]


def changed(run: GreenRun, change: Callable[[dict[str, Any]], object]) -> GreenRun:
    """The run with another last record, which is P17's gate."""
    *before, last = run.records
    record = orjson.loads(last.value)
    assert record["payload"]["phase"] == "P17"
    change(record["payload"])
    return GreenRun(records=[*before, last._replace(value=orjson.dumps(record))], objects=run.objects)


GATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "passed over failed checks": lambda gate: gate["checks"][0].update(ok=False),
    "passed over failed checks: no check": lambda gate: gate["checks"].clear(),
    "evidence is ": lambda gate: gate["evidence"].pop(),
    "the receipt is of another attempt": lambda gate: gate["receipt"].update(attempt=2),
    "the execution id does not recompute": lambda gate: gate.update(phase_execution_id="a" * 32),
    "evidence outside its attempt": lambda gate: gate["evidence"][0].update(
        key="evidence/elsewhere/" + gate["evidence"][0]["key"].rpartition("/")[2]
    ),
}


@pytest.mark.parametrize("why", GATES)
def test_p17_must_show_what_every_gate_must(why: str) -> None:
    run = green_run()
    run.close("P17")
    assert judged(changed(run, dict.copy)).result == "PASS"
    found = [m for m in judged(changed(run, GATES[why])).mismatches if m.key == "gate P17"]
    assert [(m.why[: len(why)], m.blocker) for m in found] == [(why, "DFULL-RUN-B17")]


def of_p99(run: GreenRun, at: int) -> RawRecord:
    """A gate of a phase that nobody knows, at a place between two records."""
    gate = orjson.loads(next(r.value for r in run.records if b'"type":"gate_passed"' in r.value))
    gate["payload"]["phase"] = "P99"
    return RawRecord(at, RUN.encode(), orjson.dumps(gate))


@pytest.mark.parametrize("after", [True, False])
def test_a_record_that_breaks_its_contract_is_named_and_cannot_be_taken_out(after: bool, tmp_path: Path) -> None:
    run = until_p11()
    if after:
        close_p16(run)
    odd = of_p99(run, run.records[-1].offset + 1)
    run.records.append(odd)
    if not after:
        close_p16(run)
    export(RUN, run.objects.__getitem__, run.objects, run.records, tmp_path)
    result = verify_bundle(load(tmp_path))
    key = f"control log, offset {odd.offset}"
    assert [(m.why, m.blocker) for m in result.mismatches if m.key == key] == [
        ("gate_passed.phase: Value error, no such phase", "DFULL-RUN-B16.1")
    ]
    final = orjson.loads(next(body for key, body in run.objects.items() if key.endswith("/final_verdict.json")))
    assert final["phases"]["P11"]["state"] == ("PASS" if after else "BLOCKED")
    run.records.remove(odd)
    assert judged(run).result == ("PASS" if after else "FAIL")


def test_a_record_under_the_key_of_another_run_is_named() -> None:
    run = green_run()
    at, last = len(run.records) - 1, run.records[-1]
    run.records[at] = last._replace(value=last.value.replace(RUN.encode(), b"platform_20260101T000009Z"))
    assert ("key and envelope name different runs", "DFULL-RUN-B16.1") in {
        (m.why, m.blocker) for m in judged(run).mismatches
    }


ODD: dict[str, bytes] = {"a list": b"[]", "no JSON": b"{", "null": b"null", "binary": b"\xff\x00"}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("phase", ["P2", "P9", "P11", "P17"])
def test_evidence_whose_hash_holds_and_that_is_no_json_object_is_a_fault(
    phase: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, odd = GreenRun.put, []

    def putting(run: GreenRun, key: str, document: Any) -> c.EvidenceRef:
        ref = put(run, key, document)
        if f"/{PHASES[phase].folder}/" not in key:
            return ref
        run.objects[key], body = ODD[name], ODD[name]
        odd.append(key)
        return c.EvidenceRef(key=key, sha256=sha256_hex(body), size=len(body))

    monkeypatch.setattr(GreenRun, "put", putting)
    run = green_run()
    run.close("P17")
    result = judged(run)
    assert odd
    assert {(key, "is no JSON object", blocker_of(phase)) for key in odd} <= {
        (m.key, m.why, m.blocker) for m in result.mismatches
    }


@pytest.mark.parametrize(("name", "field"), [("decision_snapshot", "by_policy_rev"), ("reconciliation", "equations")])
@pytest.mark.parametrize("value", [7, "x", None, [1], {"a": []}, 1.5, {"a": 2**64 - 1}])
def test_evidence_of_another_form_fails_and_does_not_raise(name: str, field: str, value: Any) -> None:
    run = green_run()
    was = next(ref for _, ref in read_log(RUN, run.records).refs() if ref.key.endswith(f"/{name}.json"))
    body = orjson.dumps(orjson.loads(run.objects[was.key]) | {field: value})
    run.objects[was.key], now = body, c.EvidenceRef(key=was.key, sha256=sha256_hex(body), size=len(body))
    for at, record in enumerate(run.records):
        named = record.value.replace(was.sha256.encode(), now.sha256.encode())
        size = [f'"size":{ref.size}}}'.encode() for ref in (was, now)]
        run.records[at] = record._replace(value=named if named == record.value else named.replace(*size))
    assert judged(run).result == "FAIL"
