"""What a training leaves behind, as files: report, scores, profile, bundle, proof of the way back. Pure."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fp_contracts.bundle import (
    MANIFEST_FILE,
    PROFILE_FILE,
    BundleManifest,
    EvalRows,
    Family,
    Thresholds,
    TrainRequest,
)
from fp_contracts.canonical import sha256_hex
from fp_contracts.dataset import DatasetManifest
from fp_mf import drift, metrics
from fp_mf.errors import FAILED, Blocked
from fp_mf.evaluate import Trained
from fp_mf.metrics import ppm
from fp_models import BundleBroken, load, pack
from fp_models.model import Scores

GUARDRAILS = "guardrails only: no score, the policy's rules decide"


def bundle_files(request: TrainRequest, dataset: DatasetManifest, trained: Trained) -> dict[str, bytes]:
    """The candidate's bundle by file name, its profile among them."""
    model = _Model(request.family, trained.model_bytes, trained.thresholds, trained.scores)
    return _files(request, dataset, trained, model)


def challenger_files(request: TrainRequest, dataset: DatasetManifest, trained: Trained) -> dict[str, bytes] | None:
    """The baseline's bundle, of the same training and with the same provenance; None when it is no model."""
    if trained.challenger is None:
        return None
    model = _Model("logistic", *trained.challenger, trained.baseline_scores)
    return _files(request, dataset, trained, model)


class _Model(NamedTuple):
    """One of the models of a training; scores are of the test rows."""

    family: Family
    body: bytes
    thresholds: Thresholds
    scores: Scores


def _files(request: TrainRequest, dataset: DatasetManifest, trained: Trained, model: _Model) -> dict[str, bytes]:
    profile = drift.profile(dataset.features(), trained.split.test.features, model.scores)
    fields = {
        "family": model.family,
        "feature_set": request.feature_set,
        "feature_schema_digest": request.feature_schema_digest,
        "feature_names": list(dataset.features()),
        "policy_rev": request.policy_rev,
        "thresholds": model.thresholds.model_dump(mode="json"),
        "profile_sha256": sha256_hex(profile),
        "dataset_fingerprint": dataset.dataset_fingerprint,
        "dataset_sha256": request.dataset.manifest.sha256,
        "train_request_digest": request.digest,
        "code_release": request.code_release,
        "environment_lock_digest": request.environment_lock_digest,
    }
    return {PROFILE_FILE: profile, **pack(fields, model.body)}


def manifest_of(files: Mapping[str, bytes]) -> BundleManifest:
    """The manifest among these files."""
    return BundleManifest.model_validate_json(files[MANIFEST_FILE])


def scores_parquet(trained: Trained) -> bytes:
    """event_id and score (float64) of the test rows, in their order; the same scores give the same bytes."""
    table = pa.table(
        {"event_id": pa.array(trained.split.test.event_ids.tolist(), pa.string()), "score": trained.scores}
    )
    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd")
    return body.getvalue()


def eval_rows(trained: Trained) -> EvalRows:
    """The test rows by event id, in the order of their scores."""
    return EvalRows(event_ids=tuple(trained.split.test.event_ids.tolist()))


def report(
    request: TrainRequest, dataset: DatasetManifest, trained: Trained, moved: Mapping[str, int]
) -> dict[str, Any]:
    """The full evaluation report; every share in ppm."""
    labels, scores = trained.split.test.labels, trained.scores
    return {
        "schema_version": "v1",
        "request": request.model_dump(mode="json"),
        "dataset": {"rows": dataset.rows, "row_digest": dataset.row_digest, "fraud": dataset.label_counts.fraud},
        "windows": {
            name: {"rows": len(part.labels), "frauds": part.frauds}
            for name, part in (("train", trained.split.train), ("test", trained.split.test))
        },
        "unlabelled_rows_between": len(trained.split.between.labels),
        "hyperparameters": trained.settings.model_dump(mode="json") if request.family == "xgboost" else {},
        "summary": trained.summary.model_dump(mode="json"),
        "checks": [check._asdict() for check in trained.checks],
        "thresholds": trained.thresholds.model_dump(mode="json"),
        "confusion": metrics.confusion(labels, scores, trained.thresholds),
        "reliability": [
            {"rows": item.rows, "mean_score_ppm": ppm(item.mean_score), "fraud_share_ppm": ppm(item.fraud_share)}
            for item in metrics.reliability(labels, scores)
        ],
        "segments": _segments(trained),
        "importance_ppm": dict(trained.importance),
        "drift_psi_ppm": dict(moved),
        "drift_alarm": drift.alarm(moved),
        "drift_trial": drift.trial(trained.split.test.names, trained.split.test.features, scores),
        "scores_sha256": sha256_hex(np.ascontiguousarray(scores, "<f8").tobytes()),
    }


def _segments(trained: Trained) -> list[dict[str, Any]]:
    test = trained.split.test
    return [
        {
            "segment": name, "value": value, "rows": rows, "frauds": frauds,
            "average_precision_ppm": None if ap is None else ppm(ap), "mean_score_ppm": ppm(mean),
        }
        for name, value, rows, frauds, ap, mean in metrics.by_segment(test.segments, test.labels, trained.scores)
    ]  # fmt: skip


def safe_disable(request: TrainRequest, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Proof that a bad copy of this bundle cannot be used and what stands in for it.

    Errors: Blocked B14 when a spoiled copy loads, or the good one does not.
    """
    manifest, digest = manifest_of(files), request.feature_schema_digest
    body = files[manifest.model_file]
    flipped = body[:-1] + bytes([body[-1] ^ 1])
    spoiled: dict[str, tuple[Mapping[str, bytes], str]] = {
        "model_byte_flipped": ({**files, manifest.model_file: flipped}, digest),
        "model_missing": ({MANIFEST_FILE: files[MANIFEST_FILE]}, digest),
        "manifest_cut_short": ({**files, MANIFEST_FILE: files[MANIFEST_FILE][:-1]}, digest),
        "other_feature_schema": (files, sha256_hex(digest.encode())),
    }
    try:
        load(files, schema_digest=digest)
    except BundleBroken as error:
        raise Blocked(FAILED, f"the candidate's own bundle does not load: {error}") from error
    refusals = {name: _refusal(copy, asked) for name, (copy, asked) in spoiled.items()}
    accepted = [name for name, reason in refusals.items() if reason is None]
    if accepted:
        raise Blocked(FAILED, f"spoiled copies of the bundle load: {', '.join(accepted)}")
    return {
        "bundle_id": manifest.bundle_id,
        "refused": refusals,
        "previous": None if request.active is None else request.active.model_dump(mode="json"),
        "stands_in": GUARDRAILS if request.active is None else f"bundle {request.active.bundle_id}",
        "last_resort": GUARDRAILS,
    }


def _refusal(files: Mapping[str, bytes], schema_digest: str) -> str | None:
    try:
        load(files, schema_digest=schema_digest)
    except BundleBroken as error:
        return error.reason
    return None
