"""The challenger of a scope: one by compare-and-set, in force by event time, never the model that decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.bundle import BundleRef
from fp_contracts.registry import (
    GLOBAL,
    BundleChallengerNamed,
    BundleChallengerWithdrawn,
    BundleRetired,
    Scope,
    registry_event_id,
)
from fp_contracts.resolution import Registry, challenger_at, fold, resolve

from .test_resolution import EVERYBODY, TENANT, bundle, folded, promoted, published, ready, usable

Challenging = BundleChallengerNamed | BundleChallengerWithdrawn


def challenging(
    name: str, revision: int, previous: str | None = None, at: int = 100, scope: Scope = EVERYBODY
) -> BundleChallengerNamed:
    return BundleChallengerNamed(
        scope=scope, bundle=bundle(name), previous=None if previous is None else bundle(previous),
        challenger_revision=revision, effective_us=at, actor="ofs_trigger", at_us=1,
    )  # fmt: skip


def withdrawn(previous: str, revision: int, at: int = 100, scope: Scope = EVERYBODY) -> BundleChallengerWithdrawn:
    return BundleChallengerWithdrawn(
        scope=scope, previous=bundle(previous), challenger_revision=revision, effective_us=at, actor="ofs_trigger",
        reason="seen enough", at_us=1,
    )  # fmt: skip


def beside(registry: Registry, at_us: int, deciding: BundleRef | None = None, scope: Scope = EVERYBODY) -> object:
    return challenger_at(registry, scope, at_us, deciding)


def test_a_challenger_is_in_force_from_its_event_time_until_another_one_or_none_is() -> None:
    registry = folded(
        *ready("a", "b"), challenging("a", 1), challenging("b", 2, "a", at=200), withdrawn("b", 3, at=300)
    )
    assert [beside(registry, at) for at in (99, 100, 199, 200, 299, 300)] == [
        None, bundle("a"), bundle("a"), bundle("b"), bundle("b"), None,
    ]  # fmt: skip
    assert registry.passed_over == ()


def test_a_challenger_needs_no_approval_and_changes_nothing_that_decides() -> None:
    before = folded(*ready("a"), published("b"), promoted("a", 1, None))
    after = fold(before, challenging("b", 1))
    assert after.scope(EVERYBODY).challenger == bundle("b")
    assert after.scope(EVERYBODY).settled == before.scope(EVERYBODY).settled
    assert resolve(after, EVERYBODY, 100, usable) == resolve(before, EVERYBODY, 100, usable)


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (challenging("b", 1), "revision 1 does not follow 1"),
        (challenging("b", 3, "c"), "revision 3 does not follow 1"),
        (challenging("b", 2), "another bundle is the challenger"),
        (withdrawn("b", 2), "another bundle is the challenger"),
        (challenging("b", 2, "c", at=99), "effective before"),
        (challenging("nobody", 2, "c"), "not published"),
        (challenging("old", 2, "c"), "retired"),
        (challenging("a", 2, "c"), "the bundle is active"),
        (BundleRetired(scope=EVERYBODY, bundle=bundle("c"), actor="r", reason="", at_us=1), "active or challenger"),
    ],
)
def test_what_must_not_count_is_passed_over_with_its_reason(event: Challenging | BundleRetired, why: str) -> None:
    old = BundleRetired(scope=EVERYBODY, bundle=bundle("old"), actor="risk", reason="superseded", at_us=5)
    before = folded(*ready("a", "b", "c", "old"), old, promoted("a", 1, None), challenging("c", 1))
    after = fold(before, event)
    assert (after.scopes, after.retired) == (before.scopes, before.retired)
    assert [why in note for note in after.passed_over] == [True]
    assert fold(after, event) == after


def test_of_two_namings_at_once_the_first_counts_and_both_have_one_identity() -> None:
    one, other = challenging("a", 1), challenging("b", 1)
    assert registry_event_id(one) == registry_event_id(other) != registry_event_id(promoted("a", 1, None))
    assert folded(*ready("a", "b"), one, other).scope(EVERYBODY).challenger == bundle("a")


def test_the_model_that_decides_is_not_scored_beside_itself() -> None:
    registry = folded(*ready("a"), challenging("a", 1), promoted("a", 1, None, at=200))
    assert beside(registry, 150) == bundle("a")
    assert beside(registry, 200, bundle("a")) is None


def test_a_tenants_own_word_goes_before_everybodys_a_withdrawal_too() -> None:
    registry = folded(*ready("a", "b"), challenging("a", 1))
    assert TENANT.tenant != GLOBAL
    assert beside(registry, 100, scope=TENANT) == bundle("a")
    own = fold(registry, challenging("b", 1, scope=TENANT))
    assert beside(own, 100, scope=TENANT) == bundle("b")
    assert beside(fold(own, withdrawn("b", 2, scope=TENANT)), 100, scope=TENANT) is None


@given(st.lists(st.sampled_from([challenging("a", 1), challenging("b", 2, "a"), withdrawn("b", 3)]), max_size=9))
def test_repeats_and_any_order_leave_a_dense_line_of_challengers(events: list[Challenging]) -> None:
    state = folded(*ready("a", "b"), *events).scope(EVERYBODY)
    assert [one.revision for one in state.challenges] == list(range(1, len(state.challenges) + 1))
