"""The report's curves as PNG pictures. The same numbers give the same bytes."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fp_contracts.bundle import PPM
from fp_mf import metrics
from fp_mf.evaluate import Fitted

_DPI = 90
_TOP = 15


def draw(fitted: Fitted, drift: Mapping[str, int]) -> dict[str, bytes]:
    """File name -> PNG."""
    pictures = {
        "curves.png": _curves(fitted),
        "calibration.png": _calibration(fitted),
        "importance.png": _bars("share of total gain or weight", fitted.importance),
    }
    if fitted.curve:
        pictures["training.png"] = _training(fitted.curve)
    if drift:
        pictures["drift.png"] = _bars("PSI against the last bundle", drift)
    return pictures


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    body = io.BytesIO()
    figure.savefig(body, format="png", dpi=_DPI, metadata={"Software": None})  # the version would be in the bytes
    return body.getvalue()


def _curves(fitted: Fitted) -> bytes:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = fitted.split.test.labels
    for name, scores in _models(fitted):
        points, ap = metrics.curves(labels, scores), metrics.average_precision(labels, scores)
        left.plot(points.recall, points.precision, label=f"{name}, AP {ap:.3f}")
        right.plot(points.false_positive, points.true_positive, label=name)
    left.set(xlabel="recall", ylabel="precision", title="precision over recall", xlim=(0, 1), ylim=(0, 1.02))
    right.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", xlim=(0, 1), ylim=(0, 1.02))
    left.legend()
    right.legend()
    return _png(figure)


def _models(fitted: Fitted) -> list[tuple[str, np.ndarray]]:
    found = [("candidate", fitted.scores), ("baseline", fitted.baseline_scores)]
    if fitted.active_scores is not None:
        found.append(("active", fitted.active_scores))
    return found


def _calibration(fitted: Fitted) -> bytes:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = metrics.reliability(fitted.split.test.labels, fitted.scores)
    top = max(max(item.mean_score, item.fraud_share) for item in bins) * 1.05 or 1.0
    left.plot([0, top], [0, top], color="0.7")
    left.plot([item.mean_score for item in bins], [item.fraud_share for item in bins], marker="o")
    left.set(xlabel="mean score", ylabel="share of frauds", title="reliability, ten bins of equal size")
    for label, name in ((0, "legit"), (1, "fraud")):
        chosen = fitted.scores[fitted.split.test.labels == label]
        right.hist(chosen, bins=np.linspace(0, 1, 41), log=True, histtype="step", label=name)
    right.set(xlabel="score", ylabel="payments", title="scores of the test window")
    right.legend()
    return _png(figure)


def _training(curve: Mapping[str, Sequence[float]]) -> bytes:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in curve.items():
        axes.plot(np.arange(1, len(values) + 1), values, label=name)
    axes.set(xlabel="trees", ylabel="average precision", title="training", ylim=(0, 1.02))
    axes.legend()
    return _png(figure)


def _bars(title: str, shares: Mapping[str, int]) -> bytes:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    names = list(shares)[:_TOP][::-1]
    axes.barh(names, [shares[name] / PPM for name in names])
    axes.set(title=title)
    return _png(figure)
