"""The non-negotiable test: any single change to a green run's bundle turns it to FAIL with the right blocker."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import EvidenceRef
from fp_contracts.proofs import PROOFS
from fp_verify.bundle import INDEX, LOG, export, load, verify_bundle
from fp_verify.check import verify
from fp_verify.log import RawRecord, read_log
from fp_verify.sample import RUN, GreenRun, close_p16, green_run, until_p11, until_p15
from fp_verify.verdict import merkle_root

BY_FOLDER = {
    "operate": "DFULL-RUN-B2", "oracle": "DFULL-RUN-B3", "sr": "DFULL-RUN-B5", "streaming": "DFULL-RUN-B6",
    "rtdl": "DFULL-RUN-B8", "decision": "DFULL-RUN-B9", "case_labels": "DFULL-RUN-B10", "obs": "DFULL-RUN-B11",
    "governance": "DFULL-RUN-B11", "full_platform": "DFULL-RUN-B16", "proofs": "DFULL-RUN-B16",
    "run_pin": "DFULL-RUN-B1",
}  # fmt: skip
LEARNING = {"input": "DFULL-RUN-B12", "ofs": "DFULL-RUN-B13", "mf": "DFULL-RUN-B14", "mpr": "DFULL-RUN-B15"}
INGEST = {"preflight": "DFULL-RUN-B4", "receipt_summary": "DFULL-RUN-B7", "quarantine_summary": "DFULL-RUN-B7",
          "offset_proof": "DFULL-RUN-B7"}  # fmt: skip
CONTROL = {"stack_snapshots": "DFULL-RUN-B0", "handle_conformance": "DFULL-RUN-B0", "budget": "DFULL-RUN-B0"}


def expected_blocker(key: str) -> str:
    name = key.rpartition("/")[2].removesuffix(".json")
    if key in (INDEX, LOG):
        return "DFULL-RUN-B16.1"
    if "/run_control/" in key:
        return CONTROL.get(name, "DFULL-RUN-BP1")
    folder, below = key.split("/")[3:5]
    if "rehearsal" in key or "scratch" in key:
        return "DFULL-RUN-B16"
    if below == "window-2":
        return "DFULL-RUN-B15"
    if folder == "learning":
        return LEARNING[below]
    return INGEST[name] if folder == "ingest" else BY_FOLDER[folder]


def bundle_of(run: GreenRun, folder: Path) -> dict[str, bytes]:
    export(RUN, run.objects.__getitem__, run.objects, run.records, folder)
    return load(folder)


def full_run() -> GreenRun:
    run = until_p15()
    close_p16(run)
    return run


RUNS = {"spine": green_run, "full": full_run}


@pytest.fixture(scope="module", params=RUNS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return bundle_of(RUNS[request.param](), tmp_path_factory.mktemp("bundle"))


def test_a_green_run_verifies(files: dict[str, bytes]) -> None:
    result = verify_bundle(files)
    assert result.mismatches == ()
    verdict = "GREEN" if any("/learning/" in key for key in files) else "BLOCKED"
    assert (result.result, result.verdict, result.spine_verdict) == ("PASS", verdict, "GREEN")
    assert result.objects == len(files) - 2


MUTATIONS: dict[str, Callable[[bytes], bytes | None]] = {
    "delete": lambda body: None,
    "truncate": lambda body: body[:-1],
    "flip": lambda body: body[: len(body) // 2] + bytes((body[len(body) // 2] ^ 1,)) + body[len(body) // 2 + 1 :],
    "empty": lambda body: b"",
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_single_change_is_found(files: dict[str, bytes], name: str) -> None:
    for key, body in files.items():
        changed = MUTATIONS[name](body)
        broken = {k: v for k, v in files.items() if k != key} | ({} if changed is None else {key: changed})
        result = verify_bundle(broken)
        assert result.result == "FAIL", key
        blockers = {m.blocker for m in result.mismatches}
        # A changed entry of the index accuses the object that it names, by that object's blocker.
        assert expected_blocker(key) in blockers or (key == INDEX and blockers), (key, result.mismatches)


def test_every_swap_of_two_objects_is_found(files: dict[str, bytes]) -> None:
    keys = [key for key in files if key not in (INDEX, LOG)]
    for one, other in zip(keys, keys[1:] + keys[:1], strict=True):
        result = verify_bundle({**files, one: files[other], other: files[one]})
        found = {m.blocker for m in result.mismatches}
        assert result.result == "FAIL"
        assert {expected_blocker(one), expected_blocker(other)} <= found, (one, other)


def test_every_byte_of_one_object_counts(files: dict[str, bytes]) -> None:
    key = next(key for key in files if key.endswith("/receipt_summary.json"))
    body = files[key]
    for at in range(len(body)):
        flipped = body[:at] + bytes((body[at] ^ 0x20,)) + body[at + 1 :]
        assert verify_bundle({**files, key: flipped}).result == "FAIL"


def test_a_stray_file_is_found(files: dict[str, bytes]) -> None:
    result = verify_bundle({**files, f"evidence/runs/{RUN}/stray.json": b"{}"})
    assert [m.why for m in result.mismatches] == ["not named by the index"]


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - {"delete"}))
def test_an_index_that_was_mended_after_the_change_does_not_help(name: str) -> None:
    run = green_run()
    for key in list(run.objects):
        body = run.objects[key]
        run.objects[key] = MUTATIONS[name](body) or b""
        result = verify(run.objects.__getitem__, read_log(RUN, run.records))
        run.objects[key] = body
        assert expected_blocker(key) in {m.blocker for m in result.mismatches}, key


def with_final(change: dict[str, object]) -> GreenRun:
    """A run whose verdict says something else, consistently: object, gate and announcement agree."""
    run = until_p11()
    close_p16(run)
    key = next(key for key in run.objects if key.endswith("/final_verdict.json"))
    old = run.objects[key]
    new = canonical_bytes({**orjson.loads(old), **change})
    swaps = [(EvidenceRef(key=key, sha256=_sha(old), size=len(old)), EvidenceRef(key=key, sha256=_sha(new),
              size=len(new)))]  # fmt: skip
    run.objects[key] = new
    for was, now in swaps:
        run.records = [
            RawRecord(r.offset, r.key, r.value.replace(was.sha256.encode(), now.sha256.encode()).replace(
                f'"size":{was.size}}}'.encode(), f'"size":{now.size}}}'.encode())) for r in run.records
        ]  # fmt: skip
    return run


def _sha(body: bytes) -> str:
    import hashlib

    return hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("change", [{"verdict": "GREEN"}, {"merkle_root": "0" * 64}, {"open": []}])
def test_a_verdict_that_does_not_recompute_is_inconsistent(change: dict[str, object]) -> None:
    run = with_final(change)
    result = verify(run.objects.__getitem__, read_log(RUN, run.records))
    assert "DFULL-RUN-B16.1" in {m.blocker for m in result.mismatches}


def test_a_changed_heartbeat_or_any_other_record_is_found() -> None:
    run = green_run()
    for at, record in enumerate(run.records[:-3]):
        changed = record.value.replace(b'"producer":"tester"', b'"producer":"nobody"')
        assert changed != record.value
        records = [*run.records[:at], record._replace(value=changed), *run.records[at + 1 :]]
        result = verify(run.objects.__getitem__, read_log(RUN, records))
        assert result.result == "FAIL"


def test_a_missing_object_after_the_teardown_is_b17_1() -> None:
    run = green_run()
    run.close("P17")
    key = next(key for key in run.objects if key.endswith("/receipt_summary.json"))
    del run.objects[key]
    result = verify(run.objects.__getitem__, read_log(RUN, run.records))
    assert [(m.key, m.blocker) for m in result.mismatches if m.key == key] == [(key, "DFULL-RUN-B17.1")]


def test_without_a_drill_three_cells_are_open_and_the_spine_is_blocked() -> None:
    run = until_p11(drill=False)
    key = close_p16(run)
    final = orjson.loads(run.objects[key])
    assert {p for p in PROOFS if final["proofs"]["spine"][p] == "OPEN"} == {"monitor", "failure_drill", "recovery"}
    assert final["spine_verdict"] == "BLOCKED"
    assert all(line.startswith("spine/") for line in final["spine_open"])
    assert verify(run.objects.__getitem__, read_log(RUN, run.records)).result == "PASS"


def test_a_run_without_a_verdict_fails() -> None:
    run = until_p11()
    result = verify(run.objects.__getitem__, read_log(RUN, run.records))
    assert (result.result, result.mismatches[0].blocker) == ("FAIL", "DFULL-RUN-B16.1")


def test_the_merkle_root_depends_on_every_leaf_and_not_on_their_order() -> None:
    refs = [EvidenceRef(key=f"k{n}", sha256="a" * 64, size=n) for n in range(7)]
    assert merkle_root(refs) == merkle_root(refs[::-1])
    roots = {merkle_root([*refs[:n], refs[n].model_copy(update={"size": 99}), *refs[n + 1 :]]) for n in range(7)}
    assert len(roots | {merkle_root(refs)}) == 8


def test_the_command_reads_folders_and_archives(tmp_path: Path) -> None:
    run = green_run()
    archive = tmp_path / "run.tar.gz"
    export(RUN, run.objects.__getitem__, run.objects, run.records, archive)
    done = subprocess.run([sys.executable, "-m", "fp_verify", archive, "-o", "json"], capture_output=True, check=False)
    assert (done.returncode, orjson.loads(done.stdout)["result"]) == (0, "PASS")
    del run.objects[next(iter(run.objects))]
    folder = tmp_path / "broken"
    export(RUN, run.objects.__getitem__, run.objects, run.records, folder)
    told = subprocess.run([sys.executable, "-m", "fp_verify", folder], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "DFULL-RUN-BP1" in told.stdout
    nothing = subprocess.run([sys.executable, "-m", "fp_verify", tmp_path / "no"], check=False, capture_output=True)
    assert nothing.returncode == 2
