"""Figures against definitions that can be checked by hand."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]

from fp_contracts.bundle import ActionBudgets, Thresholds
from fp_contracts.timestamps import US_PER_DAY
from fp_mf import drift, metrics

LABELS = np.array([1.0, 0, 1, 0, 0, 0])
SCORES = np.array([0.9, 0.8, 0.7, 0.2, 0.1, 0.1])


def test_average_precision_by_hand() -> None:
    assert metrics.average_precision(LABELS, SCORES) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert metrics.average_precision(np.zeros(3), np.ones(3)) is None


def test_auc_by_hand() -> None:
    assert metrics.auc(LABELS, SCORES) == pytest.approx(7 / 8)
    assert metrics.auc(np.ones(3), np.ones(3)) is None


def test_card_precision_counts_cards_and_removes_those_found() -> None:
    accounts = np.array(["a", "b", "c", "a", "b", "c"], dtype=object)
    times = np.array([0, 0, 0, 1, 1, 1]) * US_PER_DAY
    labels, scores = np.array([1.0, 0, 0, 1, 1, 0]), np.array([0.9, 0.5, 0.1, 0.9, 0.5, 0.6])
    # Day 0: a is looked at and found. Day 1 without a: c is looked at, b is missed.
    assert metrics.card_precision(labels, scores, accounts, times, 1) == pytest.approx((1 + 0) / 2)
    assert metrics.card_precision(labels, scores, accounts, times, 2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert metrics.card_precision(labels, scores, accounts, times, 9) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert metrics.card_precision(labels[:0], scores[:0], accounts[:0], times[:0], 1) is None


def test_a_card_counts_once_a_day_with_its_highest_score() -> None:
    accounts, times = np.array(["a", "a", "b"], dtype=object), np.zeros(3, np.int64)
    assert metrics.card_precision(np.array([0.0, 1, 0]), np.array([0.9, 0.1, 0.5]), accounts, times, 1) == 1.0


def test_calibration_of_scores_that_are_the_truth() -> None:
    draw = np.random.default_rng(1)
    scores = draw.random(20_000)
    labels = (draw.random(20_000) < scores).astype(np.float64)
    bins = metrics.reliability(labels, scores)
    assert [item.rows for item in bins] == [2_000] * 10
    assert metrics.calibration_error(bins) < 0.02
    assert metrics.calibration_error(metrics.reliability(labels, scores / 2)) > 0.2


def test_one_score_for_all_is_one_bin() -> None:
    (only,) = metrics.reliability(LABELS, np.full(6, 0.5))
    assert tuple(only) == pytest.approx((6, 0.5, 2 / 6))


def test_the_band_holds_the_average_precision_and_narrows_with_rows() -> None:
    draw = np.random.default_rng(2)

    def band(rows: int) -> tuple[float, float, float]:
        labels = (draw.random(rows) < 0.05).astype(np.float64)
        scores = np.round(draw.random(rows) + labels * 0.6, 2)
        low, high = metrics.ap_band(labels, scores, 7)
        return low, float(average_precision_score(labels, scores)), high

    small, large = band(1_000), band(30_000)
    assert small[0] < small[1] < small[2]
    assert large[0] < large[1] < large[2]
    assert large[2] - large[0] < (small[2] - small[0]) / 3


def test_weighing_rows_is_repeating_them() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.5, 0.3])
    truth, weights = np.array([True, False, True, True, False]), np.array([1, 2, 0, 3, 1])
    ends = np.array([0, 2, 3, 4])
    repeated = average_precision_score(np.repeat(truth, weights), np.repeat(scores, weights))
    assert metrics._weighted_ap(truth, weights.astype(float), ends) == pytest.approx(repeated)


def test_a_random_order_has_the_prevalence_as_its_mean() -> None:
    draw = np.random.default_rng(3)
    values = [metrics.random_ap(50, 1_000, draw) for _ in range(2_000)]
    assert np.mean(values) == pytest.approx(0.05, rel=0.15)


def test_thresholds_keep_every_budget() -> None:
    scores = np.arange(10_000) / 10_000
    found = metrics.thresholds_for(scores, ActionBudgets(step_up_ppm=10_000, review_ppm=5_000, block_ppm=100))
    counts = metrics.confusion(np.zeros(10_000), scores, found)
    assert {action: kinds["legit"] for action, kinds in counts.items()} == {
        "ALLOW": 9_900, "STEP_UP": 50, "REVIEW": 49, "BLOCK": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "budget", "threshold"),
    [
        ([0.5] * 100, 10_000, 500_001),  # all alike: none may be stopped, or all would be
        ([0.1] * 99 + [0.9], 10_000, 100_001),
        ([0.1] * 10, 10_000, None),  # the budget is less than one row
        ([0.1] * 10, 1_000_000, 0),
        ([1.0] * 100, 10_000, None),
    ],
)
def test_thresholds_at_the_edges(scores: list[float], budget: int, threshold: int | None) -> None:
    budgets = ActionBudgets(step_up_ppm=budget, review_ppm=0, block_ppm=0)
    assert metrics.thresholds_for(np.array(scores), budgets) == Thresholds(
        step_up_ppm=threshold, review_ppm=None, block_ppm=None
    )


def test_segments_are_counted_apart() -> None:
    segments = {"channel": np.array(["x", "x", "y", "y", "y", "y"], dtype=object)}
    first, second = metrics.by_segment(segments, LABELS, SCORES)
    assert (first[:5], second[:5]) == (("channel", "x", 2, 1, 1.0), ("channel", "y", 4, 1, 1.0))
    assert (first[5], second[5]) == pytest.approx((0.85, 0.275))


def test_drift_is_nothing_on_the_same_rows_and_much_on_others() -> None:
    draw = np.random.default_rng(4)
    features, scores = draw.normal(size=(5_000, 2)), draw.random(5_000)
    reference = json.loads(drift.profile(("a", "b"), features, scores))
    assert drift.stability(reference, ("a", "b"), features, scores) == {"a": 0, "b": 0, "score": 0}
    moved = drift.stability(reference, ("a", "b"), features + np.array([0.0, 1.0]), scores)
    assert list(moved) == ["b", "a", "score"]
    assert moved["b"] > drift.MOVED_PPM
    assert drift.stability(reference, ("c",), features[:, :1], scores) == {"score": 0}


def test_the_drift_alarm_rings_for_the_feature_that_was_moved_and_not_without() -> None:
    draw = np.random.default_rng(4)
    features, scores = np.column_stack([draw.integers(0, 3, 2_000), draw.normal(size=2_000)]), draw.random(2_000)
    found = drift.trial(("few", "many"), features, scores)
    assert (found["moved"], found["rows"], found["mark_ppm"]) == ("many", 1_000, drift.MOVED_PPM)
    assert (found["undrifted"]["alarm"], found["drifted"]["alarm"]) == ([], ["many"])
    assert drift.alarm({"a": drift.MOVED_PPM, "b": drift.MOVED_PPM - 1}) == ["a"]


def test_drift_by_hand() -> None:
    reference = {"columns": {"a": {"edges": ["0.5"], "shares_ppm": [800_000, 200_000]}}}
    found = drift.stability(reference, ("a",), np.array([[0.0], [1.0]]), np.zeros(2))
    assert found["a"] == round((0.3 * math.log(0.5 / 0.2) - 0.3 * math.log(0.5 / 0.8)) * 1e6)


def test_curves_are_thinned_along_their_axis() -> None:
    draw = np.random.default_rng(6)
    labels = (draw.random(20_000) < 0.01).astype(np.float64)
    points = metrics.curves(labels, draw.random(20_000) + labels * 0.3)
    for across in (points.recall, points.false_positive):
        assert (across.min(), across.max()) == (0.0, 1.0)
        assert len(across) <= 203
    # The ROC curve leaves out points on a straight line; precision over recall has none of those.
    assert np.abs(np.diff(points.recall)).max() < 0.02
