"""Every leakage check is clean on clean facts, fails on its poison, and on poison of other sizes."""

from dataclasses import replace

import numpy as np
import pytest

from fp_contracts.dataset import Column, SplitHint
from fp_features import CORE_V1
from fp_ofs.leakage import CHECKS, Facts, LeakageCheck, examine, label_copies
from fp_ofs.rows import NEVER_US, columns_of

COUNT = 30


def facts() -> Facts:
    event_us = np.arange(COUNT, dtype=np.int64) * 1_000
    labels = (np.arange(COUNT) % 4 == 0).astype(np.int8)
    observed_us = np.where(labels == 1, event_us + 500, NEVER_US).astype(np.int64)
    matrix = np.random.default_rng(3).random((COUNT, len(CORE_V1.names)))
    edges = (("train", 0, 10_000), ("delay", 10_000, 20_000), ("test", 20_000, 30_000))
    splits = tuple(
        SplitHint.model_validate({"name": name, "start_us": start, "end_us": end, "rows": 1, "frauds": 0})
        for name, start, end in edges
    )
    return Facts(
        event_us, event_us + 10, event_us + 10, observed_us, labels, matrix, columns_of(CORE_V1), CORE_V1.names, splits,
        ((b"same", b"same"),), as_of_us=100_000, maturity_us=1_000,
    )  # fmt: skip


def test_clean_facts_are_clean_and_every_poison_is_caught() -> None:
    found = examine(facts())
    assert [one.name for one in found if not one.ok] == []
    assert len(found) == len(CHECKS) == 8


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_violation_in_the_data_is_found(check: LeakageCheck) -> None:
    poisoned = check.poison(facts())
    by_name = {one.name: one for one in examine(poisoned)}
    assert by_name[check.name].violations >= 1
    assert not by_name[check.name].ok


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_poison_trips_no_other_check(check: LeakageCheck) -> None:
    tripped = {one.name for one in examine(check.poison(facts())) if one.violations}
    allowed = {check.name}
    if check.name == "immature":
        allowed |= {"label_before_payment"}  # the payment moved behind its own label
    assert tripped <= allowed


def test_a_check_that_passes_its_own_poison_is_not_ok() -> None:
    blind = LeakageCheck(lambda _: 0, CHECKS[0].poison, "anything")
    (found,) = examine(facts(), (blind,))
    assert (found.violations, found.caught, found.ok) == (0, False, False)


def test_without_a_sample_the_future_was_not_looked_for() -> None:
    by_name = {one.name: one for one in examine(replace(facts(), blind=()))}
    assert not by_name["future_blind"].ok


def test_a_feature_beside_the_schema_is_found() -> None:
    clean = facts()
    extra = Column(name="amount_again", kind="float64", role="feature")
    poisoned = replace(clean, columns=(*clean.columns, extra))
    assert not {one.name: one for one in examine(poisoned)}["truth_columns"].ok


def test_a_label_copied_with_another_scale_is_found() -> None:
    clean = facts()
    matrix = clean.matrix.copy()
    matrix[:, 3] = 7.0 - 2.5 * clean.labels
    assert label_copies(replace(clean, matrix=matrix)) == 1


def test_a_few_frauds_make_no_copy() -> None:
    clean = facts()
    labels = np.zeros(COUNT, dtype=np.int8)
    labels[:2] = 1
    matrix = clean.matrix.copy()
    matrix[:, 3] = labels
    assert {one.name: one for one in examine(replace(clean, labels=labels, matrix=matrix))}[
        "label_copies"
    ].violations == 0
