"""The quality report of a dataset: what is in it, what is not, and why. Pure; no floats, so shares are ppm."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fp_contracts.dataset import LabelCounts, SplitHint
from fp_contracts.jobrun import PARITY_MEASURES, QUALITY_MEASURES
from fp_contracts.timestamps import US_PER_DAY, to_text
from fp_features import FeatureSet
from fp_ofs.features import values
from fp_ofs.rows import Rows

PPM = 1_000_000
_NULLABLE = ("account_id", "channel", "mcc", "country", "served_action")


def coverage_ppm(counts: LabelCounts) -> int:
    """Rows ÷ (rows + censored) of the mature payments."""
    rows = counts.fraud + counts.legit
    return share_ppm(rows, rows + counts.conflict + counts.suspected + counts.unlabelled)


def conflict_ppm(counts: LabelCounts) -> int:
    """Conflicts ÷ (rows + censored) of the mature payments."""
    mature = counts.fraud + counts.legit + counts.conflict + counts.suspected + counts.unlabelled
    return share_ppm(counts.conflict, mature)


def share_ppm(part: int, whole: int) -> int:
    """Part ÷ whole in parts per million, rounded down; 0 of nothing."""
    return part * PPM // whole if whole else 0


def quality_document(rows: Rows, features: FeatureSet, splits: tuple[SplitHint, ...]) -> dict[str, Any]:
    """Counts, rates, nulls, days, and each feature's spread (numbers as text that reads back exactly)."""
    counts = rows.counts
    total = counts.fraud + counts.legit
    return {
        "rows": total,
        "frauds": counts.fraud,
        "fraud_rate_ppm": share_ppm(counts.fraud, total),
        "label_counts": counts.model_dump(),
        "censored": counts.conflict + counts.suspected + counts.unlabelled,
        "coverage_ppm": coverage_ppm(counts),
        "conflict_ppm": conflict_ppm(counts),
        "degraded": int(sum(values(rows.table, "degraded"))),
        "nulls": {name: rows.table.column(name).null_count for name in _NULLABLE},
        "days": _days(rows),
        "features": _features(rows, features),
        "splits": [split.model_dump() for split in splits],
    }


def measures(quality: Mapping[str, Any], parity: Mapping[str, Any]) -> dict[str, int]:
    """What telemetry shows of a dataset: figures of its quality and parity reports under their own names."""
    found = {name: int(quality[name]) for name in QUALITY_MEASURES}
    return found | {name: int(parity[name]) for name in PARITY_MEASURES}


def _days(rows: Rows) -> list[dict[str, Any]]:
    """Rows and frauds per UTC day of event time."""
    days = rows.table.column("event_us").to_numpy() // US_PER_DAY
    labels = rows.table.column("label").to_numpy()
    found, at = np.unique(days, return_inverse=True)
    totals, frauds = np.bincount(at, minlength=len(found)), np.bincount(at, weights=labels, minlength=len(found))
    return [
        {"day": to_text(int(day) * US_PER_DAY)[:10], "rows": int(total), "frauds": int(fraud)}
        for day, total, fraud in zip(found, totals, frauds, strict=True)
    ]


def _features(rows: Rows, features: FeatureSet) -> list[dict[str, Any]]:
    found = []
    for name, column in zip(features.names, rows.matrix.T, strict=True):
        finite = column[np.isfinite(column)]
        spread = (finite.min(), np.median(finite), finite.max()) if len(finite) else ()
        found.append(
            {
                "name": name,
                "not_finite": int(len(column) - len(finite)),
                "zeros_ppm": share_ppm(int((column == 0).sum()), len(column)),
                "min_median_max": [repr(float(value)) for value in spread],
            }
        )
    return found
