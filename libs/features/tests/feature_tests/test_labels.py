"""What stands of several words on one payment, and what is forgotten."""

from itertools import permutations

import pytest

from fp_features.labels import CONFLICT, FRAUD, Known, Labels

LEGIT, SUSPECTED = "LEGIT_CONFIRMED", "FRAUD_SUSPECTED"


def standing(*words: tuple[str, str, int]) -> Known:
    """Apply (value, source, observed) to one payment at time 0; gives what stands."""
    labels = Labels()
    for value, source, observed_us in words:
        labels.apply("e", value, source, 0, observed_us)
    ((_, known),) = labels.rows()
    assert labels.frauds == ([0] if known.value == FRAUD else [])
    return known


@pytest.mark.parametrize(
    ("words", "stands"),
    [
        (((FRAUD, "EXTERNAL", 9), (LEGIT, "HUMAN", 1), (FRAUD, "AUTO", 20)), LEGIT),
        (((FRAUD, "EXTERNAL", 1), (LEGIT, "EXTERNAL", 2), (SUSPECTED, "AUTO", 3)), LEGIT),
        (((FRAUD, "HUMAN", 5), (LEGIT, "HUMAN", 5), (FRAUD, "HUMAN", 5)), CONFLICT),
        (((FRAUD, "HUMAN", 5), (LEGIT, "HUMAN", 5), (FRAUD, "HUMAN", 6)), FRAUD),
        (((SUSPECTED, "HUMAN", 5), (FRAUD, "EXTERNAL", 9)), SUSPECTED),
        (((FRAUD, "EXTERNAL", 9), (FRAUD, "EXTERNAL", 9)), FRAUD),
    ],
)
def test_the_order_of_words_does_not_matter(words: tuple[tuple[str, str, int], ...], stands: str) -> None:
    assert {standing(*order).value for order in permutations(words)} == {stands}


def test_forgotten_payments_leave_nothing_and_may_be_spoken_of_again() -> None:
    labels = Labels()
    labels.apply("old", FRAUD, "EXTERNAL", 10, 20)
    labels.apply("edge", FRAUD, "EXTERNAL", 11, 20)
    labels.prune(10)
    assert [event_id for event_id, _ in labels.rows()] == ["edge"]
    assert labels.frauds == [11]
    labels.apply("old", LEGIT, "HUMAN", 10, 30)
    labels.prune(11)
    assert (labels.rows(), labels.frauds) == ([], [])
    labels.apply("old", FRAUD, "AUTO", 12, 1)
    assert labels.frauds == [12]
