"""How the longer train window was chosen: by average precision on weeks that lie before every published week."""

from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from bench.handbook import folds
from bench.handbook.streamed import Streamed
from fp_contracts.bundle import Boosting

# Test weeks from 2018-07-04 and 07-18, over before the first published train week begins on 07-25. 84 days is the
# longest window that both have: the set begins on 2018-04-01.
STARTS = (date(2018, 6, 20), date(2018, 7, 4))


class Candidate(NamedTuple):
    """Days of the train window (they end with the published train week) and the trees."""

    days: int
    trees: Boosting

    def told(self) -> str:
        """For the table."""
        trees = self.trees
        eta, bins = trees.eta_milli / 1_000, "exact" if trees.method == "exact" else "256 bins"
        return f"{self.days} days, {trees.trees} trees of depth {trees.max_depth}, eta {eta:g}, {bins}"


def _trees(trees: int) -> Boosting:
    return Boosting(method="hist", trees=trees, max_depth=6, eta_milli=100, min_child_weight_milli=5_000)


CANDIDATES = (
    Candidate(56, _trees(100)),
    Candidate(56, _trees(200)),
    Candidate(56, _trees(300)),
    Candidate(84, _trees(100)),
    Candidate(84, _trees(200)),
)
CHOSEN = CANDIDATES[4]


def validation(data: Streamed, candidate: Candidate) -> Iterator[folds.Fold]:
    """The folds that a candidate is chosen by."""
    for start in STARTS:
        yield folds.fold(data, start, candidate.days)
