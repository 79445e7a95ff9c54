"""The two row functions of a build: one entity's history in, its part of the feature vectors out.

Arrow in, Arrow out, one group per call: the embedded engine maps them over slices, Spark by `applyInArrow`. Rows are
named by (lane, n), the order in which the stream released them; vectors are packed little-endian float64.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from fp_features import CORE_V1, AccountState, FeatureSet, MerchantState, Payment, pack
from fp_ofs.join import Learned, Step

FEATURE_SETS: dict[str, FeatureSet] = {CORE_V1.name: CORE_V1}
DISPOSITION = "fraud_disposition"
_STEP_COLUMNS = {
    "lane": "int32", "n": "int64", "at_us": "int64", "merchant_id": "string", "account_id": "string",
    "event_id": "string", "event_us": "int64", "amount_minor": "int64", "channel": "string", "instrument_id": "string",
    "device_id": "string", "value": "string", "source": "string", "observed_us": "int64",
}  # fmt: skip

_TYPES: Mapping[str, pa.DataType] = {
    "int8": pa.int8(), "int32": pa.int32(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string(),
    "binary": pa.binary(),
}  # fmt: skip


def schema_of(columns: Mapping[str, str]) -> pa.Schema:
    """A schema from column names and the names of their types."""
    return pa.schema([pa.field(name, _TYPES[kind]) for name, kind in columns.items()])


STEPS = schema_of(_STEP_COLUMNS)
PAYMENTS = schema_of(dict(list(_STEP_COLUMNS.items())[:11]))
PART = schema_of({"lane": "int32", "n": "int64", "vector": "binary", "known_us": "int64"})
_PAYMENT_NAMES = ["event_us", "amount_minor", "channel", "merchant_id", "instrument_id", "device_id"]


def values(table: pa.Table, name: str) -> list[Any]:
    """A column as Python values."""
    return table.column(name).to_pylist()


def step_table(lane: int, steps: Iterable[Step]) -> pa.Table:
    """The steps of a lane as a table: payments (`value` null) and labels (`event_us` = effective time)."""
    rows = [_row(lane, n, step) for n, step in enumerate(steps)]
    columns: Sequence[Sequence[object]] = list(zip(*rows, strict=True)) or [()] * len(STEPS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, STEPS, strict=True)]
    return pa.table(arrays, schema=STEPS)


def _row(lane: int, n: int, step: Step) -> tuple[object, ...]:
    if isinstance(step, Learned):
        label = step.label
        value = label.value if label.label_type == DISPOSITION else ""
        return (
            lane, n, step.order_us, label.merchant_id, None, label.event_id, label.effective_us, 0, None, None, None,
            value, label.source, label.observed_us,
        )  # fmt: skip
    auth = step.auth
    return (
        lane, n, step.release_us, auth.merchant_id, step.anchor.account_id if step.anchor else None, auth.event_id,
        auth.ts_us, auth.amount_minor, step.arrival.channel if step.arrival else None, step.instrument_id,
        step.entities.device_id if step.entities else None, None, None, None,
    )  # fmt: skip


def merchant_part(steps: pa.Table, features: FeatureSet = CORE_V1) -> pa.Table:
    """One merchant's steps (schema STEPS, in order of `n`) to the snapshot part of each of its payments (PART).

    `known_us` is the order time (µs) of the latest thing that went into the vector.
    """
    state = MerchantState()
    found = []
    known_us = -(2**63)
    names = ["lane", "n", "at_us", "event_id", "value", "source", "observed_us"]
    sides = zip(*(values(steps, name) for name in names), strict=True)
    for (lane, n, at_us, event_id, value, source, observed_us), payment in zip(sides, _payments(steps), strict=True):
        known_us = max(known_us, at_us)
        if value is not None:
            if value:
                state.apply_label(event_id, value, source, payment.ts_us, observed_us)
            continue
        state.update(payment.ts_us, payment.amount_minor, at_us)
        found.append((lane, n, pack(features.snapshot_values(payment, state)), known_us))
    return _parts(found)


def account_part(payments: pa.Table, features: FeatureSet = CORE_V1) -> pa.Table:
    """One account's payments (schema PAYMENTS, in df's merge order) to the account part of each (PART).

    Payments without an account have no history: each stands alone.
    """
    state = AccountState()
    found = []
    known_us = -(2**63)
    names = ["lane", "n", "at_us", "account_id"]
    sides = zip(*(values(payments, name) for name in names), strict=True)
    for (lane, n, at_us, account_id), payment in zip(sides, _payments(payments), strict=True):
        if account_id is None:
            state = AccountState()
        known_us = max(known_us, at_us)
        state.update(payment, at_us)
        found.append((lane, n, pack(features.account_values(payment, state)), known_us))
    return _parts(found)


def _payments(table: pa.Table) -> Iterable[Payment]:
    return map(Payment, *(values(table, name) for name in _PAYMENT_NAMES))


def _parts(found: Sequence[tuple[int, int, bytes, int]]) -> pa.Table:
    columns: Sequence[Sequence[object]] = list(zip(*found, strict=True)) or [()] * len(PART)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, PART, strict=True)]
    return pa.table(arrays, schema=PART)
