"""As-of resolution by its properties; every reason for which a line is rejected."""

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_cm_ls.labels import CONFLICT, Rejected, Word, best, order_of, read_assertion, resolve
from fp_contracts.canonical import trusted_bytes
from fp_contracts.downstream import LabelAssertion
from fp_contracts.envelope import EVENT_LIMIT
from fp_contracts.records import Pins

RUN = "platform_20260101T000000Z"
PINS = Pins(RUN, "b" * 32, "a" * 64, "c" * 64)
END_US = 1_000_000
RANK = {"HUMAN": 3, "EXTERNAL": 2, "AUTO": 1}

words = st.lists(
    st.builds(Word, st.sampled_from(sorted(RANK)), st.integers(0, 3), st.integers(0, 3), st.sampled_from("FL")),
    max_size=6,
)


@given(words)
def test_only_the_highest_precedence_speaks(said: list[Word]) -> None:
    value = best(said)
    if not said:
        assert value is None
        return
    top = max((RANK[word.source], word.effective_us, word.observed_us) for word in said)
    values = {word.value for word in said if (RANK[word.source], word.effective_us, word.observed_us) == top}
    assert value == (next(iter(values)) if len(values) == 1 else CONFLICT)


@given(words, st.integers(0, 3))
def test_a_lower_source_changes_nothing(said: list[Word], at_us: int) -> None:
    loud = [*said, Word("HUMAN", 4, 4, "F")]
    assert best(loud) == "F"
    assert best([*loud, Word("EXTERNAL", 9, 9, "L"), Word("AUTO", 9, at_us, "L")]) == "F"


@given(words.filter(lambda said: len(said) < 5))
def test_order_and_repeats_change_nothing(said: list[Word]) -> None:
    assert {best(order) for order in permutations(said)} == {best(said)}
    assert best(said * 2) == best(said)


def test_what_is_observed_later_is_not_known_yet(assertion: Callable[..., LabelAssertion]) -> None:
    said = [assertion(observed_us=9), assertion(source="HUMAN", label_value="LEGIT_CONFIRMED", observed_us=20)]
    assert [resolve(said, at) for at in (8, 9, 19, 20)] == [None, "FRAUD_CONFIRMED", "FRAUD_CONFIRMED",
                                                            "LEGIT_CONFIRMED"]  # fmt: skip


def _line(assertion: LabelAssertion) -> bytes:
    return trusted_bytes(assertion.model_dump(mode="json"))


def test_a_sound_line_is_read_back(assertion: Callable[..., LabelAssertion]) -> None:
    assert read_assertion(_line(assertion()), PINS, END_US) == assertion()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": "platform_20260101T000001Z"}, "PIN_MISMATCH"),
        ({"source": "HUMAN"}, "SOURCE_NOT_ALLOWED"),
        ({"assertion_id": "0" * 32}, "ID_NOT_DERIVED"),
        ({"label_value": "MAYBE"}, "VALUE_UNKNOWN"),
        ({"effective_us": 10}, "EFFECTIVE_AFTER_OBSERVED"),
        ({"observed_us": END_US}, "OBSERVED_AFTER_WINDOW"),
    ],
)
def test_one_broken_thing_rejects(
    assertion: Callable[..., LabelAssertion], changes: dict[str, object], reason: str
) -> None:
    assert read_assertion(_line(assertion(**changes)), PINS, END_US) == Rejected(reason)


@pytest.mark.parametrize("place", ["event_id", "merchant_id", "account_id", "label_value", "actor", "evidence_refs"])
@pytest.mark.parametrize(
    ("text", "reason"), [("\\u0000", "SCHEMA_BROKEN"), ("\\ud800", "NOT_JSON"), ("\0", "NOT_JSON")]
)
def test_what_the_store_cannot_keep_is_rejected_in_every_text(
    place: str, text: str, reason: str, assertion: Callable[..., LabelAssertion]
) -> None:
    document = assertion().model_dump(mode="json")
    of = document["subject"] if place in document["subject"] else document
    of[place] = ["MARK"] if place == "evidence_refs" else "MARK"
    assert read_assertion(trusted_bytes(document).replace(b"MARK", text.encode()), PINS, END_US) == Rejected(reason)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "NOT_JSON"),
        (b'{"a":1.5}', "NOT_JSON"),
        (b"\xff", "NOT_JSON"),
        (b"[]", "SCHEMA_BROKEN"),
        (b'{"unknown":1}', "SCHEMA_BROKEN"),
        (b" " * (EVENT_LIMIT + 1), "LINE_OVER_LIMIT"),
    ],
)
def test_what_is_no_assertion_is_rejected(raw: bytes, reason: str) -> None:
    assert read_assertion(raw, PINS, END_US) == Rejected(reason)


def test_a_label_never_comes_below_the_frontier_given(assertion: Callable[..., LabelAssertion]) -> None:
    assert order_of(assertion(observed_us=9), 10, 0) == 19
    assert order_of(assertion(observed_us=9), 10, 50) == 50
