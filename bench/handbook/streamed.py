"""Vectors of core.v1 payment by payment, with when each fraud became known; streamed in one process where no run is."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.handbook.telling import Counting
from bench.handbook_parity import ADJUDICATION_US, EFFECT_US, Comparison, Stream, golden_of, rows_of
from fp_features import CORE_V1

BATCH = 50_000
NEVER_US = 2**63 - 1
KEYS = ("payment", "account", "ts_us", "fraud", "known_us")


class Streamed(NamedTuple):
    """All payments in order of time: vectors float64 [rows, features], account ids, times (µs), truth (0, 1).

    `known_us`: when the label took effect that calls a payment a fraud; NEVER_US where none did.
    """

    vectors: np.ndarray
    accounts: np.ndarray
    times_us: np.ndarray
    frauds: np.ndarray
    known_us: np.ndarray


class Cost(NamedTuple):
    """What streaming in one process took, and whether the published features came out."""

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
        counting = Counting("streamed in one process", _rows_before(folder, until_us))
        for row, published in zip(rows_of(folder / "transactions.parquet"), golden, strict=False):
            now_us = row.payment.ts_us
            if now_us >= until_us:
                break
            began = time.process_time()
            vector = path.vector(row)
            spent_s += time.process_time() - began
            comparison.add(row, vector, published)
            known_us = now_us + ADJUDICATION_US + EFFECT_US if row.fraud else NEVER_US
            batch.append((row.event_id, row.account_id, now_us, int(row.fraud), known_us, *vector))
            if len(batch) == BATCH:
                _write(writer, batch)
                counting.at(comparison.rows)
        _write(writer, batch)
    rows = max(comparison.rows, 1)
    wrong, tied = len(comparison.wrong), len(comparison.tied)
    return Cost(comparison.rows, spent_s / rows * 1e6, comparison.passed(), wrong, tied)


def _rows_before(folder: Path, until_us: int) -> int:
    times = pq.read_table(folder / "transactions.parquet", columns=["TX_DATETIME"]).column(0)
    return int((times.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() < until_us).sum())


def _schema() -> pa.Schema:
    keys = [pa.field(name, pa.int64()) for name in KEYS]
    return pa.schema([*keys, *(pa.field(name, pa.float64()) for name in CORE_V1.names)])


def _write(writer: pq.ParquetWriter, batch: list[tuple[float, ...]]) -> None:
    columns = list(zip(*batch, strict=True))
    if columns:
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _schema(), strict=True)]
        writer.write_batch(pa.record_batch(arrays, _schema()))
    batch.clear()


def save(scratch: Path, payments: np.ndarray, data: Streamed) -> None:
    """Write what `load` reads back."""
    keys = (payments, data.accounts, data.times_us, data.frauds.astype(np.int64), data.known_us)
    columns = [*keys, *(data.vectors[:, at] for at in range(data.vectors.shape[1]))]
    pq.write_table(pa.table([pa.array(column) for column in columns], schema=_schema()), scratch, compression="zstd")


def load(scratch: Path) -> Streamed:
    """Read back what `stream` or `save` wrote."""
    table = pq.read_table(scratch)
    vectors = np.column_stack([table.column(name).to_numpy() for name in CORE_V1.names])
    accounts, times_us, frauds, known_us = (table.column(name).to_numpy() for name in KEYS[1:])
    return Streamed(vectors, accounts, times_us, frauds.astype(np.float64), known_us)
