"""The dataset that P13 closed on, read and checked: nothing of it is believed that a hash does not carry."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from fp_contracts.bundle import TrainRequest
from fp_contracts.canonical import sha256_hex
from fp_contracts.dataset import DataFile, DatasetManifest, dataset_fingerprint
from fp_mf.errors import fail
from fp_mf.progress import Progress

ACCOUNT, EVENT = "account_id", "event_id"
_MAX_SEGMENTS = 12
_OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in release order: features float64 [rows, features], labels 0/1, event times (µs), ids and segments."""

    names: tuple[str, ...]
    features: np.ndarray
    labels: np.ndarray
    times_us: np.ndarray
    event_ids: np.ndarray
    accounts: np.ndarray
    segments: Mapping[str, np.ndarray]

    def where(self, mask: np.ndarray) -> "Table":
        """The rows of `mask`."""
        return Table(
            self.names, self.features[mask], self.labels[mask], self.times_us[mask], self.event_ids[mask],
            self.accounts[mask], {name: values[mask] for name, values in self.segments.items()},
        )  # fmt: skip

    @property
    def frauds(self) -> int:
        """Number of rows whose label is fraud."""
        return int(self.labels.sum())


def read_dataset(
    get: Callable[[str], bytes], request: TrainRequest, progress: Progress
) -> tuple[DatasetManifest, Table]:
    """The manifest and the rows that `request` names; `get` gives the bytes under a key of the dataset's store.

    Errors: Blocked B14 for a dataset that is missing, changed since P13, corrupt, or of other features.
    """
    manifest = _manifest(get, request)
    parts = []
    for done, file in enumerate(manifest.files):
        progress("read", done, len(manifest.files))
        parts.append(_file(get, file))
    progress("read", len(parts), len(parts))
    rows = pa.concat_tables(parts) if parts else None
    if rows is None or not rows.num_rows:
        fail("the dataset has no rows")
    if rows.num_rows != manifest.rows:
        fail(f"the dataset has {rows.num_rows} rows, its manifest says {manifest.rows}")
    return manifest, to_table(rows, manifest)


def _manifest(get: Callable[[str], bytes], request: TrainRequest) -> DatasetManifest:
    ref = request.dataset.manifest
    raw = _get(get, ref.key)
    if (len(raw), sha256_hex(raw)) != (ref.size, ref.sha256):
        fail(f"{ref.key} is not the manifest that P13 closed on: the dataset changed")
    try:
        manifest = DatasetManifest.model_validate_json(raw)
    except ValidationError as error:
        fail(f"{ref.key} is no dataset manifest: {error.error_count()} fields are wrong")
    named = request.dataset.dataset_fingerprint
    if not manifest.dataset_fingerprint == named == dataset_fingerprint(manifest.intent):
        fail(f"the dataset answers {manifest.dataset_fingerprint[:12]}…, asked was {named[:12]}…")
    if (manifest.feature_set, manifest.feature_schema_digest) != (request.feature_set, request.feature_schema_digest):
        fail(f"the dataset holds features of {manifest.feature_set}, not the schema asked for ({request.feature_set})")
    return manifest


def _get(get: Callable[[str], bytes], key: str) -> bytes:
    try:
        return get(key)
    except KeyError:
        fail(f"{key} is missing")


def _file(get: Callable[[str], bytes], file: DataFile) -> pa.Table:
    raw = _get(get, file.key)
    if (len(raw), sha256_hex(raw)) != (file.size, file.sha256):
        fail(f"{file.key} is not the file the manifest names: the dataset changed")
    try:
        table = pq.read_table(io.BytesIO(raw))
    except (pa.ArrowException, OSError) as error:
        fail(f"{file.key} cannot be read as parquet: {error}")
    if table.num_rows != file.rows:
        fail(f"{file.key} has {table.num_rows} rows, the manifest says {file.rows}")
    return table


def to_table(rows: pa.Table, manifest: DatasetManifest) -> Table:
    """Columns by their role. Errors: Blocked B14 for a missing column, a value that is no number, another label."""
    names = manifest.features()
    missing = {*names, manifest.label_column, manifest.time_column, EVENT, ACCOUNT} - set(rows.column_names)
    if missing or not names:
        fail(f"the rows lack {', '.join(sorted(missing)) or 'features'}")
    features = np.column_stack([_numbers(rows, name) for name in names])
    labels = _numbers(rows, manifest.label_column)
    if not np.isin(labels, (0.0, 1.0)).all():
        fail("a label is neither 0 nor 1")
    segments = [column.name for column in manifest.columns if column.role == "segment"]
    return Table(
        names, features, labels, rows.column(manifest.time_column).to_numpy().astype(np.int64),
        _texts(rows, EVENT), _texts(rows, ACCOUNT), {name: _segment(rows, name) for name in segments},
    )  # fmt: skip


def _numbers(rows: pa.Table, name: str) -> np.ndarray:
    column = rows.column(name)
    if column.null_count or not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        fail(f"column {name} is not a full column of numbers")
    values = column.to_numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        fail(f"column {name} has {bad.size} values that are no numbers, first in row {bad[0]}")
    return values


def _segment(rows: pa.Table, name: str) -> np.ndarray:
    """Values as texts: of many numbers their quarter, of many texts the most frequent ones and "(other)"."""
    column = rows.column(name)
    texts = _texts(rows, name)
    values, counts = np.unique(texts, return_counts=True)
    if len(values) <= _MAX_SEGMENTS:
        return texts
    if pa.types.is_integer(column.type) and not column.null_count:
        numbers = column.to_numpy()
        edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75)))
        bounds = ["", *(f"{edge:g}" for edge in edges), ""]
        names = [f"{low or 'lowest'}..{high or 'highest'}" for low, high in pairwise(bounds)]
        return np.array(names, dtype=object)[np.searchsorted(edges, numbers, side="right")]
    kept = values[np.argsort(-counts, kind="stable")[: _MAX_SEGMENTS - 1]]
    return np.where(np.isin(texts, kept), texts, _OTHER)


def _texts(rows: pa.Table, name: str) -> np.ndarray:
    values: list[Any] = rows.column(name).to_pylist()
    return np.array(["" if value is None else str(value) for value in values], dtype=object)
