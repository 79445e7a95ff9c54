"""Failure drill and recovery of the lanes ofs and mf: a job really killed in mid-work, and what its second run gave.

Two artifacts of one drill: the first rests on the kill and what it left, the second on what came after. Pure.
"""

from typing import Any

from fp_contracts import control as c
from fp_contracts.bundle import CANDIDATE, MANIFEST_FILE, bundle_id, candidate_note, model_digest, training_key
from fp_contracts.canonical import canonical_bytes, digest_of, sha256_hex
from fp_contracts.learning import DRILLED
from fp_verify.cells import Check
from fp_verify.jobcells import Proof, ended, result
from fp_verify.log import Documents, Log
from fp_verify.reading import at, embedded, none, same, whole

RTO_US = 900_000_000
FINAL = {"P13": ("manifest.json",), "P14": ("result.json", MANIFEST_FILE)}
"""What makes the outputs of a phase's job readable, put last: none of it may stand after a kill."""


def _drill(log: Log, phase: str) -> tuple[c.DrillRequested | None, c.DrillReported | None]:
    asked = next((one for one in log.state.drills.values() if one.instance == DRILLED[phase]), None)
    return asked, log.state.drill_reports.get(asked.drill_id) if asked is not None else None


def failure_drill(phase: str, log: Log, documents: Documents) -> Proof:
    """Killed by the requested drill, in mid-work, and nothing half-made can be read."""
    asked, told = _drill(log, phase)
    killed = at(ended(documents, phase), "killed")
    if asked is None or killed is None:
        seen = "not requested" if asked is None else "requested, no run of the job was killed"
        return [("drill", seen, "requested, and the job killed", False)], {}
    left = [str(at(one, "key")) for one in at(killed, "left") or []]
    readable = [key for key in left if key.rpartition("/")[2] in FINAL[phase]]
    moments = [whole(at(killed, name)) for name in ("started_us", "killed_us", "restarted_us")]
    ordered = None not in moments and moments == sorted(moments)  # type: ignore[type-var]
    return [
        same("drill", at(killed, "drill_id"), asked.drill_id),
        same("failpoint", at(killed, "failpoint"), asked.failpoint),
        same("end of the first run", f"{at(killed, 'outcome')} {at(killed, 'reason')}", "KILLED signal 9"),
        ("killed in mid-work", f"{at(killed, 'stage')} {at(killed, 'done')} of {at(killed, 'total')}, "
         f"{len(left)} objects put", "some put, none that makes them readable", bool(left) and not readable),
        none("readable objects of a killed run", readable),
        ("started, killed, started again", str(moments), "in this order", ordered),
        same("told on the control log", (told.killed_us, told.restarted_us) if told else None,
             (moments[1], moments[2])),
    ], {"drill": asked.model_dump(mode="json"), "killed": killed}  # fmt: skip


def _second_run(phase: str, log: Log, documents: Documents) -> tuple[list[Check], dict[str, Any]]:
    """The run after the kill: done, told, in measured time."""
    _, told = _drill(log, phase)
    event = ended(documents, phase)
    killed_us, restarted_us, ended_us = (
        whole(found) for found in (at(event, "killed", "killed_us"), at(event, "killed", "restarted_us"),
                                   at(event, "ended_us"))
    )  # fmt: skip
    took = None if killed_us is None or ended_us is None else ended_us - killed_us
    rerun = None if restarted_us is None or ended_us is None else ended_us - restarted_us
    return [
        ("killed run before it", str(killed_us is not None), "True", killed_us is not None),
        same("end of the second run", at(event, "outcome"), "DONE"),
        (
            "another process",
            f"{at(event, 'killed', 'runner_ref')}, then {at(event, 'runner_ref')}",
            "two",
            at(event, "killed", "runner_ref") != at(event, "runner_ref"),
        ),
        ("from the kill to the result, µs", str(took), f"at most {RTO_US}", took is not None and 0 < took <= RTO_US),
        same("told on the control log", told.recovered_us if told else None, ended_us),
    ], {"outage_us": took, "rerun_us": rerun}


def _left(documents: Documents, phase: str) -> dict[str, Any]:
    found = at(ended(documents, phase), "killed", "left") or []
    return {str(at(one, "key")): at(one, "sha256") for one in found}


def ofs_recovery(log: Log, documents: Documents) -> Proof:
    """The second build gave the dataset that was asked for, of the very bytes that the killed one had put."""
    checks, facts = _second_run("P13", log, documents)
    built, manifest = documents.get(("P13", "fingerprint")), embedded(documents.get(("P13", "manifest")))
    told, counts = result(documents, "P13"), at(manifest, "label_counts") or {}
    files = {str(at(one, "key")): one for one in at(manifest, "files") or []}
    rows = {key: sha256 for key, sha256 in _left(documents, "P13").items() if "/rows/" in key}
    other = [key for key, sha256 in rows.items() if at(files.get(key), "sha256") != sha256]
    labelled = sum(counts.get(name, 0) for name in ("fraud", "legit"))
    parts = sum(value for name, value in counts.items() if name != "payments")
    return [
        *checks,
        same("dataset fingerprint", at(manifest, "dataset_fingerprint"), at(built, "input_fingerprint")),
        same("digest of the intent", digest_of(at(manifest, "intent") or {}), at(built, "input_fingerprint")),
        ("row files that the killed run had put", str(len(rows)), "at least 1", bool(rows)),
        none("row files that differ from the killed run's", other),
        same("row digest", at(told, "row_digest"), at(manifest, "row_digest")),
        same("rows = labelled frauds + legit", at(manifest, "rows"), labelled),
        same("payments = all label counts", counts.get("payments"), parts),
        same("rows = rows of the files", at(manifest, "rows"), sum(at(one, "rows") or 0 for one in files.values())),
    ], {**facts, "dataset_fingerprint": at(manifest, "dataset_fingerprint"), "row_digest": at(manifest, "row_digest"),
        "row_files": rows}  # fmt: skip


def mf_recovery(log: Log, documents: Documents) -> Proof:
    """The second training fitted the very model that the killed one had noted, so the bundle has the same hash."""
    checks, facts = _second_run("P14", log, documents)
    asked = at(documents.get(("P14", "eval_report")), "request")
    digest = digest_of(asked) if asked else ""
    bundle = embedded(at(documents.get(("P14", "bundle_receipt")), "manifest")) or {}
    told = at(result(documents, "P14"), "bundle")
    note = sha256_hex(canonical_bytes(candidate_note(digest, str(at(bundle, "model_sha256")))))
    model = [str(at(bundle, name)) for name in ("model_sha256", "feature_schema_digest", "policy_rev")]
    dataset, report = embedded(documents.get(("P13", "manifest"))), embedded(documents.get(("P14", "eval_report")))
    return [
        *checks,
        same("note of the killed run's model", _left(documents, "P14").get(training_key(digest, CANDIDATE)), note),
        same("model digest", at(told, "model_digest"), model_digest(*model)),
        same("bundle hash", at(told, "bundle_id"), bundle_id(bundle)),
        same("bundle of this request", at(bundle, "train_request_digest"), digest),
        same("rows of the dataset = rows that were trained on and judged", at(report, "dataset", "rows"),
             at(dataset, "rows")),
        same("row digest", at(report, "dataset", "row_digest"), at(dataset, "row_digest")),
    ], {**facts, "bundle_id": at(told, "bundle_id"), "model_sha256": at(bundle, "model_sha256")}  # fmt: skip
