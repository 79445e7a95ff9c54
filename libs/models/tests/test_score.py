"""Scores have the same bits at every batch size, and no NaN goes in or out unnoticed."""

import math
import subprocess
import sys

import numpy as np
import pytest

from fp_models import Bundle, NotFinite, action_of, load, sample, score_text
from fp_models.logistic import LogisticModel
from fp_models.model import Matrix, Scores, score

FAMILIES = ("logistic", "xgboost")


def bundle(family: str) -> Bundle:
    return load(sample.files(family), schema_digest=sample.SCHEMA)


def in_batches(made: Bundle, matrix: Matrix, size: int) -> bytes:
    return b"".join(made.score(matrix[at : at + size]).tobytes() for at in range(0, len(matrix), size))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_batch_size_gives_the_same_bits(family: str) -> None:
    made, matrix = bundle(family), sample.rows(1_000, seed=11)
    whole = made.score(matrix)
    assert len(set(whole.tolist())) > 50
    for size in (1, 3, 10, 64, 500):
        assert in_batches(made, matrix, size) == whole.tobytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_order_nor_layout_of_rows_matters(family: str) -> None:
    made, matrix = bundle(family), sample.rows(257, seed=12)
    whole = made.score(matrix)
    assert made.score(matrix[::-1]).tobytes() == whole[::-1].tobytes()
    assert made.score(np.asfortranarray(matrix)).tobytes() == whole.tobytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_another_process_gives_the_same_bits(family: str) -> None:
    program = (
        "from fp_models import load, sample\n"
        f"made = load(sample.files({family!r}), schema_digest=sample.SCHEMA)\n"
        "print(made.score(sample.rows(40, seed=13)).tobytes().hex())"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert told.stdout.strip() == bundle(family).score(sample.rows(40, seed=13)).tobytes().hex()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39, -1e39])
def test_a_feature_that_is_no_number_is_refused_and_its_row_named(family: str, value: float) -> None:
    matrix = sample.rows(5)
    matrix[3, 2] = value
    with pytest.raises(NotFinite, match="feature not finite in 1 rows, first 3") as refused:
        bundle(family).score(matrix)
    assert refused.value.rows == (3,)


def test_no_rows_give_no_scores() -> None:
    assert bundle("xgboost").score(sample.rows(0)).shape == (0,)


@pytest.mark.parametrize("matrix", [sample.rows(3)[:, :4], sample.rows(3)[0], sample.rows(3).astype(np.float32)])
def test_a_matrix_of_another_shape_or_type_is_refused(matrix: Matrix) -> None:
    with pytest.raises(ValueError, match="is no float64"):
        bundle("logistic").score(matrix)


class Broken:
    """A model that answers one row in ten with NaN."""

    features = sample.FEATURES

    def raw_scores(self, matrix: Matrix) -> Scores:
        scores = np.full(len(matrix), 0.5)
        scores[::10] = math.nan
        return scores


def test_a_model_that_answers_nan_is_refused() -> None:
    with pytest.raises(NotFinite, match="score not finite in 2 rows") as refused:
        score(Broken(), sample.rows(20))
    assert refused.value.rows == (0, 10)


def test_the_logistic_score_is_the_formula() -> None:
    model = LogisticModel((1.0,), (2.0,), (0.5,), -1.0)
    expected = 1.0 / (1.0 + math.exp(1.0 - 0.5 * 2.0))
    assert score(model, np.array([[5.0]])).tolist() == [pytest.approx(expected, rel=1e-15)]


@pytest.mark.parametrize(("value", "at"), [(1e30, 20.0), (-1e30, -20.0)])
def test_an_extreme_amount_counts_as_the_clip(value: float, at: float) -> None:
    model = LogisticModel((0.0,), (1.0,), (2.0,), 0.0)
    assert score(model, np.array([[value]])).tolist() == [pytest.approx(1.0 / (1.0 + math.exp(-at)), rel=1e-12)]


@pytest.mark.parametrize(
    ("value", "action"), [(0.05, "ALLOW"), (0.1, "STEP_UP"), (0.5, "REVIEW"), (0.899999, "REVIEW"), (0.9, "BLOCK")]
)
def test_a_score_asks_for_the_strongest_action_it_reaches(value: float, action: str) -> None:
    assert action_of(value, bundle("logistic").manifest.thresholds) == action


def test_a_score_as_text_reads_back_to_the_same_bits() -> None:
    for value in bundle("xgboost").score(sample.rows(50)).tolist():
        assert float(score_text(value)) == value
