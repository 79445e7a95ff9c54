"""A bundle: one manifest and one model file, used only after every hash and the feature schema were checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fp_contracts.bundle import MANIFEST_FILE, MODEL_FILES, BundleManifest, BundleRef, bundle_id, model_digest
from fp_contracts.canonical import CanonicalError, canonical_bytes, parse_strict, sha256_hex
from fp_models.errors import BundleBroken
from fp_models.model import Matrix, Model, Scores, open_model, score


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, ready to score."""

    manifest: BundleManifest
    model: Model

    def score(self, matrix: Matrix) -> Scores:
        """float64 [rows, features in schema order] to float64 [rows] in [0, 1]; see `fp_models.model.score`."""
        return score(self.model, matrix)


def pack(fields: Mapping[str, Any], model: bytes) -> dict[str, bytes]:
    """The files of a bundle by name. `fields`: the manifest without what follows from the model bytes and itself."""
    full = dict(fields)
    full["format"] = "fp.bundle.v1"
    full["model_file"] = MODEL_FILES[full["family"]]
    full["model_sha256"], full["model_size"] = sha256_hex(model), len(model)
    full["model_digest"] = model_digest(full["model_sha256"], full["feature_schema_digest"], full["policy_rev"])
    full["bundle_id"] = bundle_id(full)
    manifest = BundleManifest.model_validate_json(canonical_bytes(full))
    return {manifest.model_file: model, MANIFEST_FILE: canonical_bytes(full)}


def load(files: Mapping[str, bytes], *, schema_digest: str, ref: BundleRef | None = None) -> Bundle:
    """The bundle in these files, made for the features of `schema_digest` and, when given, the one that `ref` names.

    Errors: BundleBroken, by reason.
    """
    return _open(lambda name: files[name], schema_digest, ref)


def load_folder(folder: Path, *, schema_digest: str, ref: BundleRef | None = None) -> Bundle:
    """As `load`, from a folder that holds the files."""
    return _open(lambda name: (folder / name).read_bytes(), schema_digest, ref)


def fetch(get: Callable[[str], bytes], ref: BundleRef, *, schema_digest: str) -> Bundle:
    """As `load`, from a store: `get` gives the bytes under a key; the model lies beside the manifest."""
    folder = ref.manifest.key.rpartition("/")[0]
    return _open(lambda name: get(f"{folder}/{name}"), schema_digest, ref)


def _open(read: Callable[[str], bytes], schema_digest: str, ref: BundleRef | None) -> Bundle:
    manifest = _manifest(_read(read, MANIFEST_FILE), ref)
    if manifest.feature_schema_digest != schema_digest:
        raise BundleBroken("SCHEMA", f"made for {manifest.feature_schema_digest}, features are {schema_digest}")
    body = _read(read, manifest.model_file)
    if len(body) != manifest.model_size or sha256_hex(body) != manifest.model_sha256:
        raise BundleBroken("HASH", f"{manifest.model_file} is not the file of bundle {manifest.bundle_id}")
    model = open_model(manifest.family, body)
    if model.features != len(manifest.feature_names):
        raise BundleBroken("SCHEMA", f"model has {model.features} features, manifest {len(manifest.feature_names)}")
    return Bundle(manifest, model)


def _read(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except (KeyError, FileNotFoundError, NotADirectoryError) as error:
        raise BundleBroken("FORMAT", f"no {name}") from error


def _manifest(raw: bytes, ref: BundleRef | None) -> BundleManifest:
    if ref is not None and (len(raw), sha256_hex(raw)) != (ref.manifest.size, ref.manifest.sha256):
        raise BundleBroken("HASH", f"{ref.manifest.key} is not the manifest of bundle {ref.bundle_id}")
    try:
        parse_strict(raw)
        manifest = BundleManifest.model_validate_json(raw)
    except (CanonicalError, ValidationError) as error:
        raise BundleBroken("FORMAT", str(error).replace("\n", " ")[:300]) from error
    if ref is not None and (manifest.bundle_id, manifest.model_digest) != (ref.bundle_id, ref.model_digest):
        raise BundleBroken("HASH", f"the manifest is of bundle {manifest.bundle_id}, not {ref.bundle_id}")
    return manifest
