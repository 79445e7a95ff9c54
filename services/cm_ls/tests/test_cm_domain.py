"""A case is the same whatever came first; it closes when every triggered payment has one clear label."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

from fp_cm_ls.domain import Kind, fold_all, label_attached, outcome_attached, triggered
from fp_contracts.downstream import ActionOutcome, CaseTrigger, LabelAssertion
from fp_contracts.ids import h32

CASE = h32("c1")


def test_any_order_gives_the_same_case(
    trigger: Callable[..., CaseTrigger],
    outcome: Callable[..., ActionOutcome],
    assertion: Callable[..., LabelAssertion],
) -> None:
    human = assertion(source="HUMAN", label_value="LEGIT_CONFIRMED", observed_us=8)
    entries = [
        *triggered(trigger()),
        outcome_attached(CASE, outcome(), 7),
        label_attached(CASE, assertion()),
        label_attached(CASE, human),
    ]
    cases = [fold_all(CASE, order) for order in permutations(entries)]
    assert all(case == cases[0] for case in cases)
    assert cases[0].labels == {"e1": "LEGIT_CONFIRMED"}
    assert cases[0].outcomes == {outcome().action_id: "EXECUTED"}
    assert cases[0].n == 5
    assert cases[0].status == "CLOSED"


def test_two_triggers_of_one_payment_are_one_payment(
    trigger: Callable[..., CaseTrigger], assertion: Callable[..., LabelAssertion]
) -> None:
    both = [*triggered(trigger()), *triggered(trigger(kind="ACTION_FAILURE"))[:1]]
    case = fold_all(CASE, both)
    assert (len(case.triggers), case.amount_minor, case.status) == (2, 700, "OPEN")
    assert fold_all(CASE, [*both, label_attached(CASE, assertion())]).status == "CLOSED"


def test_a_label_of_another_payment_or_kind_closes_nothing(
    trigger: Callable[..., CaseTrigger], assertion: Callable[..., LabelAssertion]
) -> None:
    first = triggered(trigger())
    assert fold_all(CASE, [*first, label_attached(CASE, assertion("e2"))]).status == "OPEN"
    chargeback = assertion(label_type="chargeback_status", label_value="OPENED")
    assert fold_all(CASE, [*first, label_attached(CASE, chargeback)]).status == "OPEN"
    assert fold_all(CASE, [label_attached(CASE, assertion())]).status == "OPEN"


def test_a_conflict_keeps_the_case_open(
    trigger: Callable[..., CaseTrigger], assertion: Callable[..., LabelAssertion]
) -> None:
    words = [assertion(), assertion(label_value="LEGIT_CONFIRMED")]
    case = fold_all(CASE, [*triggered(trigger()), *(label_attached(CASE, word) for word in words)])
    assert (case.labels, case.status) == ({"e1": "CONFLICT"}, "OPEN")


def test_a_trigger_without_intents_asks_for_nothing(trigger: Callable[..., CaseTrigger]) -> None:
    asked = triggered(trigger())
    assert [entry.kind for entry in asked] == [Kind.CASE_TRIGGERED, Kind.ACTION_INTENT_REQUESTED]
    silent = trigger().model_copy(update={"intents": 0})
    assert [entry.kind for entry in triggered(silent)] == [Kind.CASE_TRIGGERED]


def test_notes_and_assignments_are_told(trigger: Callable[..., CaseTrigger]) -> None:
    first = triggered(trigger())[0]
    assigned = replace(first, kind=Kind.ASSIGNED, ref="1", detail={"assignee": "ann"})
    noted = replace(first, kind=Kind.NOTE, ref="2", detail={})
    case = fold_all(CASE, [first, assigned, noted])
    assert (case.assignee, case.notes) == ("ann", 1)
