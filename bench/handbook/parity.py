"""Streamed features against the published ones, where their windows lie wholly inside the stream. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bench.handbook.span import DAY_US
from fp_features import CORE_V1
from fp_features.handbook import HANDBOOK_COLUMNS

TOLERANCE = 1e-6
DELAY_DAYS = 7


class Parity(NamedTuple):
    """Rows compared, by column; rows that differ in any; those of them that the published order leaves open."""

    compared: dict[str, int]
    whole: int
    differing: int
    tied: int
    rows: int

    @property
    def ok(self) -> bool:
        """Something was compared in every column, and only tied rows differ."""
        return all(self.compared.values()) and self.differing == self.tied


def reach_days(column: str) -> int:
    """How far back a published feature looks: its window, and for a terminal the delay before it."""
    if not column.endswith("DAY_WINDOW"):
        return 0
    days = int(column.rpartition("DAY_WINDOW")[0].rpartition("_")[2])
    return days + (DELAY_DAYS if column.startswith("TERMINAL") else 0)


def compare(
    vectors: np.ndarray, accounts: np.ndarray, times_us: np.ndarray, golden: np.ndarray, first_us: int
) -> Parity:  # fmt: skip
    """Every column from the first payment whose window begins after `first_us`, when the stream does.

    Payments of one account in the same second are tied: their order inside it is arbitrary in the published set.
    """
    wrong, compared = np.zeros(len(vectors), bool), {}
    for at, (column, ours, by) in enumerate(_columns()):
        inside = times_us - reach_days(column) * DAY_US >= first_us
        wrong |= inside & ~(np.abs(vectors[:, ours] / by - golden[:, at]) <= TOLERANCE)
        compared[column] = int(inside.sum())
    tied = wrong & _tied(accounts, times_us)
    return Parity(compared, min(compared.values()), int(wrong.sum()), int(tied.sum()), len(vectors))


def _columns() -> Iterator[tuple[str, int, float]]:
    for column, (ours, by) in HANDBOOK_COLUMNS.items():
        yield column, CORE_V1.names.index(ours), by


def _tied(accounts: np.ndarray, times_us: np.ndarray) -> np.ndarray:
    order = np.lexsort((times_us, accounts))
    same = (np.diff(accounts[order]) == 0) & (np.diff(times_us[order]) == 0)
    tied = np.zeros(len(accounts), bool)
    tied[order[1:][same]] = True
    tied[order[:-1][same]] = True
    return tied
