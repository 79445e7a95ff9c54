"""The objects of a dataset, put write-once; the manifest last, so that nothing half-published can be read."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from fp_contracts.canonical import CanonicalError, canonical_bytes, parse_strict
from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import DataFile, DatasetManifest, dataset_fingerprint, dataset_key
from fp_ofs.errors import MANIFEST, Blocked
from fp_runtime.evidence import (
    EvidenceBroken,
    EvidenceConflict,
    EvidenceMissing,
    EvidenceStore,
    put_json,
    read,
    ref_of,
)

FILE_ROWS = 100_000
RECIPE = "rollback_recipe.json"
_ZSTD_LEVEL = 3


class Publisher:
    """Puts the objects of one dataset. With `dry` nothing is put and refs are only computed."""

    def __init__(self, store: EvidenceStore, fingerprint: str, dry: bool = False) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._dry = dry

    def put(self, name: str, body: bytes) -> EvidenceRef:
        """Put an object; Blocked B13.1 when another build of this fingerprint put other bytes."""
        key = dataset_key(self._fingerprint, name)
        if self._dry:
            return ref_of(key, body)
        try:
            return self._store.put(key, body)
        except EvidenceConflict as error:
            raise Blocked(MANIFEST, f"{key}: a build of the same fingerprint put other bytes there") from error

    def document(self, name: str, doc: Mapping[str, Any]) -> EvidenceRef:
        """Put a document as canonical JSON."""
        return self.put(name, canonical_bytes(doc))

    def why_blocked(self, name: str, doc: Mapping[str, Any]) -> EvidenceRef | None:
        """Put a report of a build that was blocked, under a key of its content: a later attempt may say otherwise."""
        if self._dry:
            return None
        digest = ref_of(name, canonical_bytes(doc)).sha256
        key = dataset_key(self._fingerprint, f"blocked/{name.removesuffix('.json')}-{digest[:16]}.json")
        return put_json(self._store, key, doc)

    def published(self) -> tuple[DatasetManifest, EvidenceRef] | None:
        """The manifest that already stands, all it names read back by hash; Blocked B13.1 when it does not hold."""
        key = dataset_key(self._fingerprint, "manifest.json")
        try:
            body = self._store.get(key)
        except EvidenceMissing:
            return None
        try:
            manifest = DatasetManifest.model_validate_json(body)
        except ValidationError as error:
            raise Blocked(MANIFEST, f"{key} is no manifest: {str(error)[:120]}") from error
        if not (dataset_fingerprint(manifest.intent) == manifest.dataset_fingerprint == self._fingerprint):
            raise Blocked(MANIFEST, f"{key} speaks of another build")
        self.verify(manifest)
        return manifest, ref_of(key, body)

    def verify(self, manifest: DatasetManifest) -> None:
        """Read back every object a manifest names; Blocked B13.1 when one is missing or not the one it names."""
        files = [EvidenceRef(key=one.key, sha256=one.sha256, size=one.size) for one in manifest.files]
        reports = (manifest.readiness, manifest.leakage, manifest.quality, manifest.parity, *manifest.pictures)
        for ref in (*files, *reports):
            try:
                read(self._store, ref)
            except (EvidenceMissing, EvidenceBroken) as error:
                raise Blocked(MANIFEST, f"the manifest names {ref.key}: {error}") from error

    def read(self, ref: EvidenceRef) -> dict[str, Any]:
        """A report that a manifest names; Blocked B13.1 when it is missing or not the one it names."""
        try:
            found: dict[str, Any] = parse_strict(read(self._store, ref))
        except (EvidenceMissing, EvidenceBroken, CanonicalError) as error:
            raise Blocked(MANIFEST, f"the manifest names {ref.key}: {error}") from error
        return found

    def verify_ref(self, ref: EvidenceRef) -> None:
        """Read back a manifest by its ref, and all it names."""
        try:
            body = read(self._store, ref)
        except (EvidenceMissing, EvidenceBroken) as error:
            raise Blocked(MANIFEST, f"manifest {ref.key}: {error}") from error
        self.verify(DatasetManifest.model_validate_json(body))

    def recipe(self) -> EvidenceRef | None:
        """The rollback recipe, when it was executed."""
        key = dataset_key(self._fingerprint, RECIPE)
        try:
            return ref_of(key, self._store.get(key))
        except EvidenceMissing:
            return None


def put_rows(publisher: Publisher, table: pa.Table) -> Iterator[DataFile]:
    """Put the rows as parquet objects of at most FILE_ROWS, in order."""
    for at, start in enumerate(range(0, table.num_rows, FILE_ROWS)):
        part = table.slice(start, FILE_ROWS)
        ref = publisher.put(f"rows/{at:05d}.parquet", to_parquet(part))
        yield DataFile(key=ref.key, sha256=ref.sha256, size=ref.size, rows=part.num_rows)


def to_parquet(table: pa.Table) -> bytes:
    """A table as parquet: equal tables give equal bytes with the same pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(), sink, compression="zstd", compression_level=_ZSTD_LEVEL, use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip
    return sink.getvalue().to_pybytes()
