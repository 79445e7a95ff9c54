"""A bundle is used only when every byte is the one that was named, and only for its own features."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from fp_contracts.canonical import canonical_bytes
from fp_models import BundleBroken, fetch, load, load_folder, pack, sample
from fp_models.logistic import LogisticModel


def refused(files: dict[str, bytes], reason: str, told: str, schema: str = sample.SCHEMA) -> None:
    with pytest.raises(BundleBroken, match=told) as broken:
        load(files, schema_digest=schema)
    assert broken.value.reason == reason


def test_the_same_parts_give_the_same_bundle() -> None:
    assert sample.files() == sample.files()
    assert sample.files("logistic") != sample.files()


def test_a_bundle_is_read_from_a_folder_and_from_a_store(tmp_path: Path) -> None:
    files = sample.files("logistic")
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    ref = sample.ref_to(files)
    stored = {f"bundles/b/{name}": body for name, body in files.items()}
    assert load_folder(tmp_path, schema_digest=sample.SCHEMA, ref=ref).manifest.bundle_id == ref.bundle_id
    assert fetch(stored.__getitem__, ref, schema_digest=sample.SCHEMA).manifest.bundle_id == ref.bundle_id


@pytest.mark.parametrize("family", ["logistic", "xgboost"])
def test_a_flipped_byte_of_the_model_is_refused(family: str) -> None:
    files = sample.files(family)
    name = next(name for name in files if name.startswith("model"))
    body = bytearray(files[name])
    body[len(body) // 2] ^= 1
    refused({**files, name: bytes(body)}, "HASH", "is not the file of bundle")


def test_a_model_cut_short_is_refused() -> None:
    files = sample.files()
    refused({**files, "model.ubj": files["model.ubj"][:-1]}, "HASH", "is not the file of bundle")


def test_a_manifest_changed_in_one_field_is_refused() -> None:
    files = sample.files()
    document = json.loads(files["bundle.json"])
    document["thresholds"]["block_ppm"] = 999_999
    refused({**files, "bundle.json": canonical_bytes(document)}, "FORMAT", "bundle_id is not that of the manifest")


@pytest.mark.parametrize("raw", [b"", b"{}", b"no json", b"[]", pickle.dumps({"format": "fp.bundle.v1"})])
def test_a_manifest_of_no_known_format_is_refused(raw: bytes) -> None:
    refused({**sample.files(), "bundle.json": raw}, "FORMAT", "FORMAT")


def test_missing_files_are_refused() -> None:
    files = sample.files()
    refused({"model.ubj": files["model.ubj"]}, "FORMAT", r"no bundle\.json")
    refused({"bundle.json": files["bundle.json"]}, "FORMAT", r"no model\.ubj")


def test_another_feature_schema_is_refused() -> None:
    refused(sample.files(), "SCHEMA", "made for 5c5c", schema="00" * 32)


def test_a_model_of_another_width_is_refused() -> None:
    refused(pack(sample.fields(), sample.boosted_bytes(features=4)), "SCHEMA", "model has 4 features, manifest 6")


def test_a_bundle_other_than_the_one_asked_for_is_refused() -> None:
    ref = sample.ref_to(sample.files())
    with pytest.raises(BundleBroken, match="is not the manifest of bundle"):
        load(sample.files(policy_rev="policy-2"), schema_digest=sample.SCHEMA, ref=ref)
    with pytest.raises(BundleBroken, match="the manifest is of bundle"):
        load(sample.files(), schema_digest=sample.SCHEMA, ref=ref.model_copy(update={"model_digest": "00" * 32}))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (pickle.dumps("a model"), "not UBJSON"),
        (b'{"learner":{}}', "not UBJSON"),
        (b"{L" + b"\xff" * 40, "MODEL"),
        (b"", "not UBJSON"),
    ],
)
def test_what_is_no_boosted_model_is_refused(body: bytes, told: str) -> None:
    refused(pack(sample.fields(), body or b"x"), "MODEL", told)


def test_a_boosted_model_that_is_no_classifier_is_refused() -> None:
    refused(pack(sample.fields(), sample.boosted_bytes("reg:squarederror")), "MODEL", "objective reg:squarederror")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b'"bias":-1.25', b'"bias":NaN', "NaN is no number"),
        (b'"bias":-1.25', b'"bias":1e999', "not finite"),
        (b'"bias":-1.25', b'"bias":"-1.25"', "not a list of numbers"),
        (b'"bias":-1.25', b'"bias":true', "not a list of numbers"),
        (b'"scale":[1.5,', b'"scale":[0.0,', "scale of 0"),
        (b'"scale":[1.5,', b'"scale":[', "different size"),
        (b"fp.logistic.v1", b"fp.logistic.v9", "not of format"),
        (b'"bias":', b'"bios":', "not of format"),
    ],
)
def test_what_is_no_logistic_model_is_refused(old: bytes, new: bytes, told: str) -> None:
    body = sample.logistic_bytes()
    assert old in body
    refused(pack(sample.fields("logistic"), body.replace(old, new, 1)), "MODEL", told)


def test_a_logistic_model_reads_back_to_the_same_bits() -> None:
    body = sample.logistic_bytes()
    assert LogisticModel.from_bytes(body).to_bytes() == body


def test_loading_imports_neither_trainer_nor_tables_and_the_library_only_when_needed() -> None:
    program = (
        "import sys\n"
        "from fp_models import load, sample\n"
        "assert 'xgboost' not in sys.modules\n"
        "load(sample.files(), schema_digest=sample.SCHEMA)\n"
        "assert 'xgboost' in sys.modules\n"
        "print([name for name in ('sklearn', 'pandas', 'matplotlib', 'mlflow', 'pyarrow') if name in sys.modules])\n"
        "import sklearn\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert told.stdout.strip() == "[]"
