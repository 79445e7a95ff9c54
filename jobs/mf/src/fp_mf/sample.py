"""A made-up dataset in a store, as P13 leaves one, for the tests of all who train on datasets."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fp_contracts.bundle import Boosting, DatasetRef, Floors, SplitRule, TrainRequest
from fp_contracts.canonical import canonical_bytes, sha256_hex
from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import (
    BasisRange,
    BuildIntent,
    Column,
    DataFile,
    DatasetManifest,
    JoinScope,
    LabelCounts,
    LabelRule,
    dataset_fingerprint,
    dataset_key,
)
from fp_contracts.timestamps import US_PER_DAY
from fp_runtime.evidence import EvidenceStore

RUN = "platform_20260101T000000Z"
SCHEMA = "5c" * 32
FEATURES = ("amount", "count_1d", "risk_7d", "noise_a", "noise_b", "constant")
START_US = 20_000 * US_PER_DAY
DAYS = 40
_HEX = "ab" * 32


@dataclass(frozen=True)
class World:
    """Payments of 40 days; `change` may spoil the table of rows before it is written."""

    rows: int = 6_000
    seed: int = 3
    change: Callable[[pa.Table], pa.Table] = lambda table: table

    def table(self) -> pa.Table:
        """Rows in release order: fraud is likely where amount is large and count is small, or risk is high."""
        draw = np.random.default_rng(self.seed)
        times = np.sort(draw.integers(0, DAYS * US_PER_DAY, self.rows)) + START_US
        amount, count = draw.lognormal(3.0, 1.0, self.rows), draw.integers(1, 20, self.rows).astype(np.float64)
        risk = np.where(draw.random(self.rows) < 0.1, draw.random(self.rows), 0.0)
        odds = 0.002 + 0.7 * ((amount > 60) & (count < 4)) + 0.5 * (risk > 0.7)
        label = (draw.random(self.rows) < odds).astype(np.int8)
        accounts = draw.integers(0, 300, self.rows)
        columns: dict[str, Any] = {
            "event_id": [f"e{index}" for index in range(self.rows)],
            "account_id": [None if index == 5 else f"a{account}" for index, account in enumerate(accounts.tolist())],
            "event_us": times, "amount_minor": (amount * 100).astype(np.int64),
            "channel": np.where(count < 10, "ECOM", "CARD_PRESENT").tolist(), "label": label,
            "amount": amount, "count_1d": count, "risk_7d": risk, "noise_a": draw.normal(size=self.rows),
            "noise_b": draw.normal(size=self.rows), "constant": np.ones(self.rows),
        }  # fmt: skip
        return self.change(pa.table(columns))


def intent() -> BuildIntent:
    """A build intent; what it names is never read."""
    return BuildIntent(
        platform_run_id=RUN,
        scenario_run_id="5c" * 16,
        manifest_fingerprint=_HEX,
        run_config_digest=_HEX,
        basis=(BasisRange(topic="fp.bus.rtdl.v1", partition=0, start=0, end=10),),
        labels=LabelRule(as_of_us=START_US + DAYS * US_PER_DAY, maturity_days=7, effect_delay_us=US_PER_DAY),
        feature_set="core.v1",
        feature_schema_digest=SCHEMA,
        join=JoinScope(join_wait_us=1, horizon_us=1, window_ends_us=(START_US + DAYS * US_PER_DAY,)),
        code_release="r1",
    )


def put_dataset(store: EvidenceStore, world: World | None = None, **changed: Any) -> DatasetRef:
    """Write a dataset in two files; `changed` replaces fields of its manifest."""
    table, asked = (world or World()).table(), intent()
    named = dataset_fingerprint(asked)
    half = table.num_rows // 2
    files = tuple(
        _put(store, dataset_key(named, f"rows/{at}.parquet"), part)
        for at, part in enumerate((table.slice(0, half), table.slice(half)))
    )
    frauds = sum(1 for label in table.column("label").to_pylist() if label)
    ref = EvidenceRef(key=dataset_key(named, "quality.json"), sha256=_HEX, size=1)
    manifest = DatasetManifest(
        dataset_fingerprint=named, intent=asked, rows=table.num_rows, row_digest=_HEX, files=files, columns=_columns(),
        feature_set="core.v1", feature_schema_digest=SCHEMA,
        label_counts=LabelCounts(
            payments=table.num_rows, fraud=frauds, legit=table.num_rows - frauds, filtered=0, immature=0, conflict=0,
            suspected=0, unlabelled=0,
        ),
        first_event_us=START_US, last_event_us=START_US + DAYS * US_PER_DAY, splits=(), readiness=ref, leakage=ref,
        quality=ref, parity=ref, pictures=(),
    ).model_copy(update=changed)  # fmt: skip
    key, body = dataset_key(named, "manifest.json"), canonical_bytes(manifest.model_dump(mode="json"))
    return DatasetRef(manifest=store.put(key, body), dataset_fingerprint=named)


def _put(store: EvidenceStore, key: str, table: pa.Table) -> DataFile:
    body = io.BytesIO()
    pq.write_table(table, body)
    ref = store.put(key, body.getvalue())
    return DataFile(key=ref.key, sha256=ref.sha256, size=ref.size, rows=table.num_rows)


def _columns() -> tuple[Column, ...]:
    return (
        Column(name="event_id", kind="string", role="key"),
        Column(name="account_id", kind="string", role="key"),
        Column(name="event_us", kind="int64", role="time"),
        Column(name="amount_minor", kind="int64", role="segment"),
        Column(name="channel", kind="string", role="segment"),
        Column(name="label", kind="int8", role="label"),
        *(Column(name=name, kind="float64", role="feature") for name in FEATURES),
    )


def request(dataset: DatasetRef, **changed: Any) -> TrainRequest:
    """A quick training on such a dataset."""
    made = TrainRequest(
        platform_run_id=RUN,
        dataset=dataset,
        policy_rev="policy-1",
        feature_set="core.v1",
        feature_schema_digest=SCHEMA,
        split=SplitRule(delay_us=5 * US_PER_DAY),
        floors=Floors(),
        boosting=Boosting(trees=20, max_depth=3, eta_milli=300),
        alert_budget_per_day=5,
        code_release="r1",
        environment_lock_digest=sha256_hex(b"lock"),
    )
    return made.model_copy(update=changed)


def with_column(name: str, values: Callable[[np.ndarray], Any]) -> World:
    """The world with one column replaced by what `values` makes of it."""

    def change(table: pa.Table) -> pa.Table:
        made = values(np.array(table.column(name).to_pylist()))
        return table.set_column(table.column_names.index(name), name, pa.array(made))

    return replace(World(), change=change)
