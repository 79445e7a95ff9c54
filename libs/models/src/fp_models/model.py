"""One scoring interface over the model families."""

from typing import Any, Protocol, TypeAlias

import numpy as np

from fp_contracts.bundle import Family
from fp_models.errors import NotFinite

Matrix: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Scores: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Model(Protocol):
    """A fitted model. A row's score does not depend on the other rows of its batch, to the last bit."""

    @property
    def features(self) -> int:
        """Number of features."""
        ...

    def raw_scores(self, matrix: Matrix) -> Scores:
        """float64 [rows] for a finite, C-ordered float64 [rows, features]; may hold NaN when the model is broken."""
        ...


def open_model(family: Family, body: bytes) -> Model:
    """The model in these bytes; BundleBroken MODEL when they cannot be one of that family."""
    if family == "logistic":
        from fp_models.logistic import LogisticModel

        return LogisticModel.from_bytes(body)
    from fp_models.boosted import BoostedModel  # here, because xgboost takes a second to import

    return BoostedModel.from_bytes(body)


def score(model: Model, matrix: Matrix) -> Scores:
    """float64 [rows] in [0, 1] for float64 [rows, features].

    Errors: ValueError for another shape or type; NotFinite naming the rows with a NaN or infinite score, or a feature
    that is NaN, infinite or beyond float32, which trees compare in.
    """
    if matrix.ndim != 2 or matrix.shape[1] != model.features or matrix.dtype != np.float64:
        raise ValueError(f"{matrix.dtype} {matrix.shape} is no float64 [rows, {model.features}]")
    if not len(matrix):
        return np.empty(0, np.float64)
    _refuse("feature", ~(np.abs(matrix) <= _FLOAT32_MAX).all(axis=1))
    scores = model.raw_scores(np.ascontiguousarray(matrix))
    _refuse("score", ~((scores >= 0.0) & (scores <= 1.0)))
    return scores


def _refuse(what: Any, bad: Any) -> None:
    if bad.any():
        raise NotFinite(what, tuple(int(row) for row in np.flatnonzero(bad)))
