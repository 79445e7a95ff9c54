"""Logistic regression as plain numbers: standardise, weigh, add in schema order."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fp_models.errors import BundleBroken
from fp_models.model import Matrix, Scores

FORMAT = "fp.logistic.v1"
CLIP = 10.0
_FIELDS = {"format", "shift", "scale", "weights", "bias"}


@dataclass(frozen=True, slots=True)
class LogisticModel:
    """score = sigmoid(bias + Σ weights · clip((x − shift) / scale)), added feature by feature in schema order.

    clip keeps within ±10: amounts have long tails, and with few rows one of them would bend a whole weight.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.weights)

    def raw_scores(self, matrix: Matrix) -> Scores:
        """See Model. No matrix product: its order of summing depends on the batch."""
        margin = np.full(len(matrix), self.bias)
        for column, weight in zip(standardised(matrix, self.shift, self.scale), self.weights, strict=True):
            margin += column * weight
        return np.array([_sigmoid(value) for value in margin.tolist()], np.float64)

    def to_bytes(self) -> bytes:
        """JSON whose numbers read back to the same bits."""
        document = {
            "format": FORMAT, "shift": self.shift, "scale": self.scale, "weights": self.weights, "bias": self.bias,
        }  # fmt: skip
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """The model that `to_bytes` wrote; BundleBroken MODEL for anything else, NaN and infinity above all."""
        try:
            document = json.loads(body, parse_constant=_refuse_constant)
        except ValueError as error:
            raise BundleBroken("MODEL", f"not JSON numbers: {error}") from error
        if not isinstance(document, dict) or set(document) != _FIELDS or document["format"] != FORMAT:
            raise BundleBroken("MODEL", f"not of format {FORMAT}")
        shift, scale, weights = (_numbers(document[name]) for name in ("shift", "scale", "weights"))
        (bias,) = _numbers([document["bias"]])
        if not weights or not len(shift) == len(scale) == len(weights) or 0.0 in scale:
            raise BundleBroken("MODEL", "columns of different size, or a scale of 0")
        return cls(shift, scale, weights, bias)


def standardised(matrix: Matrix, shift: Sequence[float], scale: Sequence[float]) -> list[Scores]:
    """Columns of float64 [rows]; computed element by element, so that no value depends on another row."""
    return [
        np.clip((matrix[:, index] - centre) / width, -CLIP, CLIP)
        for index, (centre, width) in enumerate(zip(shift, scale, strict=True))
    ]


def _sigmoid(margin: float) -> float:
    if margin >= 0.0:
        return 1.0 / (1.0 + math.exp(-margin))
    power = math.exp(margin)
    return power / (1.0 + power)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _numbers(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise BundleBroken("MODEL", "not a list of numbers")
    numbers = tuple(map(float, values))
    if not all(map(math.isfinite, numbers)):
        raise BundleBroken("MODEL", "a number is not finite")
    return numbers
