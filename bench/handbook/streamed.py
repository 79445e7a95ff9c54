"""Stream the handbook's payments once and keep every vector of core.v1 in a scratch file, payment by payment."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.handbook_parity import Comparison, Stream, golden_of, rows_of
from fp_features import CORE_V1

BATCH = 50_000
KEYS = ("payment", "account", "ts_us", "fraud")


class Streamed(NamedTuple):
    """All payments in order of time: vectors float64 [rows, features], account ids, times (µs), truth (0, 1)."""

    vectors: np.ndarray
    accounts: np.ndarray
    times_us: np.ndarray
    frauds: np.ndarray


class Cost(NamedTuple):
    """What streaming took, and whether the published features came out."""

    rows: int
    cpu_us_per_payment: float
    parity_passed: bool
    rows_differing: int
    rows_tied: int


def stream(folder: Path, until_us: int, scratch: Path) -> Cost:
    """Write the payments before `until_us` to `scratch` (parquet) and compare each with its published features."""
    comparison, spent_s, path = Comparison(), 0.0, Stream()
    with pq.ParquetWriter(scratch, _schema(), compression="zstd") as writer:
        batch: list[tuple[float, ...]] = []
        golden = golden_of(folder / "features_golden.parquet")
        for row, published in zip(rows_of(folder / "transactions.parquet"), golden, strict=False):
            if row.payment.ts_us >= until_us:
                break
            began = time.process_time()
            vector = path.vector(row)
            spent_s += time.process_time() - began
            comparison.add(row, vector, published)
            batch.append((row.event_id, row.account_id, row.payment.ts_us, int(row.fraud), *vector))
            if len(batch) == BATCH:
                _write(writer, batch)
                print(f"streamed {comparison.rows} payments, {len(comparison.wrong)} differ", file=sys.stderr)
        _write(writer, batch)
    rows = max(comparison.rows, 1)
    wrong, tied = len(comparison.wrong), len(comparison.tied)
    return Cost(comparison.rows, spent_s / rows * 1e6, comparison.passed(), wrong, tied)


def _schema() -> pa.Schema:
    keys = [pa.field(name, pa.int64()) for name in KEYS]
    return pa.schema([*keys, *(pa.field(name, pa.float64()) for name in CORE_V1.names)])


def _write(writer: pq.ParquetWriter, batch: list[tuple[float, ...]]) -> None:
    columns = list(zip(*batch, strict=True))
    if columns:
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _schema(), strict=True)]
        writer.write_batch(pa.record_batch(arrays, _schema()))
    batch.clear()


def load(scratch: Path) -> Streamed:
    """Read back what `stream` wrote."""
    columns: Iterator[pa.ChunkedArray]
    table = pq.read_table(scratch)
    columns = (table.column(name) for name in CORE_V1.names)
    vectors = np.column_stack([column.to_numpy() for column in columns])
    accounts, times_us, frauds = (table.column(name).to_numpy() for name in KEYS[1:])
    return Streamed(vectors, accounts, times_us, frauds.astype(np.float64))
