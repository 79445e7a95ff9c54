"""The handbook's protocol (Le Borgne et al., chapters 3 and 5): 7 days train, 7 delay, 7 test, four folds. Pure."""

from datetime import date
from typing import NamedTuple

import numpy as np

from bench.handbook.span import DAY_US, us_of
from bench.handbook.streamed import Streamed
from fp_mf import metrics

WEEK = 7
STARTS = (date(2018, 7, 25), date(2018, 8, 1), date(2018, 8, 8), date(2018, 8, 15))
CARDS_PER_DAY = 100


class Fold(NamedTuple):
    """Masks over all streamed payments, and what was known of each (0, 1) when the test week began."""

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray


class Figures(NamedTuple):
    """The three published metrics."""

    auc: float
    ap: float
    cp: float


def day_of(start: date) -> int:
    """Days since 1970 (UTC)."""
    return us_of(start) // DAY_US


def until_us() -> int:
    """The end of the last fold's test week."""
    return (day_of(STARTS[-1]) + 3 * WEEK) * DAY_US


def fold(streamed: Streamed, start: date, train_days: int = WEEK) -> Fold:
    """The fold whose published train week begins at `start`; a longer train window ends with the same week.

    Trained is on the labels in effect when the test week begins. Cards known as compromised leave the test set: those
    whose frauds since the published train week's begin are in effect when the test day begins, which is the published
    rule where labels come 7 days late. A longer window changes nothing of that, so its figures are of the same rows.
    """
    days, first = streamed.times_us // DAY_US, day_of(start)
    train = (days >= first + WEEK - train_days) & (days < first + WEEK)
    test = np.zeros(len(days), bool)
    for day in range(first + 2 * WEEK, first + 3 * WEEK):
        known = np.unique(streamed.accounts[(streamed.known_us < day * DAY_US) & (days >= first)])
        test |= (days == day) & ~np.isin(streamed.accounts, known)
    return Fold(train, test, (streamed.known_us < (first + 2 * WEEK) * DAY_US).astype(np.float64))


def figures(streamed: Streamed, test: np.ndarray, scores: np.ndarray) -> Figures:
    """AUC, average precision and card precision at 100 a day of the test rows, by the truth."""
    labels, accounts, times = streamed.frauds[test], streamed.accounts[test], streamed.times_us[test]
    auc, ap = metrics.auc(labels, scores), metrics.average_precision(labels, scores)
    cp = metrics.card_precision(labels, scores, accounts, times, CARDS_PER_DAY)
    if auc is None or ap is None or cp is None:
        raise SystemExit("a fold without frauds: is this the handbook's set?")
    return Figures(auc, ap, cp)


def mean(found: list[Figures]) -> Figures:
    """The mean over folds, as the book gives it."""
    return Figures(*(float(np.mean(column)) for column in zip(*found, strict=True)))
