"""Pictures of a quality report: the same report gives the same bytes with the same matplotlib."""

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.backends import backend_agg as _loaded_while_nobody_waits  # noqa: F401
from matplotlib.figure import Figure

_INK, _ALARM, _PALE = "#33526e", "#b4462f", "#b9c6d2"
_DPI = 100


def pictures(quality: Mapping[str, Any]) -> dict[str, bytes]:
    """Name -> PNG of each picture."""
    return {
        "rows_by_day.png": _png(_by_day(quality["days"])),
        "payments_by_outcome.png": _png(_outcomes(quality["label_counts"])),
        "feature_zeros.png": _png(_zeros(quality["features"])),
    }


def _figure(height: float, title: str) -> Figure:
    figure = Figure(figsize=(9, height), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def _by_day(days: list[dict[str, Any]]) -> Figure:
    figure = _figure(4.5, "Rows and frauds by day of event time (UTC)")
    above, below = figure.subplots(2, 1, sharex=True)
    names = [day["day"] for day in days]
    above.bar(names, [day["rows"] for day in days], color=_INK)
    above.set_ylabel("rows")
    below.bar(names, [day["frauds"] for day in days], color=_ALARM)
    below.set_ylabel("frauds")
    below.tick_params(axis="x", labelrotation=90, labelsize=7)
    return figure


def _outcomes(counts: Mapping[str, int]) -> Figure:
    figure = _figure(3.2, f"What became of {counts['payments']:,} payments")
    axes = figure.subplots()
    names = [name for name in counts if name != "payments"]
    shades = [_ALARM if name == "fraud" else _INK if name == "legit" else _PALE for name in names]
    bars = axes.barh(names, [counts[name] for name in names], color=shades)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("payments")
    return figure


def _zeros(features: list[dict[str, Any]]) -> Figure:
    figure = _figure(1.2 + 0.17 * len(features), "Share of zeros in each feature")
    axes = figure.subplots()
    axes.barh([one["name"] for one in features], [one["zeros_ppm"] / 10_000 for one in features], color=_PALE)
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of rows")
    return figure


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
