"""Gradient-boosted trees by XGBoost, read from UBJSON and evaluated on one thread."""

import json
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

import numpy as np

from fp_models.errors import BundleBroken
from fp_models.model import Matrix, Scores

_UBJSON = b"{L"  # how XGBoost starts an object; JSON text, pickles and its old binary format start otherwise
OBJECTIVE = "binary:logistic"


def xgboost() -> ModuleType:
    """The library, imported at first use and without scikit-learn.

    It imports scikit-learn wherever that is installed, though only its wrappers need it: 4 s and 65 MB for nothing.
    """
    hide = "xgboost" not in sys.modules and "sklearn" not in sys.modules
    if hide:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # what Python defines as "cannot be imported"
    try:
        import xgboost as library
    finally:
        if hide:
            del sys.modules["sklearn"]
    return library


@dataclass(frozen=True, slots=True)
class BoostedModel:
    """A binary XGBoost model. Trees are added in their order in float32, whatever the batch."""

    booster: Any
    features: int

    def raw_scores(self, matrix: Matrix) -> Scores:
        """See Model."""
        scores = self.booster.inplace_predict(matrix, validate_features=False)
        return np.asarray(scores, np.float64)

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """The model in UBJSON as `Booster.save_raw("ubj")` gives it; BundleBroken MODEL for anything else."""
        if not body.startswith(_UBJSON):
            raise BundleBroken("MODEL", "not UBJSON")
        library = xgboost()
        try:
            booster = library.Booster(params={"nthread": 1})
            booster.load_model(bytearray(body))
            objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
            features = booster.num_features()
        except library.core.XGBoostError as error:
            raise BundleBroken("MODEL", str(error).strip().splitlines()[-1][:200]) from error
        if objective != OBJECTIVE:
            raise BundleBroken("MODEL", f"objective {objective} is not {OBJECTIVE}")
        return cls(booster, features)
