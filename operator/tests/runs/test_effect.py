"""What the model changed against the guardrails alone: figures by hand, and what may not be judged."""

from dataclasses import replace

import pytest

from fp_contracts.control import EvidenceRef, WindowEnded
from fp_contracts.fold import RunState
from fp_contracts.reasons import Action
from fp_contracts.runconfig import Window
from fp_features.labels import Known
from fp_operator import effect
from fp_operator.decisions import DecisionRow, Truth, second_window, truth_of
from fp_runtime.errors import UserError

from .pinned import CONFIG, HEADER, RUN

DAY_US = 86_400_000_000
FULL = CONFIG.model_copy(
    update={"scope": "full", "windows": (Window(start_us=0, end_us=50), Window(start_us=50, end_us=100))}
)


def row(name: str, action: Action, guardrails: Action, score: float | None, amount: int = 100) -> DecisionRow:
    return DecisionRow(name, f"acc-{name}", 60, amount, "EUR", action, guardrails, "bundle:m", score)


CAUGHT = row("caught", Action.BLOCK, Action.ALLOW, 0.9, 5_000)
HELD = row("held", Action.REVIEW, Action.REVIEW, 0.4, 700)
FALSE = row("false", Action.STEP_UP, Action.BLOCK, 0.6, 300)
QUIET = row("quiet", Action.ALLOW, Action.ALLOW, 0.1, 40)
ROWS = [CAUGHT, HELD, FALSE, QUIET]
KNOWN = {"caught": Truth.FRAUD, "held": Truth.FRAUD, "false": Truth.LEGIT, "quiet": Truth.LEGIT}


def measured(rows: list[DecisionRow] = ROWS, known: dict[str, Truth] = KNOWN, per_day: int = 2) -> effect.Effect:
    return effect.measure(RUN, rows, known, 100, per_day)


def test_money_and_shares_of_both_ways_are_as_by_hand() -> None:
    found = measured()
    model, alone = found.with_model, found.guardrails
    assert (found.payments, found.frauds, found.fraud_minor, found.currency) == (4, 2, 5_700, "EUR")
    assert (model.fraud_blocked_minor, model.fraud_stopped_minor, model.legit_blocked_minor) == (5_000, 5_700, 0)
    assert (alone.fraud_blocked_minor, alone.fraud_stopped_minor, alone.legit_blocked_minor) == (0, 700, 300)
    assert model.false_positive_ppm == alone.false_positive_ppm == 500_000
    assert model.by_action == {"ALLOW": 1, "STEP_UP": 1, "REVIEW": 1, "BLOCK": 1}


def test_payments_rank_by_action_then_by_score() -> None:
    found = measured()
    assert found.with_model.average_precision_ppm == 1_000_000  # BLOCK, REVIEW, STEP_UP, ALLOW
    assert found.score_average_precision_ppm == 833_333  # 0.9 fraud, 0.6 legit, 0.4 fraud
    assert found.guardrails.average_precision_ppm == 500_000  # BLOCK legit, REVIEW fraud, two tied with one fraud
    assert (found.with_model.card_precision_ppm, found.guardrails.card_precision_ppm) == (1_000_000, 500_000)


def test_the_guardrails_are_never_ranked_by_the_score() -> None:
    turned = [replace(one, score=1.0 - (one.score or 0.0)) for one in ROWS]
    assert measured(turned).guardrails == measured().guardrails
    assert measured(turned).score_average_precision_ppm != measured().score_average_precision_ppm


@pytest.mark.parametrize("truth", [Truth.IMMATURE, Truth.UNCERTAIN])
def test_what_is_not_known_is_counted_and_not_judged(truth: Truth) -> None:
    found = measured(known={**KNOWN, "caught": truth})
    assert (found.payments, found.frauds, found.with_model.fraud_blocked_minor) == (3, 1, 0)
    assert found.immature + found.uncertain == 1


def test_payments_of_the_rollback_drill_are_not_the_models() -> None:
    without = replace(CAUGHT, bundle_ref=None, score=None)
    found = measured([without, HELD, FALSE, QUIET])
    assert (found.without_model, found.payments, found.frauds) == (1, 3, 1)


@pytest.mark.parametrize(
    ("rows", "known", "why"),
    [
        ([replace(one, bundle_ref=None) for one in ROWS], KNOWN, "no model decided"),
        (ROWS, dict.fromkeys(KNOWN, Truth.IMMATURE), "the truth of none"),
        ([], {}, "no model decided"),
    ],
)
def test_without_anything_to_judge_it_says_why(rows: list[DecisionRow], known: dict[str, Truth], why: str) -> None:
    with pytest.raises(UserError, match=why):
        measured(rows, known)


def test_without_a_fraud_the_shares_are_unknown_and_the_money_is_not() -> None:
    found = measured(known=dict.fromkeys(KNOWN, Truth.LEGIT))
    assert found.with_model.average_precision_ppm is None
    assert found.with_model.legit_blocked_minor == 5_000


def fraud(observed_us: int) -> Known:
    return Known(2, 10, observed_us, "FRAUD_CONFIRMED")


def test_silence_means_legitimate_only_once_adjudication_has_had_its_time() -> None:
    config = FULL.model_copy(update={"adjudication_delay_us": 30})
    assert truth_of(70, None, 100, config) is Truth.IMMATURE
    assert (
        truth_of(70, fraud(99), 100, config) is Truth.IMMATURE
    )  # the others of its time are silent for another reason
    assert truth_of(69, None, 100, config) is Truth.LEGIT
    assert truth_of(69, fraud(99), 100, config) is Truth.FRAUD


def test_where_everything_is_adjudicated_silence_is_no_verdict() -> None:
    config = FULL.model_copy(update={"adjudication_delay_us": 30, "adjudication": "all"})
    assert truth_of(60, None, 100, config) is Truth.UNCERTAIN
    assert truth_of(60, Known(2, 10, 90, "LEGIT_CONFIRMED"), 100, config) is Truth.LEGIT
    assert truth_of(60, Known(2, 10, 90, "CONFLICT"), 100, config) is Truth.UNCERTAIN


def test_only_a_full_run_whose_second_window_ended_has_an_effect() -> None:
    with pytest.raises(UserError, match="scope spine"):
        second_window(RunState(RUN, header=HEADER))
    header = HEADER.model_copy(update={"config": FULL})
    with pytest.raises(UserError, match="it has not ended"):
        second_window(RunState(RUN, header=header))
    ended = WindowEnded(window=2, lane_seqs={}, ledger_ref=EvidenceRef(key="k", sha256="a" * 64, size=1))
    assert second_window(RunState(RUN, header=header, windows_ended={2: ended}))[1] == FULL.windows[1]
