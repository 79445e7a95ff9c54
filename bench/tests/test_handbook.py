"""The handbook bench: what is compared, what a fold knows, and what a planted difference does to both."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.handbook import choice, folds, parity, span
from bench.handbook.bars import at_least, told
from bench.handbook.span import DAY_US
from bench.handbook.streamed import NEVER_US, Streamed
from fp_features import CORE_V1
from fp_features.handbook import HANDBOOK_COLUMNS
from fp_mf.fit import boosting_for
from fp_runtime.deadline import until

WIDTH = len(CORE_V1.names)
FIRST_US = span.PUBLISHED.first_us
COLUMNS = list(HANDBOOK_COLUMNS)


def published(vectors: np.ndarray) -> np.ndarray:
    """The published values that these vectors stand for."""
    return np.column_stack([vectors[:, CORE_V1.names.index(ours)] / by for ours, by in HANDBOOK_COLUMNS.values()])


def rows(days: list[float], accounts: list[int] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vectors, accounts, times) of one payment at each of these days after the stream's start."""
    vectors = np.arange(len(days) * WIDTH, dtype=np.float64).reshape(-1, WIDTH)
    times_us = FIRST_US + (np.array(days) * DAY_US).astype(np.int64)
    return vectors, np.array(accounts or range(len(days))), times_us


def test_a_column_is_compared_once_its_window_lies_inside_the_stream() -> None:
    vectors, accounts, times_us = rows([0.5, 1.0, 8.0, 30.0, 37.0])
    found = parity.compare(vectors, accounts, times_us, published(vectors), FIRST_US)
    assert found.compared["TX_DURING_NIGHT"] == 5
    assert found.compared["CUSTOMER_ID_NB_TX_1DAY_WINDOW"] == 4
    assert found.compared["TERMINAL_ID_RISK_1DAY_WINDOW"] == 3
    assert found.compared["CUSTOMER_ID_AVG_AMOUNT_30DAY_WINDOW"] == 2
    assert found.compared["TERMINAL_ID_RISK_30DAY_WINDOW"] == found.whole == 1
    assert found.ok


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", [1.1e-6, float("nan")])
def test_a_planted_difference_is_found_in_every_column(column: str, value: float) -> None:
    vectors, accounts, times_us = rows([0.5, 37.0, 38.0])
    golden = published(vectors)
    golden[2, COLUMNS.index(column)] += value
    found = parity.compare(vectors, accounts, times_us, golden, FIRST_US)
    assert (found.differing, found.tied, found.ok) == (1, 0, False)


def test_a_cold_window_says_nothing_and_tied_payments_may_differ() -> None:
    vectors, accounts, times_us = rows([36.9, 37.0, 40.0, 40.0, 41.0], [1, 2, 3, 3, 3])
    golden = published(vectors)
    golden[0, COLUMNS.index("TERMINAL_ID_RISK_30DAY_WINDOW")] += 1.0
    golden[2:4, COLUMNS.index("CUSTOMER_ID_NB_TX_1DAY_WINDOW")] += 1.0
    found = parity.compare(vectors, accounts, times_us, golden, FIRST_US)
    assert (found.differing, found.tied, found.ok) == (2, 2, True)


def test_nothing_compared_is_no_parity() -> None:
    vectors, accounts, times_us = rows([1.0, 2.0])
    assert not parity.compare(vectors, accounts, times_us, published(vectors), FIRST_US).ok


def streamed(days: list[float], known_days: list[float | None], accounts: list[int]) -> Streamed:
    """Frauds at these days after the first fold's train week begins, each known at its own day or never."""
    start_us = folds.day_of(folds.STARTS[0]) * DAY_US
    known = [NEVER_US if day is None else start_us + int(day * DAY_US) for day in known_days]
    times_us = start_us + (np.array(days) * DAY_US).astype(np.int64)
    empty = np.zeros((len(days), WIDTH))
    return Streamed(empty, np.array(accounts), times_us, np.ones(len(days)), np.array(known, np.int64))


def test_a_fold_trains_on_what_was_known_when_its_test_week_begins_not_on_the_truth() -> None:
    data = streamed([0.0, 1.0, 2.0, 6.9], [7.0, 13.9, 14.0, None], [1, 2, 3, 4])
    found = folds.fold(data, folds.STARTS[0])
    assert found.train.tolist() == [True] * 4
    assert found.labels.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_cards_leave_the_test_set_from_the_day_after_they_are_known() -> None:
    frauds = [(6.0, 13.5, 1), (7.5, 14.5, 2), (-1.0, 6.0, 3)]
    tests = [(day + 0.25, None, account) for account in (1, 2, 3, 4) for day in (14, 15)]
    data = streamed(*(list(column) for column in zip(*frauds, *tests, strict=True)))  # type: ignore[arg-type]
    found = folds.fold(data, folds.STARTS[0])
    assert sum(found.test & (data.accounts == 1)) == 0
    assert sum(found.test & (data.accounts == 2)) == 1  # known in the course of day 14: it leaves on day 15
    assert sum(found.test & (data.accounts == 3)) == 2  # a fraud before the published train week counts for nothing
    assert sum(found.test & (data.accounts == 4)) == 2


def test_a_longer_window_has_the_same_end_and_the_same_test_rows() -> None:
    data = streamed([-60.0, -1.0, 3.0, 14.5], [-53.0, 6.0, 10.0, None], [1, 2, 3, 4])
    week, longer = folds.fold(data, folds.STARTS[0]), folds.fold(data, folds.STARTS[0], 84)
    assert week.train.tolist() == [False, False, True, False]
    assert longer.train.tolist() == [True, True, True, False]
    assert np.array_equal(week.test, longer.test)


def test_a_figure_that_only_rounds_to_its_bar_misses_it_and_is_said_to() -> None:
    bar = at_least("CP@100", 0.302857, 0.303)
    assert not bar.ok
    assert told([bar, at_least("AP", 0.687, 0.687)]) == [
        "- Bars: CP@100 ≥ 0.303: 0.3029, MISSED; AP ≥ 0.687: 0.6870, met."
    ]


def test_what_was_chosen_on_earlier_weeks_is_what_the_job_trains_with() -> None:
    assert choice.WEEK_CHOSEN.trees == boosting_for(67_000, 550)
    assert choice.CHOSEN.trees == boosting_for(800_000, 6_000)


def test_no_candidate_was_compared_on_a_published_test_week_or_on_what_its_models_learn_from() -> None:
    over = [folds.day_of(start) + 3 * folds.WEEK for start in (*choice.WEEKS, *choice.LONG)]
    assert max(over) <= folds.day_of(folds.STARTS[0])


LAUNCHER = """
import os, signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bench.handbook import whole

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), whole.step_back) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        signal.pause()
"""


def test_the_companion_process_ends_with_a_launcher_that_was_killed(tmp_path: Path) -> None:
    (script := tmp_path / "launcher.py").write_text(LAUNCHER)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}
    ) as launcher:
        assert launcher.stdout is not None
        companion = psutil.Process(int(launcher.stdout.readline()))
        assert companion.nice() == 19
        launcher.kill()
    until(lambda: not companion.is_running(), 30, "the companion ends")
