"""Windows go by time alone, and the leakage checks are able to fail."""

from dataclasses import replace

import numpy as np
import pytest

from fp_contracts.bundle import Floors, SplitRule
from fp_contracts.timestamps import US_PER_DAY
from fp_mf import leakage
from fp_mf.errors import Blocked
from fp_mf.fit import fit_logistic
from fp_mf.progress import silent
from fp_mf.split import Split, bounds_of, split
from fp_mf.table import Table
from fp_models import open_model
from fp_models.model import score

DELAY_US = 7 * US_PER_DAY
RULE = SplitRule(delay_us=DELAY_US, test_share_ppm=250_000)


def table(rows: int = 4_000, days: int = 40, seed: int = 5) -> Table:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(rows, 3))
    labels = (features[:, 0] + draw.normal(size=rows) > 2.2).astype(np.float64)
    ids = np.array([str(at) for at in range(rows)], dtype=object)
    times = draw.permutation(np.linspace(0, days * US_PER_DAY - 1, rows).astype(np.int64))
    return Table(("a", "b", "c"), features, labels, times, ids, ids, {})


def made() -> Split:
    return split(table(), RULE, Floors())


def test_windows_follow_each_other_with_the_delay_between() -> None:
    found = made()
    assert found.train.times_us.max() + DELAY_US <= found.test.times_us.min()
    assert found.train.times_us.max() < found.between.times_us.min() <= found.between.times_us.max()
    assert found.between.times_us.max() < found.test.times_us.min()
    assert sum(len(part.labels) for part in (found.train, found.between, found.test)) == 4_000
    assert len(found.test.labels) == pytest.approx(1_000, abs=2)


def test_rows_keep_their_own_labels_and_ids() -> None:
    whole, found = table(), made()
    at = [int(key) for key in found.test.event_ids]
    assert (whole.labels[at] == found.test.labels).all()
    assert (whole.features[at] == found.test.features).all()


def test_a_dataset_shorter_than_the_delay_is_refused() -> None:
    with pytest.raises(Blocked, match="no train window"):
        bounds_of(RULE, np.array([0, 8 * US_PER_DAY]))


def honest(features: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    return score(open_model("logistic", fit_logistic(features, labels)), others)


def test_shuffled_labels_teach_an_honest_training_nothing() -> None:
    found = leakage.shuffle_check(made(), honest, 7, silent)
    assert found.clean
    assert found.able_to_fail
    assert found.observed < 0.1 < found.poisoned


def test_the_shuffle_check_sees_a_training_that_knows_the_answers() -> None:
    parts = made()
    draw = np.random.default_rng(7)  # the same draws as the check makes
    answers = []
    for _ in range(leakage.SHUFFLES):
        draw.permutation(parts.train.labels)
        answers.append(draw.permutation(parts.test.labels))
    told = iter(answers)

    def cheating(features: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
        return next(told, answers[-1]) * 0.5

    assert not leakage.shuffle_check(parts, cheating, 7, silent).clean


def test_a_shuffle_check_that_its_poison_passes_is_said_to_prove_nothing() -> None:
    def blind(features: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.full(len(others), 0.5)

    assert not leakage.shuffle_check(made(), blind, 7, silent).able_to_fail


def test_the_time_check_sees_one_test_payment_in_the_past() -> None:
    parts = made()
    assert leakage.time_order(parts, DELAY_US) == (True, True)
    early = replace(parts.test, times_us=parts.test.times_us.copy())
    early.times_us[0] = parts.train.times_us.max() + DELAY_US - 1
    assert leakage.time_order(replace(parts, test=early), DELAY_US) == (False, True)
