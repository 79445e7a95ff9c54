"""The rows of a dataset: eligible payments in release order, their digest, their split by time. Pure."""

import hashlib
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fp_contracts.dataset import BuildIntent, Column, LabelCounts, SplitHint
from fp_contracts.ids import framed
from fp_contracts.timestamps import US_PER_DAY
from fp_features import FeatureSet
from fp_features.labels import Known
from fp_ofs.engine import sorted_by
from fp_ofs.features import values
from fp_ofs.labels import Fate, Outcome, fate
from fp_ofs.parity import Served

NEVER_US = -(2**63)
_FIXED = (
    ("event_id", "string", "key"), ("flow_id", "string", "key"), ("account_id", "string", "key"),
    ("merchant_id", "string", "key"), ("event_us", "int64", "time"), ("release_us", "int64", "time"),
    ("amount_minor", "int64", "segment"), ("currency", "string", "segment"), ("channel", "string", "segment"),
    ("mcc", "string", "segment"), ("country", "string", "segment"), ("degraded", "int8", "segment"),
    ("served_action", "string", "served"), ("served_posture", "string", "served"),
    ("served_policy_rev", "string", "served"), ("label", "int8", "label"),
)  # fmt: skip
_TEXTS = tuple(name for name, kind, _ in _FIXED if kind == "string")
_NUMBERS = tuple(name for name, kind, _ in _FIXED if kind != "string")
_SERVED = {"served_action": "action", "served_posture": "posture", "served_policy_rev": "policy_rev"}
# Splits as the fraud-detection handbook does them: train, a gap in which labels were still coming, test.
_TRAIN_SHARE, _TEST_SHARE = 0.5, 0.25


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows and what the leakage checks ask of each. Times in µs; `observed_us` is NEVER_US where nobody spoke."""

    table: pa.Table
    matrix: npt.NDArray[np.float64]
    known_us: npt.NDArray[np.int64]
    observed_us: npt.NDArray[np.int64]
    counts: LabelCounts


def columns_of(features: FeatureSet) -> tuple[Column, ...]:
    """The column schema: fixed columns, then features in schema order."""
    fixed = [Column.model_validate({"name": name, "kind": kind, "role": role}) for name, kind, role in _FIXED]
    return (*fixed, *(Column(name=name, kind="float64", role="feature") for name in features.names))


def make_rows(
    payments: pa.Table, known: Mapping[str, Known], served: Served, intent: BuildIntent, features: FeatureSet
) -> Rows:
    """Eligible payments of FACTS + `vector` + `known_us`, ordered by (release_us, event_id), with their labels."""
    ordered = sorted_by(payments, ("release_us", "event_id"))
    fates = [
        fate(event_us, bool(reasons), known.get(event_id), intent.labels, intent.filters)
        for event_id, event_us, reasons in zip(
            *(values(ordered, name) for name in ("event_id", "event_us", "reasons")), strict=True
        )
    ]
    kept = [at for at, found in enumerate(fates) if found.outcome in (Outcome.FRAUD, Outcome.LEGIT)]
    chosen = ordered.take(np.asarray(kept, dtype=np.int64))
    picked = [fates[at] for at in kept]
    matrix = np.frombuffer(b"".join(values(chosen, "vector")), dtype="<f8").reshape(-1, len(features.names))
    return Rows(
        _table(chosen, picked, served, matrix, features),
        matrix,
        chosen.column("known_us").to_numpy(),
        np.array([NEVER_US if one.observed_us is None else one.observed_us for one in picked], dtype=np.int64),
        _count(fates),
    )


def _table(
    chosen: pa.Table, fates: Sequence[Fate], served: Served, matrix: npt.NDArray[np.float64], features: FeatureSet
) -> pa.Table:
    decisions = [served.decisions.get(event_id) for event_id in values(chosen, "event_id")]
    made: dict[str, pa.Array[Any]] = {
        name: pa.array([getattr(found, field) if found else None for found in decisions], pa.string())
        for name, field in _SERVED.items()
    }
    made["degraded"] = pa.array([int(bool(reasons)) for reasons in values(chosen, "reasons")], pa.int8())
    made["label"] = pa.array([int(found.outcome is Outcome.FRAUD) for found in fates], pa.int8())
    names = [name for name, _, _ in _FIXED]
    arrays: list[Any] = [made[name] if name in made else chosen.column(name) for name in names]
    arrays += [pa.array(matrix[:, at]) for at in range(matrix.shape[1])]
    return pa.table(arrays, names=[*names, *features.names])


def _count(fates: Sequence[Fate]) -> LabelCounts:
    counts = Counter(found.outcome.value for found in fates)
    return LabelCounts(payments=len(fates), **{outcome.value: counts[outcome.value] for outcome in Outcome})


def row_digest(table: pa.Table, matrix: npt.NDArray[np.float64]) -> str:
    """sha256 over the rows in order: length-prefixed texts (with a mark for null), numbers, the packed vector."""
    digest = hashlib.sha256()
    numbers = struct.Struct(f"<{len(_NUMBERS)}q")
    texts = zip(*(values(table, name) for name in _TEXTS), strict=True)
    counts = zip(*(values(table, name) for name in _NUMBERS), strict=True)
    for said, counted, vector in zip(texts, counts, matrix, strict=True):
        digest.update(framed(*("\0" if text is None else text for text in said)))
        digest.update(numbers.pack(*counted))
        digest.update(vector.tobytes())
    return digest.hexdigest()


def splits(table: pa.Table, maturity_days: int) -> tuple[SplitHint, ...]:
    """Train, delay, test by event time: the delay is the maturity where the rows span enough, else what is left."""
    times = table.column("event_us").to_numpy()
    if not len(times):
        return ()
    labels = table.column("label").to_numpy()
    first, end = int(times.min()), int(times.max()) + 1
    delay = min(maturity_days * US_PER_DAY, int((end - first) * (1 - _TRAIN_SHARE - _TEST_SHARE)))
    test = end - int((end - first - delay) * _TEST_SHARE / (_TRAIN_SHARE + _TEST_SHARE))
    edges = (("train", first, test - delay), ("delay", test - delay, test), ("test", test, end))
    found = []
    for name, start_us, end_us in edges:
        inside = (times >= start_us) & (times < end_us)
        part = {"name": name, "start_us": start_us, "end_us": end_us}
        counts = {"rows": int(inside.sum()), "frauds": int(labels[inside].sum())}
        found.append(SplitHint.model_validate({**part, **counts}))
    return tuple(found)
