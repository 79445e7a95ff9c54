"""Leakage checks, each with a poison that it must catch: a check that passes its own poison proves nothing. Pure.

A check counts violating rows (or columns) of `Facts`; its poison plants exactly one violation in a copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fp_contracts.dataset import BuildIntent, Column, SplitHint
from fp_contracts.ingress import TRUTH_FIELDS
from fp_contracts.timestamps import US_PER_DAY
from fp_features import FeatureSet
from fp_ofs.rows import NEVER_US, Rows

Ints = npt.NDArray[np.int64]
FEW = 5


@dataclass(frozen=True, slots=True)
class Facts:
    """What leakage could be seen by. Times in µs; `blind` = rows of the sample recomputed without any later record,
    as (vector with everything, vector with the past alone)."""

    event_us: Ints
    release_us: Ints
    known_us: Ints
    observed_us: Ints
    labels: npt.NDArray[np.int8]
    matrix: npt.NDArray[np.float64]
    columns: tuple[Column, ...]
    feature_names: tuple[str, ...]
    splits: tuple[SplitHint, ...]
    blind: tuple[tuple[bytes, bytes], ...]
    as_of_us: int
    maturity_us: int


def facts_of(
    rows: Rows, intent: BuildIntent, features: FeatureSet, columns: tuple[Column, ...],
    splits: tuple[SplitHint, ...], blind: tuple[tuple[bytes, bytes], ...],
) -> Facts:  # fmt: skip
    """The facts of a build."""
    event_us, release_us = (rows.table.column(name).to_numpy() for name in ("event_us", "release_us"))
    return Facts(
        event_us, release_us, rows.known_us, rows.observed_us, rows.table.column("label").to_numpy(), rows.matrix,
        columns, features.names, splits, blind, intent.labels.as_of_us, intent.labels.maturity_days * US_PER_DAY,
    )  # fmt: skip


def label_after_as_of(facts: Facts) -> int:
    """Rows whose label was observed after the as-of."""
    return int((facts.observed_us > facts.as_of_us).sum())


def label_before_payment(facts: Facts) -> int:
    """Rows whose label was observed before the payment was made: a label that knew the future."""
    return int(((facts.observed_us != NEVER_US) & (facts.observed_us < facts.event_us)).sum())


def feature_after_decision(facts: Facts) -> int:
    """Rows into which anything went that took its place in the order after the row's release."""
    return int((facts.known_us > facts.release_us).sum())


def future_blind(facts: Facts) -> int:
    """Sampled rows whose vector changes when every later record is taken away; one when there was no sample."""
    return sum(whole != past for whole, past in facts.blind) if facts.blind else 1


def immature(facts: Facts) -> int:
    """Rows younger at the as-of than the maturity."""
    return int((facts.event_us + facts.maturity_us > facts.as_of_us).sum())


def truth_columns(facts: Facts) -> int:
    """Columns that are named like truth, or that claim to be features and are not in the feature set's schema."""
    named = sum(column.name.lower() in TRUTH_FIELDS and column.role != "label" for column in facts.columns)
    return named + int(tuple(c.name for c in facts.columns if c.role == "feature") != facts.feature_names)


def label_copies(facts: Facts) -> int:
    """Feature columns that are the label in disguise: constant within each class, and different between them.

    Not asked of fewer than FEW frauds, of which chance can make such a column.
    """
    fraud = facts.labels == 1
    if fraud.sum() < FEW or fraud.all():
        return 0
    with_fraud, without = facts.matrix[fraud], facts.matrix[~fraud]
    constant = (with_fraud == with_fraud[0]).all(axis=0) & (without == without[0]).all(axis=0)
    return int((constant & (with_fraud[0] != without[0])).sum())


def split_order(facts: Facts) -> int:
    """Parts of the split that begin before the one before them ended."""
    return sum(after.start_us < before.end_us for before, after in zip(facts.splits, facts.splits[1:], strict=False))


def _with(values: npt.NDArray[Any], value: int) -> npt.NDArray[Any]:
    poisoned = values.copy()
    poisoned[0] = value
    return poisoned


def _copied_label(facts: Facts) -> Facts:
    labels, matrix = facts.labels.copy(), facts.matrix.copy()
    labels[:] = np.arange(len(labels)) % 2
    matrix[:, -1] = labels
    return replace(facts, labels=labels, matrix=matrix)


def _turned_split(facts: Facts) -> Facts:
    parts: Sequence[SplitHint] = facts.splits
    return replace(facts, splits=(parts[-1], *parts[:-1]))


def _truth_column(facts: Facts) -> Facts:
    return replace(facts, columns=(*facts.columns, Column(name="is_fraud", kind="int8", role="segment")))


@dataclass(frozen=True, slots=True)
class LeakageCheck:
    """One check and the poison it must catch; `planted` says in words what the poison is."""

    count: Callable[[Facts], int]
    poison: Callable[[Facts], Facts]
    planted: str

    @property
    def name(self) -> str:
        """The name of the check."""
        return self.count.__name__


CHECKS = (
    LeakageCheck(
        label_after_as_of, lambda f: replace(f, observed_us=_with(f.observed_us, f.as_of_us + 1)),
        "a label observed 1 µs after the as-of",
    ),
    LeakageCheck(
        label_before_payment, lambda f: replace(f, observed_us=_with(f.observed_us, int(f.event_us[0]) - 1)),
        "a label observed 1 µs before its payment",
    ),
    LeakageCheck(
        feature_after_decision, lambda f: replace(f, known_us=_with(f.known_us, int(f.release_us[0]) + 1)),
        "a feature that knew a record 1 µs after the decision",
    ),
    LeakageCheck(
        future_blind, lambda f: replace(f, blind=(*f.blind[1:], (b"with the future", b"with the past"))),
        "a vector that changes when later records are taken away",
    ),
    LeakageCheck(
        immature, lambda f: replace(f, event_us=_with(f.event_us, f.as_of_us - f.maturity_us + 1)),
        "a payment 1 µs younger than the maturity",
    ),
    LeakageCheck(truth_columns, _truth_column, "a column named is_fraud"),
    LeakageCheck(label_copies, _copied_label, "a feature that is the label under another name"),
    LeakageCheck(split_order, _turned_split, "a test part before the training part"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found in the data, and in its poison."""

    name: str
    planted: str
    violations: int
    caught: bool

    @property
    def ok(self) -> bool:
        """Clean, by a check that was seen to fail."""
        return self.violations == 0 and self.caught


def examine(facts: Facts, checks: Sequence[LeakageCheck] = CHECKS) -> tuple[Finding, ...]:
    """Run every check on the data and on its poison; needs a few rows and a split."""
    return tuple(
        Finding(check.name, check.planted, (clean := check.count(facts)), check.count(check.poison(facts)) > clean)
        for check in checks
    )
