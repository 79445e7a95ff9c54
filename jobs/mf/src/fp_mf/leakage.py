"""Two checks that must be able to fail: labels shuffled over all rows teach nothing, and time runs one way. Pure.

Each is run on the data and on a poison of the same data; a check that its own poison passes proves nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]

from fp_mf.metrics import random_ap
from fp_mf.progress import Progress
from fp_mf.split import Split

SHUFFLES = 3
_NULL_DRAWS = 1_000
_NULL_QUANTILE = 99.9
FitAndScore: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Average precision with shuffled labels: the middle of some shuffles, its limit, the same for the poison."""

    observed: float
    limit: float
    poisoned: float

    @property
    def clean(self) -> bool:
        """Nothing of the shuffled labels came through."""
        return self.observed <= self.limit

    @property
    def able_to_fail(self) -> bool:
        """The poison, a feature that holds the label, was caught."""
        return self.poisoned > self.limit


def shuffle_check(split: Split, fit_and_score: FitAndScore, seed: int, progress: Progress) -> Shuffled:
    """Shuffle the labels of train and of test, train, and examine on the shuffled test labels.

    Those know nothing of features, so the limit is exact: the 99.9th percentile of orders at random. Shuffling train
    labels alone would not do: a model of noise may still rank by amount, and real frauds have large amounts.
    The poison is the label itself as one more feature. `fit_and_score(train features, labels, test features)` gives
    the scores of the test rows.
    """
    draw, train, test = np.random.default_rng(seed), split.train, split.test
    found = []
    for done in range(SHUFFLES):
        progress("shuffle", done, SHUFFLES + 1)
        taught, asked = draw.permutation(train.labels), draw.permutation(test.labels)
        found.append(average_precision_score(asked, fit_and_score(train.features, taught, test.features)))
    progress("shuffle", SHUFFLES, SHUFFLES + 1)
    told, hinted = np.column_stack([train.features, taught]), np.column_stack([test.features, asked])
    poisoned = average_precision_score(asked, fit_and_score(told, taught, hinted))
    progress("shuffle", SHUFFLES + 1, SHUFFLES + 1)
    return Shuffled(float(np.median(found)), _null_limit(test.labels, draw), float(poisoned))


def _null_limit(labels: np.ndarray, draw: np.random.Generator) -> float:
    frauds, rows = int(labels.sum()), len(labels)
    values = [random_ap(frauds, rows, draw) for _ in range(_NULL_DRAWS)]
    return float(np.percentile(values, _NULL_QUANTILE))


def time_runs_forward(train_us: np.ndarray, test_us: np.ndarray, delay_us: int) -> bool:
    """Whether every test payment came at least the label delay after every train payment began to be known."""
    return int(train_us.max()) + delay_us <= int(test_us.min())


def time_order(split: Split, delay_us: int) -> tuple[bool, bool]:
    """(holds on the data, is able to fail): the poison has one test payment among the train payments."""
    train_us, test_us = split.train.times_us, split.test.times_us
    poison = np.append(test_us, train_us[:1])
    return time_runs_forward(train_us, test_us, delay_us), not time_runs_forward(train_us, poison, delay_us)
