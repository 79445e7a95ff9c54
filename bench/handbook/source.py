"""The published payments and features of a span, in the order of their ids, which is the order of time."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.handbook.span import Span
from fp_features.handbook import HANDBOOK_COLUMNS

US_PER_MS = 1_000


class Source(NamedTuple):
    """Payments as published: ids, accounts, times (µs), truth (0, 1)."""

    payments: np.ndarray
    accounts: np.ndarray
    times_us: np.ndarray
    frauds: np.ndarray


def payments_of(folder: Path, span: Span) -> Source:
    """The payments of a span."""
    names = ["TRANSACTION_ID", "CUSTOMER_ID", "TX_DATETIME", "TX_FRAUD"]
    table = pq.read_table(folder / "transactions.parquet", columns=names)
    times_us = table.column("TX_DATETIME").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    inside = (times_us >= span.first_us) & (times_us < span.until_us)
    payments, accounts, frauds = (table.column(name).to_numpy()[inside] for name in (names[0], names[1], names[3]))
    return Source(payments, accounts, times_us[inside], frauds.astype(np.float64))


def golden_of(folder: Path, payments: np.ndarray) -> np.ndarray:
    """The published values [rows, 14] in the order of HANDBOOK_COLUMNS, of a run of consecutive payments."""
    columns = list(HANDBOOK_COLUMNS)
    table = pq.read_table(folder / "features_golden.parquet", columns=["TRANSACTION_ID", *columns])
    ids = table.column("TRANSACTION_ID")
    inside = pc.and_(pc.greater_equal(ids, int(payments[0])), pc.less_equal(ids, int(payments[-1])))
    table = table.filter(inside)
    if not np.array_equal(table.column("TRANSACTION_ID").to_numpy(), payments):
        raise SystemExit("the published features are not those of the published payments")
    return np.column_stack([table.column(name).to_numpy() for name in columns])
