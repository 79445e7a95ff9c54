"""What the learning phases of a complete synthetic run leave as evidence, for tests. Pure."""

from typing import Any

from fp_contracts import control as c
from fp_contracts.bundle import CANDIDATE, bundle_id, candidate_note, model_digest, training_key
from fp_contracts.canonical import canonical_bytes, digest_of, sha256_hex
from fp_contracts.learning import DRILLED

HEX = "a" * 64
LOCK = sha256_hex(b"uv.lock")
RELEASED_JOBS = {package: sha256_hex(package.encode()) for package in DRILLED.values()}
DRILLS = {
    "P13": c.DrillRequested(drill_id="1" * 32, instance="fp_ofs", failpoint="ofs.after_rows:kill:1", actor="tester"),
    "P14": c.DrillRequested(drill_id="2" * 32, instance="fp_mf", failpoint="mf.after_fit:kill:1", actor="tester"),
}
STARTED_US, KILLED_US, RESTARTED_US, ENDED_US = 2_000_000_000, 2_003_000_000, 2_003_100_000, 2_008_000_000
INTENT = {"schema_version": "v1", "platform_run_id": "r"}
FINGERPRINT = digest_of(INTENT)
ROWS = {"key": f"datasets/{FINGERPRINT}/rows/00000.parquet", "sha256": sha256_hex(b"rows"), "size": 4}
INPUTS = {"fp.bus.traffic.fraud.v1": {"objects": 3, "size": 9, "digest": HEX}}
SERVED = {"fp.bus.rtdl.v1": {"objects": 2, "size": 5, "digest": HEX}}
QUALITY = {"rows": 90, "frauds": 5, "fraud_rate_ppm": 55_555, "coverage_ppm": 1_000_000, "conflict_ppm": 0,
           "degraded": 1}  # fmt: skip
PARITY = {"payments": 100, "equal": 100, "ok": True}
TRAIN_REQUEST = {"platform_run_id": "r", "environment_lock_digest": LOCK, "seed": 7}
REQUEST = digest_of(TRAIN_REQUEST)
READ_BACK = {"shuffled_ap": 3, "candidate_average_precision": 700_000, "baseline_average_precision": 500_000}


def carried(document: Any, key: str) -> dict[str, Any]:
    """A document as evidence carries it: with the reference of the object that it is."""
    body = canonical_bytes(document)
    return {"ref": {"key": key, "sha256": sha256_hex(body), "size": len(body)}, "fault": None, "document": document}


def job(phase: str, result: dict[str, Any], left: list[dict[str, Any]], drilled: bool) -> dict[str, Any]:
    """How a job ended; drilled = its first run was killed and left these objects."""
    shown = carried(result, f"jobs/{phase}/result.json")
    drill = DRILLS.get(phase)
    killed = None
    if drilled and drill is not None:
        killed = {
            "drill_id": drill.drill_id, "failpoint": drill.failpoint, "outcome": "KILLED", "reason": "signal 9",
            "runner_ref": "pid 1", "stage": "publish", "done": 1, "total": 3, "left": left, "started_us": STARTED_US,
            "killed_us": KILLED_US, "restarted_us": RESTARTED_US, "usage": {"wall_ms": 3},
        }  # fmt: skip
    ended = {"outcome": "DONE", "runner_ref": "pid 2", "ended_us": ENDED_US, "result": shown["ref"], "killed": killed}
    return {"ended": ended, "read_back": {"topic": "t", "partition": 0, "offset": 1}, "result": shown}


def runtime(package: str) -> dict[str, Any]:
    """What a job's process measured of itself."""
    return {"package": package, "instance": f"{package}-2", "build_digest": RELEASED_JOBS[package],
            "environment_lock": LOCK, "unlocked": [], "python": "3.11.7"}  # fmt: skip


def reported(phase: str) -> c.DrillReported:
    """What a drill of a job did, on the control log."""
    drill = DRILLS[phase]
    return c.DrillReported(drill_id=drill.drill_id, instance=drill.instance, killed_us=KILLED_US,
                           restarted_us=RESTARTED_US, recovered_us=ENDED_US, lag_at_restart=2)  # fmt: skip


def input_documents() -> dict[str, Any]:
    """P12's."""
    return {"readiness": {"job": job("P12", {"inputs": INPUTS}, [], drilled=False)}}


def dataset_documents(drilled: bool) -> dict[str, Any]:
    """P13's: a dataset whose build was killed once its rows were put, when `drilled`."""
    counts = {"payments": 100, "fraud": 5, "legit": 85, "filtered": 0, "immature": 10, "conflict": 0, "suspected": 0,
              "unlabelled": 0}  # fmt: skip
    manifest = {
        "dataset_fingerprint": FINGERPRINT, "intent": INTENT, "rows": 90, "row_digest": HEX, "label_counts": counts,
        "files": [{**ROWS, "rows": 90}],
    }  # fmt: skip
    told = {"runtime": runtime("fp_ofs"), "engine": "embedded", "inputs": SERVED, "row_digest": HEX}
    moves = [{"n": n, "move": move} for n, move in enumerate(("activate", "roll_back", "re_activate"), 1)]
    return {
        "fingerprint": {
            "dataset_fingerprint": FINGERPRINT, "input_fingerprint": FINGERPRINT, "intent": INTENT,
            "named_inputs": {**INPUTS, **SERVED}, "job": job("P13", told, [ROWS], drilled),
        },
        "manifest": carried(manifest, "datasets/manifest.json"),
        "quality": carried(QUALITY, "datasets/quality.json"), "parity": carried(PARITY, "datasets/parity.json"),
        "rollback_recipe": {"document": {"executed": moves, "ok": True}},
        "telemetry": {"source": "sink", "subject": "fp_ofs-2", "missing": [], "points": _build_points()},
    }  # fmt: skip


def _build_points() -> list[dict[str, Any]]:
    figures = {**QUALITY, **{name: PARITY[name] for name in ("payments", "equal")}}
    stages = [("read", 3, 6), ("read", 6, 6), ("publish", 3, 3)]
    return [
        *({"metric": "fp.job.progress", "value": done, "at_ns": 1,
           "attributes": {"job": "fp_ofs-2", "stage": stage, "total": total}} for stage, done, total in stages),
        *({"metric": "fp.job.quality", "value": value, "at_ns": 2, "attributes": {"job": "fp_ofs-2", "measure": name}}
          for name, value in figures.items()),
    ]  # fmt: skip


def training_documents(drilled: bool) -> dict[str, Any]:
    """P14's: a candidate whose training was killed once its model was fitted, when `drilled`."""
    fields: dict[str, Any] = {
        "model_sha256": HEX, "feature_schema_digest": HEX, "policy_rev": "spine-v1", "train_request_digest": REQUEST,
        "environment_lock_digest": LOCK,
    }  # fmt: skip
    fields["model_digest"] = model_digest(HEX, HEX, "spine-v1")
    bundle = {**fields, "bundle_id": bundle_id(fields)}
    note = canonical_bytes(candidate_note(REQUEST, HEX))
    left = [{"key": training_key(REQUEST, CANDIDATE), "sha256": sha256_hex(note), "size": len(note)}]
    told = {"runtime": runtime("fp_mf"), "bundle": {name: bundle[name] for name in ("bundle_id", "model_digest")}}
    refs = {"tracker": "mlflow", "run_id": "r1", "train_request_digest": REQUEST, "read_back_ppm": READ_BACK}
    return {
        "eval_report": {
            **carried(_report(), "training/eval_report.json"), "request": TRAIN_REQUEST,
            "job": job("P14", told, left, drilled),
        },
        "mlflow_refs": carried(refs, "training/mlflow_refs.json"),
        "bundle_receipt": {"manifest": carried(bundle, "bundles/bundle.json")},
    }  # fmt: skip


def _report() -> dict[str, Any]:
    figures = {"rows": 50, "frauds": 5, "auc_ppm": None, "card_precision_ppm": None, "calibration_error_ppm": None}
    summary = {
        "train_request_digest": REQUEST,
        "windows": {"train_start_us": 0, "train_end_us": 10, "test_start_us": 20, "test_end_us": 30},
        "candidate": {**figures, "average_precision_ppm": 700_000},
        "baseline": {**figures, "average_precision_ppm": 500_000}, "active": None, "floor_ppm": 500_000,
        "average_precision_low_ppm": 1, "average_precision_high_ppm": 2, "shuffled_ap_ppm": 3,
        "prevalence_ppm": 50_000, "checks": [["label_shuffle", True]], "notes": [],
    }  # fmt: skip
    return {
        "summary": summary, "dataset": {"rows": 90, "row_digest": HEX},
        "drift_trial": {
            "mark_ppm": 250_000, "moved": "amount",
            "undrifted": {"psi_ppm": {"amount": 9_000, "score": 1_000}, "alarm": []},
            "drifted": {"psi_ppm": {"amount": 9_000_000, "score": 1_000}, "alarm": ["amount"]},
        },
    }  # fmt: skip


def bundle_points(run: str, switches: list[c.BundleSwitched]) -> dict[str, Any]:
    """P15's telemetry: each switch as the gauge moved, the one before it to 0 first."""
    points: list[dict[str, Any]] = []
    last: dict[int, dict[str, Any]] = {}
    for switch in switches:
        if (before := last.get(switch.partition)) is not None:
            points.append({"metric": "fp.bundle.active", "value": 0, "attributes": before, "at_ns": 3})
        last[switch.partition] = {
            "run": run, "partition": switch.partition, "revision": switch.revision, "merged_n": switch.merged_n,
            "bundle": switch.bundle_ref or "guardrails",
        }  # fmt: skip
        points.append({"metric": "fp.bundle.active", "value": 1, "attributes": last[switch.partition], "at_ns": 3})
    return {"source": "sink", "subject": run, "missing": [], "points": points}
