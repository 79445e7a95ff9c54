"""Figures of a scored window. Pure: scores and labels in, numbers out; None where the window cannot tell."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from fp_contracts.bundle import PPM, ActionBudgets, Metrics, Thresholds
from fp_contracts.timestamps import US_PER_DAY
from fp_models import action_of

ACTIONS = ("ALLOW", "STEP_UP", "REVIEW", "BLOCK")
_CALIBRATION_BINS = 10
_RESAMPLES = 200
_BAND = (2.5, 97.5)
_CURVE_POINTS = 200


def ppm(share: float) -> int:
    """A share as whole parts per million."""
    return round(float(share) * PPM)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under precision over recall by steps; None without a fraud."""
    return float(average_precision_score(labels, scores)) if labels.any() else None


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve; None unless there are frauds and others."""
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else None


def card_precision(
    labels: np.ndarray, scores: np.ndarray, accounts: np.ndarray, times_us: np.ndarray, per_day: int
) -> float | None:
    """Mean over days of: frauds' accounts ÷ accounts among the `per_day` accounts with the highest score of the day.

    An account found in fraud leaves the later days, as in the handbook. On a day with fewer accounts all are looked at.
    """
    days = times_us // US_PER_DAY
    found: set[object] = set()
    shares = []
    for day in np.unique(days):
        top: dict[object, float] = {}
        bad: set[object] = set()
        here = days == day
        for account, score, label in zip(accounts[here], scores[here], labels[here], strict=True):
            if account in found:
                continue
            top[account] = max(top.get(account, -1.0), float(score))
            if label:
                bad.add(account)
        looked = sorted(top, key=lambda account: (-top[account], str(account)))[:per_day]
        caught = [account for account in looked if account in bad]
        found.update(caught)
        if looked:
            shares.append(len(caught) / len(looked))
    return sum(shares) / len(shares) if shares else None


class Bin(NamedTuple):
    """One bin of the reliability curve: rows, mean score and share of frauds."""

    rows: int
    mean_score: float
    fraud_share: float


def reliability(labels: np.ndarray, scores: np.ndarray) -> list[Bin]:
    """Bins of equal size by score; ties stay together."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _CALIBRATION_BINS + 1)[1:-1]))
    places = np.searchsorted(edges, scores, side="right")
    bins = []
    for place in range(len(edges) + 1):
        here = places == place
        if here.any():
            bins.append(Bin(int(here.sum()), float(scores[here].mean()), float(labels[here].mean())))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean |score − fraud share| over rows."""
    rows = sum(item.rows for item in bins)
    return sum(item.rows * abs(item.mean_score - item.fraud_share) for item in bins) / rows


def measure(
    labels: np.ndarray, scores: np.ndarray, accounts: np.ndarray, times_us: np.ndarray, per_day: int
) -> Metrics:
    """The headline figures of one model on one window."""
    ap, area = average_precision(labels, scores), auc(labels, scores)
    cards = card_precision(labels, scores, accounts, times_us, per_day)
    return Metrics(
        rows=len(labels),
        frauds=int(labels.sum()),
        average_precision_ppm=None if ap is None else ppm(ap),
        auc_ppm=None if area is None else ppm(area),
        card_precision_ppm=None if cards is None else ppm(cards),
        calibration_error_ppm=ppm(calibration_error(reliability(labels, scores))),
    )


def ap_band(labels: np.ndarray, scores: np.ndarray, seed: int) -> tuple[float, float]:
    """The middle 95 % of the average precision over resampled windows (frauds and others resampled apart).

    Sorted once: a resample is a weight per row, which is a hundred times cheaper than sorting each.
    """
    draw, order = np.random.default_rng(seed), np.argsort(-scores, kind="stable")
    truth, ends = labels[order] > 0, np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    frauds, others = np.flatnonzero(truth), np.flatnonzero(~truth)
    values = []
    for _ in range(_RESAMPLES):
        weights = np.zeros(len(scores))
        for rows in (frauds, others):
            weights[rows] = np.bincount(draw.integers(0, len(rows), len(rows)), minlength=len(rows))
        values.append(_weighted_ap(truth, weights, ends))
    low, high = np.percentile(values, _BAND)
    return float(low), float(high)


def _weighted_ap(truth: np.ndarray, weights: np.ndarray, ends: np.ndarray) -> float:
    """Average precision of rows in order of falling score; `ends` are the last rows of equal scores."""
    found, seen = np.cumsum(weights * truth)[ends], np.cumsum(weights)[ends]
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    return float(np.sum(np.diff(found, prepend=0.0) * precision) / found[-1])


def random_ap(frauds: int, rows: int, draw: np.random.Generator) -> float:
    """Average precision of one order at random."""
    places = np.sort(draw.choice(rows, frauds, replace=False)) + 1
    return float(np.mean(np.arange(1, frauds + 1) / places))


def thresholds_for(scores: np.ndarray, budgets: ActionBudgets) -> Thresholds:
    """The lowest thresholds (ppm) at which at most the budgeted share of these scores asks for at least the action."""
    return Thresholds(
        step_up_ppm=_threshold(scores, budgets.step_up_ppm),
        review_ppm=_threshold(scores, budgets.review_ppm),
        block_ppm=_threshold(scores, budgets.block_ppm),
    )


def _threshold(scores: np.ndarray, budget_ppm: int) -> int | None:
    allowed = len(scores) * budget_ppm // PPM
    ordered = np.sort(scores)[::-1]
    if not allowed:
        return None
    if allowed >= len(ordered):
        return 0
    # Just above the first score that is one too many; scores beyond the last ppm cannot be told apart.
    threshold = int(np.floor(ordered[allowed] * PPM)) + 1
    return threshold if threshold <= PPM else None


def confusion(labels: np.ndarray, scores: np.ndarray, thresholds: Thresholds) -> dict[str, dict[str, int]]:
    """Action -> {fraud, legit}: how many rows of each kind the thresholds send where."""
    counts = {action: {"fraud": 0, "legit": 0} for action in ACTIONS}
    for score, label in zip(scores.tolist(), labels.tolist(), strict=True):
        counts[action_of(score, thresholds)]["fraud" if label else "legit"] += 1
    return counts


class Curves(NamedTuple):
    """Points of both curves, thinned for drawing."""

    recall: np.ndarray
    precision: np.ndarray
    false_positive: np.ndarray
    true_positive: np.ndarray


def curves(labels: np.ndarray, scores: np.ndarray) -> Curves:
    """Precision over recall, and the ROC curve."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    false_positive, true_positive, _ = roc_curve(labels, scores)
    return Curves(*_thin(recall, precision), *_thin(false_positive, true_positive))


def _thin(across: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One point for each small step across: by index, rows without a fraud would take nearly all points."""
    _, places = np.unique((across * _CURVE_POINTS).round(), return_index=True)
    places = np.unique([*places, 0, len(across) - 1])
    return across[places], up[places]


def by_segment(
    segments: Mapping[str, np.ndarray], labels: np.ndarray, scores: np.ndarray
) -> list[tuple[str, str, int, int, float | None, float]]:
    """(segment, value, rows, frauds, average precision, mean score), the values of each segment in order."""
    found = []
    for name, values in sorted(segments.items()):
        for value in sorted(set(values.tolist())):
            here = values == value
            ap = average_precision(labels[here], scores[here])
            found.append((name, value, int(here.sum()), int(labels[here].sum()), ap, float(scores[here].mean())))
    return found
