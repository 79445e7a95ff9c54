"""Small bundles of both families over made-up features, for the tests of all who load bundles."""

from functools import cache
from typing import Any

import numpy as np

from fp_contracts.bundle import BundleManifest, BundleRef
from fp_contracts.canonical import sha256_hex
from fp_contracts.control import EvidenceRef
from fp_models import Bundle, load, pack
from fp_models.boosted import xgboost
from fp_models.logistic import LogisticModel
from fp_models.model import Matrix

SCHEMA = "5c" * 32
FEATURES = 6


def rows(count: int, seed: int = 3) -> Matrix:
    """Payments with long tails, as amounts and counts have."""
    return np.random.default_rng(seed).lognormal(2.0, 2.0, (count, FEATURES))


def logistic_bytes() -> bytes:
    draws = np.random.default_rng(5).normal(size=(2, FEATURES)).tolist()
    return LogisticModel(tuple(draws[0]), (1.5,) * FEATURES, tuple(draws[1]), -1.25).to_bytes()


@cache
def boosted_bytes(objective: str = "binary:logistic", features: int = FEATURES) -> bytes:
    matrix = rows(2_000)[:, :features]
    truth = (matrix[:, 0] > 12.0) ^ (matrix[:, 1] > 30.0)
    library = xgboost()
    settings = {"objective": objective, "tree_method": "exact", "max_depth": 4, "nthread": 1, "base_score": 0.5}
    booster = library.train(settings, library.DMatrix(matrix, truth.astype(np.float64)), 40)
    return bytes(booster.save_raw("ubj"))


def fields(family: str = "xgboost", **changed: Any) -> dict[str, Any]:
    return {
        "family": family,
        "feature_set": "made.v1",
        "feature_schema_digest": SCHEMA,
        "feature_names": [f"f{index}" for index in range(FEATURES)],
        "policy_rev": "policy-1",
        "thresholds": {"step_up_ppm": 100_000, "review_ppm": 500_000, "block_ppm": 900_000},
        "dataset_fingerprint": "da" * 32,
        "dataset_sha256": "db" * 32,
        "train_request_digest": "dc" * 32,
        "code_release": "r1",
        "environment_lock_digest": "dd" * 32,
        **changed,
    }


def files(family: str = "xgboost", **changed: Any) -> dict[str, bytes]:
    return pack(fields(family, **changed), logistic_bytes() if family == "logistic" else boosted_bytes())


def ref_to(bundle_files: dict[str, bytes], key: str = "bundles/b/bundle.json") -> BundleRef:
    raw = bundle_files["bundle.json"]
    manifest = BundleManifest.model_validate_json(raw)
    named = EvidenceRef(key=key, sha256=sha256_hex(raw), size=len(raw))
    return BundleRef(bundle_id=manifest.bundle_id, model_digest=manifest.model_digest, manifest=named)


def load_sample(family: str = "xgboost") -> Bundle:
    """A bundle of this family, loaded."""
    return load(files(family), schema_digest=SCHEMA)
