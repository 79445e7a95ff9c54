"""Champion against challenger on the same payments: figures by hand, what is left out, and what cannot be compared."""

from dataclasses import replace

import pytest

from fp_contracts.bundle import BundleRef
from fp_contracts.control import EvidenceRef
from fp_contracts.reasons import Action
from fp_contracts.records import Pins, body_of
from fp_contracts.registry import (
    BundleApproved,
    BundleChallengerNamed,
    BundlePromotedActive,
    BundlePublished,
    BundleRetired,
    RegistryPayload,
    Scope,
    registry_event_id,
)
from fp_df.shadow import Shadow
from fp_operator import catalogue, comparing
from fp_operator.comparing import Comparison
from fp_operator.decisions import DecisionRow, Truth, asked_by_model
from fp_runtime.errors import UserError

from .pinned import RUN

PINS = Pins(RUN, "a" * 32, "b" * 64, "c" * 64)


def row(name: str, score: float, asked: Action, beside: float, beside_asked: Action, amount: int = 100) -> DecisionRow:
    shadow = Shadow("bundle:beside", beside, beside_asked, None)
    return DecisionRow(name, f"acc-{name}", 60, amount, "EUR", asked, Action.ALLOW, "bundle:m", score, asked, shadow)


ROWS = [
    row("a", 0.9, Action.BLOCK, 0.4, Action.ALLOW, 5_000),
    row("b", 0.5, Action.REVIEW, 0.8, Action.BLOCK, 700),
    row("c", 0.3, Action.ALLOW, 0.6, Action.BLOCK, 300),
    row("d", 0.1, Action.ALLOW, 0.2, Action.ALLOW, 40),
]
KNOWN = {"a": Truth.FRAUD, "b": Truth.FRAUD, "c": Truth.LEGIT, "d": Truth.LEGIT}


def compared(rows: list[DecisionRow] = ROWS, known: dict[str, Truth] = KNOWN) -> Comparison:
    return comparing.compare(RUN, rows, known, 100, 1)


def test_both_sides_are_as_by_hand() -> None:
    found = compared()
    assert (found.payments, found.known, found.frauds, found.agreed) == (4, 4, 2, 1)
    champion, challenger = found.champion, found.challenger
    assert (champion.bundle_ref, challenger.bundle_ref) == ("bundle:m", "bundle:beside")
    assert (champion.average_precision_ppm, challenger.average_precision_ppm) == (1_000_000, 833_333)
    assert (champion.card_precision_ppm, challenger.card_precision_ppm) == (1_000_000, 1_000_000)
    assert (champion.fraud_blocked_minor, challenger.fraud_blocked_minor) == (5_000, 700)
    assert (champion.legit_blocked_minor, challenger.legit_blocked_minor) == (0, 300)
    assert found.agreement["BLOCK"]["ALLOW"] == found.agreement["REVIEW"]["BLOCK"] == 1
    assert found.agreement["ALLOW"] == {"ALLOW": 1, "STEP_UP": 0, "REVIEW": 0, "BLOCK": 1}
    assert challenger.by_action == {"ALLOW": 2, "STEP_UP": 0, "REVIEW": 0, "BLOCK": 2}
    assert found.rank_correlation_ppm == 400_000  # ranks 4 3 2 1 against 2 4 3 1: 1 - 6*6/60


def test_only_payments_whose_truth_is_known_give_figures_and_all_give_agreement() -> None:
    found = compared(known={**KNOWN, "a": Truth.IMMATURE})
    assert (found.payments, found.known, found.frauds) == (4, 3, 1)
    assert found.champion.fraud_blocked_minor == 0
    assert found.agreed == 1


def test_what_one_side_did_not_score_is_counted_by_its_reason() -> None:
    errored = replace(ROWS[0], shadow=Shadow("bundle:beside", None, None, "CHALLENGER_ERRORED"))
    without = replace(ROWS[1], score=None, bundle_ref=None)
    found = compared([errored, without, *ROWS[2:]])
    assert found.payments == 2
    assert found.unscored == {"CHALLENGER_ERRORED": 1, "WITHOUT_CHAMPION": 1}


def test_without_a_challenger_it_says_so() -> None:
    with pytest.raises(UserError, match="no decision of window 2 was scored by one"):
        compared([replace(one, shadow=None) for one in ROWS])


def test_a_challenger_that_never_scored_is_no_comparison() -> None:
    unusable = Shadow("bundle:beside", None, None, "CHALLENGER_UNUSABLE")
    with pytest.raises(UserError, match=r"CHALLENGER_UNUSABLE 4"):
        compared([replace(one, shadow=unusable) for one in ROWS])


def test_a_side_that_says_the_same_of_all_has_no_correlation() -> None:
    assert compared([replace(one, score=0.5) for one in ROWS]).rank_correlation_ppm is None


def test_what_the_thresholds_ask_for_is_read_from_the_reasons() -> None:
    assert asked_by_model(("LARGE_AT_NIGHT", "SCORE_REVIEW")) is Action.REVIEW
    assert asked_by_model(("LARGE_AT_NIGHT",)) is Action.ALLOW


def test_the_list_tells_the_place_of_each_bundle_and_junk_counts_for_nothing() -> None:
    scope = Scope(environment="local", mode="live", bundle_slot="payment_fraud")
    bundles = [
        BundleRef(
            bundle_id=f"{n:032x}", model_digest=f"{n:064x}", manifest=EvidenceRef(key="k", sha256="a" * 64, size=1)
        )
        for n in range(5)
    ]
    active, beside, old, approved, _ = bundles
    said: list[RegistryPayload] = [
        BundlePublished(
            scope=scope, bundle=one, feature_set="core.v1", feature_schema_digest="a" * 64, policy_rev="p",
            capabilities=("format:fp.bundle.v1", "family:logistic"), dataset_fingerprint="b" * 64,
            eval_report=one.manifest, requester="ana", at_us=1,
        )
        for one in bundles
    ]  # fmt: skip
    said += [
        BundleApproved(scope=scope, bundle=one, requester="ana", actor="ben", at_us=1) for one in (active, approved)
    ]
    said += [
        BundlePromotedActive(scope=scope, bundle=active, previous=None, revision=1, effective_us=1, actor="o", at_us=1),
        BundleChallengerNamed(
            scope=scope, bundle=beside, previous=None, challenger_revision=1, effective_us=1, actor="o", at_us=1
        ),
        BundleRetired(scope=scope, bundle=old, actor="o", reason="r", at_us=1),
    ]
    bodies = [body_of(PINS, one.type, registry_event_id(one), 1, "ofs_trigger", one) for one in said]
    rows = catalogue.bundles(catalogue.folded([b"junk", *bodies]))
    assert [row["state"] for row in rows] == ["ACTIVE", "CHALLENGER", "RETIRED", "APPROVED", "PUBLISHED"]
    assert {(row["family"], row["environment"]) for row in rows} == {("logistic", "local")}
    assert catalogue.bundles(catalogue.folded([b"junk"])) == []
