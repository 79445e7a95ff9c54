"""Reads a sealed world from an object store; `world_check` proves that it is what its fingerprint says."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from fp_contracts.canonical import CanonicalError, canonical_bytes, parse_strict, sha256_hex
from fp_contracts.ids import HEX64
from fp_runtime.errors import UserError
from fp_runtime.evidence import EvidenceMissing, open_store
from fp_wsp.world import FINGERPRINT_FIELD, MANIFEST_NAME, Payment, TruthRow, WorldFile, WorldManifest


def _schema(columns: str, optional: str) -> pa.Schema:
    """`columns`: "name:type …" in order; those named in `optional` may be null."""
    types: dict[str, pa.DataType] = {"int": pa.int64(), "text": pa.string(), "bool": pa.bool_()}
    fields = [column.split(":") for column in columns.split()]
    return pa.schema([pa.field(name, types[kind], name in optional.split()) for name, kind in fields])


STREAM_SCHEMA = _schema(
    "ts_us:int payment_id:text merchant_id:text arrival_seq:int account_id:text instrument_id:text device_id:text"
    " terminal_id:text amount_minor:int currency:text channel:text mcc:text country:text category:text"
    " auth_result:text",
    optional="device_id terminal_id mcc country category auth_result",
)
TRUTH_SCHEMA = _schema(
    "ts_us:int payment_id:text event_id:text merchant_id:text account_id:text is_fraud:bool campaign:text",
    optional="campaign",
)
_ROWS_AT_ONCE = 8_192
_REIMPORT = "import the world again (`fp world import`)"


class Objects(Protocol):
    """What a world needs of an object store; `get` raises when the key is missing."""

    def get(self, key: str) -> bytes: ...
    def exists(self, key: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class World:
    """An opened world: its manifest and where its files lie."""

    manifest: WorldManifest
    fingerprint: str
    objects: Objects

    def key(self, name: str) -> str:
        """Key of one of its files in the store."""
        return f"{self.fingerprint}/{name}"

    def payments(self) -> Iterator[Payment]:
        """The stream view in (ts_us, payment_id) order; one file in memory at a time. UserError for a broken file."""
        return map(Payment._make, self._rows(self.manifest.stream, STREAM_SCHEMA))

    def truth(self, frauds_only: bool = False) -> Iterator[TruthRow]:
        """The truth view in the same order: for the adjudication lane alone. UserError for a broken file."""
        return map(TruthRow._make, self._rows(self.manifest.truth, TRUTH_SCHEMA, "is_fraud" if frauds_only else None))

    def _rows(
        self, files: Iterable[WorldFile], schema: pa.Schema, only_if: str | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """`only_if`: a column of truth values that says which rows are wanted."""
        for file in files:
            table = self._table(file, schema)
            wanted = table if only_if is None else table.filter(table[only_if])
            for batch in wanted.to_batches(_ROWS_AT_ONCE):
                yield from zip(*map(_values, batch.columns), strict=True)

    def _table(self, file: WorldFile, schema: pa.Schema) -> pa.Table:
        raw = read_file(self, file)
        if sha256_hex(raw) != file.sha256:
            raise UserError(f"world file {file.key}", "its bytes are not what the manifest names", _REIMPORT)
        return pq.read_table(pa.BufferReader(raw), columns=schema.names).cast(schema)


def _values(column: Any) -> list[Any]:
    """As `to_pylist`; equal texts of a batch are one object, which costs less to make and to look up later."""
    if not pa.types.is_string(column.type):
        return cast(list[Any], column.to_pylist())
    coded = column.dictionary_encode("encode")
    texts = coded.dictionary.to_pylist()
    return [texts[at] for at in coded.indices.to_pylist()]


def read_file(world: World, file: WorldFile) -> bytes:
    """The bytes of a world's file; UserError when it is missing."""
    try:
        return world.objects.get(world.key(file.key))
    except EvidenceMissing as error:
        raise UserError(f"world file {file.key}", "it is missing from the oracle store", _REIMPORT) from error


def open_world(url: str, fingerprint: str, endpoint: str | None = None) -> World:
    """The world named by its fingerprint at `file:///…` or `s3://…`; UserError when it is not there or not itself."""
    return read_world(open_store(url, endpoint), fingerprint)


def read_world(objects: Objects, fingerprint: str) -> World:
    """As open_world, on an open store."""
    what = f"world {fingerprint[:64]}"
    if not HEX64.fullmatch(fingerprint):
        raise UserError(what, "a fingerprint is 64 hex digits", "copy it from `fp world list`")
    try:
        raw = objects.get(f"{fingerprint}/{MANIFEST_NAME}")
    except EvidenceMissing as error:
        raise UserError(what, "there is no such world in the oracle store", "see `fp world list`") from error
    manifest = parse_manifest(raw)
    if manifest.fingerprint != fingerprint:
        raise UserError(what, f"its manifest hashes to {manifest.fingerprint}", _REIMPORT)
    return World(manifest, fingerprint, objects)


def parse_manifest(raw: bytes) -> WorldManifest:
    """Manifest bytes to the manifest; UserError for anything but canonical JSON of its fields and own fingerprint."""
    try:
        doc = parse_strict(raw)
        claimed = doc.pop(FINGERPRINT_FIELD)
        manifest = WorldManifest.model_validate(doc, strict=False)
    except (CanonicalError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError("world manifest", f"it is not readable ({type(error).__name__})", _REIMPORT) from error
    if manifest.fingerprint != claimed or manifest_bytes(manifest) != raw:
        raise UserError("world manifest", "its fields do not hash to its fingerprint", _REIMPORT)
    return manifest


def manifest_bytes(manifest: WorldManifest) -> bytes:
    """Canonical JSON of the manifest with its own fingerprint."""
    return canonical_bytes({**manifest.model_dump(mode="json"), FINGERPRINT_FIELD: manifest.fingerprint})


def list_worlds(url: str, endpoint: str | None = None) -> list[World]:
    """Every readable world of an oracle store, by fingerprint."""
    store = open_store(url, endpoint)
    folders = sorted({stored.key.split("/")[0] for stored in store.list("") if stored.key.endswith(MANIFEST_NAME)})
    return [read_world(store, folder) for folder in folders if HEX64.fullmatch(folder)]
