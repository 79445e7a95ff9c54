"""The handbook's protocol (Le Borgne et al., chapters 3 and 5): 7 days train, 7 delay, 7 test, four folds. Pure."""

from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np

from bench.handbook.streamed import Streamed
from fp_mf import metrics

DAY_US = 86_400_000_000
WEEK = 7
STARTS = (date(2018, 7, 25), date(2018, 8, 1), date(2018, 8, 8), date(2018, 8, 15))
CARDS_PER_DAY = 100


class Fold(NamedTuple):
    """Masks over all streamed payments."""

    train: np.ndarray
    test: np.ndarray


class Figures(NamedTuple):
    """The three published metrics."""

    auc: float
    ap: float
    cp: float


def day_of(start: date) -> int:
    """Days since 1970 (UTC)."""
    return int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp() * 1_000_000) // DAY_US


def until_us() -> int:
    """The end of the last fold's test week."""
    return (day_of(STARTS[-1]) + 3 * WEEK) * DAY_US


def fold(streamed: Streamed, start: date, train_days: int = WEEK) -> Fold:
    """The fold whose published train week begins at `start`; a longer train window ends with the same week.

    Cards known as compromised leave the test set: frauds of the published train week and, on test day d, those of the
    days from then to d − 8. A longer window changes nothing of that, so its figures are of the same test rows.
    """
    days, first = streamed.times_us // DAY_US, day_of(start)
    frauds = streamed.frauds > 0
    train = (days >= first + WEEK - train_days) & (days < first + WEEK)
    test = np.zeros(len(days), bool)
    for day in range(first + 2 * WEEK, first + 3 * WEEK):
        known = np.unique(streamed.accounts[frauds & (days >= first) & (days <= day - WEEK - 1)])
        test |= (days == day) & ~np.isin(streamed.accounts, known)
    return Fold(train, test)


def figures(streamed: Streamed, test: np.ndarray, scores: np.ndarray) -> Figures:
    """AUC, average precision and card precision at 100 a day of the test rows."""
    labels, accounts, times = streamed.frauds[test], streamed.accounts[test], streamed.times_us[test]
    auc, ap = metrics.auc(labels, scores), metrics.average_precision(labels, scores)
    cp = metrics.card_precision(labels, scores, accounts, times, CARDS_PER_DAY)
    if auc is None or ap is None or cp is None:
        raise SystemExit("a fold without frauds: is this the handbook's set?")
    return Figures(auc, ap, cp)


def mean(found: list[Figures]) -> Figures:
    """The mean over folds, as the book gives it."""
    return Figures(*(float(np.mean(column)) for column in zip(*found, strict=True)))
