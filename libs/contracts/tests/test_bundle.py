"""Bundle manifests hold together, and equal requests have equal digests."""

from typing import Any

import pytest
from pydantic import ValidationError

from fp_contracts.bundle import (
    ActionBudgets,
    BundleManifest,
    DatasetRef,
    Thresholds,
    TimeBounds,
    TrainRequest,
    bundle_id,
    model_digest,
)
from fp_contracts.canonical import canonical_bytes
from fp_contracts.control import EvidenceRef

HEX = "ab" * 32


def manifest_fields() -> dict[str, Any]:
    fields: dict[str, Any] = {
        "format": "fp.bundle.v1",
        "family": "xgboost",
        "model_file": "model.ubj",
        "model_sha256": HEX,
        "model_size": 10,
        "model_digest": model_digest(HEX, HEX, "policy-1"),
        "feature_set": "core.v1",
        "feature_schema_digest": HEX,
        "feature_names": ["amount"],
        "policy_rev": "policy-1",
        "thresholds": {"step_up_ppm": 1, "review_ppm": 2, "block_ppm": None},
        "dataset_fingerprint": HEX,
        "dataset_sha256": HEX,
        "train_request_digest": HEX,
        "code_release": "r1",
        "environment_lock_digest": HEX,
    }
    return {"bundle_id": bundle_id(fields), **fields}


def read(fields: dict[str, Any]) -> BundleManifest:
    return BundleManifest.model_validate_json(canonical_bytes(fields))


def test_a_manifest_reads_back_as_it_was_written() -> None:
    fields = manifest_fields()
    assert read(fields).model_dump(mode="json", exclude_unset=True) == fields


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("bundle_id", "0" * 32, "bundle_id is not that of the manifest"),
        ("policy_rev", "policy-2", "model_digest is not that of"),
        ("model_sha256", "cd" * 32, "model_digest is not that of"),
        ("feature_schema_digest", "cd" * 32, "model_digest is not that of"),
        ("model_file", "model.json", "is kept in model.ubj"),
        ("format", "fp.bundle.v2", "Input should be 'fp.bundle.v1'"),
        ("code_release", "r2", "bundle_id is not that of the manifest"),
        ("model_file", "model.pkl", "Input should be"),
        ("profile_sha256", HEX, "bundle_id is not that of the manifest"),
    ],
)
def test_a_manifest_changed_in_one_field_is_refused(field: str, value: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        read({**manifest_fields(), field: value})


def test_thresholds_grow_with_the_strength_of_the_action() -> None:
    with pytest.raises(ValidationError, match="lower threshold"):
        Thresholds(step_up_ppm=5, review_ppm=None, block_ppm=4)


def test_budgets_shrink_with_the_strength_of_the_action() -> None:
    with pytest.raises(ValidationError, match="larger budget"):
        ActionBudgets(step_up_ppm=5, review_ppm=6, block_ppm=1)


def test_windows_that_overlap_are_refused() -> None:
    with pytest.raises(ValidationError, match="order train, test"):
        TimeBounds(train_start_us=0, train_end_us=10, test_start_us=9, test_end_us=20)


def request(seed: int = 7) -> TrainRequest:
    ref = DatasetRef(manifest=EvidenceRef(key="d/manifest.json", sha256=HEX, size=1), dataset_fingerprint=HEX)
    return TrainRequest(
        platform_run_id="platform_20260101T000000Z",
        dataset=ref,
        policy_rev="policy-1",
        feature_set="core.v1",
        feature_schema_digest=HEX,
        seed=seed,
        code_release="r1",
        environment_lock_digest=HEX,
    )


def test_the_digest_of_a_request_is_that_of_its_content() -> None:
    again = TrainRequest.model_validate_json(request().model_dump_json())
    assert again.digest == request().digest
    assert request(8).digest != request().digest
