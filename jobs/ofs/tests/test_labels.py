"""What was known at the as-of, and what it makes of a payment."""

import itertools

import pytest

from fp_contracts.dataset import LabelRule, RowFilter
from fp_contracts.timestamps import US_PER_DAY
from fp_ofs.labels import Fate, Outcome, fate, known_at, label_horizon_us
from fp_ofs.records import Label

RULE = LabelRule(as_of_us=100 * US_PER_DAY, maturity_days=7, effect_delay_us=US_PER_DAY)
MATURE_US = 93 * US_PER_DAY
ANY = RowFilter()


def said(
    value: str, observed: int, source: str = "EXTERNAL", effective: int = 1, kind: str = "fraud_disposition"
) -> Label:
    return Label("e", "m", kind, value, source, effective, observed * US_PER_DAY)


def value(*labels: Label) -> str | None:
    known = known_at(labels, RULE).get("e")
    return known.value if known else None


def test_what_was_observed_after_the_as_of_counts_for_nothing() -> None:
    late = said("LEGIT_CONFIRMED", 100, "HUMAN")._replace(observed_us=RULE.as_of_us + 1)
    assert value(said("FRAUD_CONFIRMED", 50), late) == "FRAUD_CONFIRMED"
    assert value(late) is None
    assert value(late._replace(observed_us=RULE.as_of_us)) == "LEGIT_CONFIRMED"


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ((said("FRAUD_CONFIRMED", 50), said("LEGIT_CONFIRMED", 40, "HUMAN")), "LEGIT_CONFIRMED"),
        ((said("FRAUD_CONFIRMED", 50, "AUTO"), said("LEGIT_CONFIRMED", 40)), "LEGIT_CONFIRMED"),
        ((said("FRAUD_CONFIRMED", 50), said("LEGIT_CONFIRMED", 51)), "LEGIT_CONFIRMED"),
        ((said("FRAUD_CONFIRMED", 50, effective=2), said("LEGIT_CONFIRMED", 51)), "FRAUD_CONFIRMED"),
        ((said("FRAUD_CONFIRMED", 50), said("LEGIT_CONFIRMED", 50)), "CONFLICT"),
        ((said("FRAUD_CONFIRMED", 50), said("FRAUD_CONFIRMED", 50)), "FRAUD_CONFIRMED"),
        ((said("FRAUD_CONFIRMED", 5), said("LEGIT_CONFIRMED", 5), said("FRAUD_CONFIRMED", 6)), "FRAUD_CONFIRMED"),
    ],
)
def test_precedence_in_any_order(labels: tuple[Label, ...], wanted: str) -> None:
    assert {value(*order) for order in itertools.permutations(labels)} == {wanted}


def test_other_label_types_say_nothing_of_fraud() -> None:
    assert value(said("OPENED", 50, kind="chargeback_status")) is None


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("FRAUD_CONFIRMED", Outcome.FRAUD), ("LEGIT_CONFIRMED", Outcome.LEGIT), ("FRAUD_SUSPECTED", Outcome.SUSPECTED),
        ("NONSENSE", Outcome.SUSPECTED),
    ],
)  # fmt: skip
def test_words_and_outcomes(word: str, wanted: Outcome) -> None:
    known = known_at([said(word, 50)], RULE)["e"]
    assert fate(MATURE_US, False, known, RULE, ANY) == Fate(wanted, 50 * US_PER_DAY)


def test_a_conflict_is_censored() -> None:
    known = known_at([said("FRAUD_CONFIRMED", 50), said("LEGIT_CONFIRMED", 50)], RULE)["e"]
    assert fate(MATURE_US, False, known, RULE, ANY).outcome is Outcome.CONFLICT


def test_maturity_is_exact_to_the_microsecond() -> None:
    assert fate(MATURE_US, False, None, RULE, ANY).outcome is Outcome.LEGIT
    assert fate(MATURE_US + 1, False, None, RULE, ANY).outcome is Outcome.IMMATURE


def test_an_early_label_does_not_make_a_payment_mature() -> None:
    known = known_at([said("FRAUD_CONFIRMED", 96)], RULE)["e"]
    assert fate(95 * US_PER_DAY, False, known, RULE, ANY).outcome is Outcome.IMMATURE


def test_silence_is_legit_only_where_adjudication_names_frauds() -> None:
    censoring = RULE.model_copy(update={"unlabelled": "censored"})
    assert fate(MATURE_US, False, None, RULE, ANY).outcome is Outcome.LEGIT
    assert fate(MATURE_US, False, None, censoring, ANY).outcome is Outcome.UNLABELLED


def test_filters() -> None:
    window = RowFilter(event_from_us=10, event_until_us=20)
    outcomes = [fate(at, False, None, RULE, window).outcome for at in (9, 10, 19, 20)]
    assert outcomes == [Outcome.FILTERED, Outcome.LEGIT, Outcome.LEGIT, Outcome.FILTERED]
    dropping = RowFilter(degraded="drop")
    assert fate(10, True, None, RULE, dropping).outcome is Outcome.FILTERED
    assert fate(10, True, None, RULE, ANY).outcome is Outcome.LEGIT


def test_the_horizon_is_the_last_time_at_which_nothing_can_come_any_more() -> None:
    frontier_us = 50 * US_PER_DAY
    horizon_us = label_horizon_us(frontier_us, RULE)
    # The next label may take effect exactly at the frontier, so it was observed one delay before.
    assert horizon_us + 1 + RULE.effect_delay_us == frontier_us
