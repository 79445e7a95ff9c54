"""How features and scores are spread, and how far from the last bundle's: population stability index (PSI)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fp_contracts.bundle import PPM
from fp_contracts.canonical import canonical_bytes, parse_strict

SCORE = "score"
MOVED_PPM = 250_000  # a PSI of 0.25 is the usual mark for "the population is another one"
_BINS = 10
_EMPTY = 1e-4  # an empty bin counts as this share, or the index would be infinite


def profile(names: Sequence[str], features: np.ndarray, scores: np.ndarray) -> bytes:
    """profile.json: for every feature and the score the edges of ten bins and the share (ppm) of rows in each.

    Edges are texts, since they must read back to the same bits.
    """
    columns = {}
    for name, values in zip((*names, SCORE), (*features.T, scores), strict=True):
        edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
        shares = [round(share * PPM) for share in _shares(values, edges)]
        columns[name] = {"edges": [repr(edge) for edge in edges.tolist()], "shares_ppm": shares}
    return canonical_bytes({"format": "fp.profile.v1", "rows": len(scores), "columns": columns})


def stability(
    reference: dict[str, Any], names: Sequence[str], features: np.ndarray, scores: np.ndarray
) -> dict[str, int]:
    """PSI (ppm) of every feature that the reference profile knows, and of the score, by falling value."""
    found = {}
    for name, values in zip((*names, SCORE), (*features.T, scores), strict=True):
        known = reference["columns"].get(name)
        if known is not None:
            edges = np.array([float(edge) for edge in known["edges"]])
            found[name] = round(_psi([share / PPM for share in known["shares_ppm"]], _shares(values, edges)) * PPM)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def alarm(moved: Mapping[str, int]) -> list[str]:
    """What has drifted: names whose PSI (ppm) reaches the mark."""
    return [name for name, value in moved.items() if value >= MOVED_PPM]


def trial(names: Sequence[str], features: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """The alarm tried: every second row against the profile of the others, as it is and with one feature moved.

    The feature with the most values is moved, by its whole range, so that its population is surely another one. Rows
    taken in turn are of one population, so without that the alarm must stay quiet.
    """
    reference = parse_strict(profile(names, features[::2], scores[::2]))
    others, at = features[1::2], int(np.argmax([len(np.unique(column)) for column in features.T]))
    moved = others.copy()
    moved[:, at] += np.ptp(features[:, at]) + 1.0
    quiet, seeded = (stability(reference, names, rows, scores[1::2]) for rows in (others, moved))
    return {
        "mark_ppm": MOVED_PPM, "rows": len(others), "reference_rows": len(features[::2]), "moved": names[at],
        "undrifted": {"psi_ppm": quiet, "alarm": alarm(quiet)},
        "drifted": {"psi_ppm": seeded, "alarm": alarm(seeded)},
    }  # fmt: skip


def _shares(values: np.ndarray, edges: np.ndarray) -> list[float]:
    places = np.searchsorted(edges, values, side="right")
    counts = np.bincount(places, minlength=len(edges) + 1)
    return [float(share) for share in counts / max(len(values), 1)]


def _psi(before: Sequence[float], now: Sequence[float]) -> float:
    pairs = [(max(a, _EMPTY), max(b, _EMPTY)) for a, b in zip(before, now, strict=True)]
    return math.fsum((b - a) * math.log(b / a) for a, b in pairs)
