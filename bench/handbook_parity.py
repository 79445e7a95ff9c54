"""Stream the handbook's payments through the feature states and compare with the features its authors published.

    python bench/handbook_parity.py <folder with transactions.parquet and features_golden.parquet> [--days N]

Prints one JSON line. Exit code 1 when a value differs by more than 1e-6; two payments of one account in the same second
are counted apart. Labels come as from an outside adjudicator: frauds only, in effect 7 days after the payment.
"""

import argparse
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fp_features import CORE_V1, AccountState, MerchantState, Payment
from fp_features.handbook import HANDBOOK_COLUMNS, to_minor

US_PER_MS = 1_000
DAY_US = 86_400_000_000
ADJUDICATION_US, EFFECT_US = 6 * DAY_US, DAY_US
TOLERANCE = 1e-6
BATCH_ROWS = 50_000
PROGRESS_ROWS = 200_000
COLUMNS = ["TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"]


class Row(NamedTuple):
    """One published payment."""

    event_id: int
    account_id: int
    payment: Payment
    fraud: bool


class Label(NamedTuple):
    """A fraud on its way to the merchant's features."""

    order_us: int
    row: Row


def rows_of(path: Path) -> Iterator[Row]:
    """Payments in the order of the file, which is the order of time."""
    for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=COLUMNS):
        times = batch.column("TX_DATETIME").cast(pa.int64()).to_pylist()
        columns = [batch.column(name).to_pylist() for name in COLUMNS if name != "TX_DATETIME"]
        for time_ms, event_id, customer, terminal, amount, fraud in zip(times, *columns, strict=True):
            payment = Payment(time_ms * US_PER_MS, to_minor(amount), "CARD_PRESENT", str(terminal), str(customer))
            yield Row(event_id, customer, payment, bool(fraud))


def golden_of(path: Path) -> Iterator[tuple[float, ...]]:
    """The published values in the order of HANDBOOK_COLUMNS, after the TRANSACTION_ID."""
    columns = ["TRANSACTION_ID", *HANDBOOK_COLUMNS]
    for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=columns):
        yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


class Stream:
    """Merchants, accounts and the label lane; labels go before payments of the same time, as in the merge."""

    def __init__(self) -> None:
        self.merchants: dict[str, MerchantState] = {}
        self.accounts: dict[int, AccountState] = {}
        self.labels: deque[Label] = deque()

    def vector(self, row: Row) -> tuple[float, ...]:
        """Count one payment and give its vector of core.v1."""
        payment, now_us = row.payment, row.payment.ts_us
        while self.labels and self.labels[0].order_us <= now_us:
            self._apply(self.labels.popleft().row)
        merchant = self.merchants.setdefault(payment.merchant_id, MerchantState())
        merchant.update(now_us, payment.amount_minor, now_us)
        account = self.accounts.setdefault(row.account_id, AccountState())
        account.update(payment, now_us)
        if row.fraud:
            self.labels.append(Label(now_us + ADJUDICATION_US + EFFECT_US, row))
        return CORE_V1.snapshot_values(payment, merchant) + CORE_V1.account_values(payment, account)

    def _apply(self, row: Row) -> None:
        paid_us = row.payment.ts_us
        self.merchants[row.payment.merchant_id].apply_label(
            str(row.event_id), "FRAUD_CONFIRMED", "EXTERNAL", paid_us, paid_us + ADJUDICATION_US
        )


class Comparison:
    """Counts the values that differ, and knows the payments of one account in the same second.

    Their order inside the second is arbitrary in the published set, so they are counted apart.
    """

    def __init__(self) -> None:
        self._places = [(CORE_V1.names.index(ours), by) for ours, by in HANDBOOK_COLUMNS.values()]
        self._latest: dict[int, Row] = {}
        self.rows = 0
        self.by_column: Counter[str] = Counter()
        self.wrong: set[int] = set()
        self.tied: set[int] = set()

    def add(self, row: Row, vector: tuple[float, ...], golden: tuple[float, ...]) -> None:
        """Compare one payment's vector with its published values."""
        self.rows += 1
        before = self._latest.get(row.account_id)
        if before is not None and before.payment.ts_us == row.payment.ts_us:
            self.tied |= {before.event_id, row.event_id}
        self._latest[row.account_id] = row
        if golden[0] != row.event_id:
            raise SystemExit(f"payment {row.event_id} stands beside the features of {golden[0]}")
        for name, (place, by), published in zip(HANDBOOK_COLUMNS, self._places, golden[1:], strict=True):
            if abs(vector[place] / by - published) > TOLERANCE:
                self.by_column[name] += 1
                self.wrong.add(row.event_id)

    def passed(self) -> bool:
        """Something was compared and every row is equal but those that the published order leaves open."""
        return self.rows > 0 and self.wrong <= self.tied


def compare(folder: Path, days: int) -> tuple[Comparison, float]:
    """Stream the first `days` days (0 = all); gives the comparison and the CPU seconds spent on features alone."""
    stream, comparison, spent_s, first_day = Stream(), Comparison(), 0.0, None
    payments, published = rows_of(folder / "transactions.parquet"), golden_of(folder / "features_golden.parquet")
    for row, golden in zip(payments, published, strict=False):
        day = row.payment.ts_us // DAY_US
        first_day = day if first_day is None else first_day
        if days and day - first_day >= days:
            break
        began = time.process_time()
        vector = stream.vector(row)
        spent_s += time.process_time() - began
        comparison.add(row, vector, golden)
        if comparison.rows % PROGRESS_ROWS == 0:
            print(f"{comparison.rows} rows, {len(comparison.wrong)} differ", file=sys.stderr)
    return comparison, spent_s


def main() -> int:
    """Compare and report; the exit code is 0 when the comparison passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=30, help="days from the start of the set; 0 = all")
    arguments = parser.parse_args()
    comparison, spent_s = compare(arguments.folder, arguments.days)
    report = {
        "figure": "handbook_parity",
        "passed": comparison.passed(),
        "features": len(HANDBOOK_COLUMNS),
        "rows": comparison.rows,
        "rows_differing": len(comparison.wrong),
        "rows_differing_untied": len(comparison.wrong - comparison.tied),
        "rows_tied": len(comparison.tied),
        "differences": dict(comparison.by_column),
        "cpu_us_per_payment": round(spent_s / max(comparison.rows, 1) * 1e6, 2),
    }
    print(json.dumps(report, sort_keys=True))
    return 0 if comparison.passed() else 1


if __name__ == "__main__":
    sys.exit(main())
