"""Every window feature against a brute-force scan: late payments, ties, edges, labels, restarts, pruning."""

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from fp_features import CORE_V1, AccountState, MerchantState, Payment
from fp_features.timeline import LATENESS_US

from .scan import DAY, HOUR, Said, account_scan, snapshot_scan

START = 1_700_000_000_000_000
EDGES = (HOUR, DAY, 7 * DAY, 8 * DAY, 14 * DAY, 23 * DAY, 30 * DAY, 31 * DAY, 37 * DAY, 38 * DAY)
# Steps of the order clock: ties, small steps, and whole windows with one microsecond more or less.
steps = st.one_of(
    st.sampled_from([0, 0, 1, 60_000_000, HOUR // 2, 5 * HOUR]),
    st.sampled_from(EDGES).flatmap(lambda edge: st.sampled_from([edge - 1, edge, edge + 1])),
)
lateness = st.one_of(st.just(0), st.sampled_from([1, HOUR, LATENESS_US - 1, LATENESS_US]), st.integers(0, LATENESS_US))
names = st.sampled_from(["a", "b", "ü"])


@dataclass(frozen=True)
class Step:
    """One payment, and whether the process restarts before it."""

    payment: Payment
    order_us: int
    restart: bool


@st.composite
def histories(draw: st.DrawFn, max_size: int = 25) -> list[Step]:
    """Payments of one entity in merge order, each late by at most LATENESS_US."""
    order_us, history = START, []
    for _ in range(draw(st.integers(1, max_size))):
        order_us += draw(steps)
        payment = Payment(
            order_us - draw(lateness),
            draw(st.sampled_from([0, 1, 999, -50, 2**53])),
            draw(st.sampled_from(["ECOM", "ATM", None])),
            draw(names),
            draw(st.none() | names),
            draw(st.none() | names),
        )
        history.append(Step(payment, order_us, draw(st.integers(0, 5)) == 0))
    return history


def run_account(history: list[Step]) -> None:
    """Compare every payment with the scan; restart from bytes where the history says so."""
    state = AccountState()
    seen: list[Payment] = []
    for step in history:
        if step.restart:
            body = state.to_bytes()
            state = AccountState.from_bytes(body)
            assert state.to_bytes() == body
            if seen and seen[-1].ts_us == max(payment.ts_us for payment in seen):
                assert CORE_V1.account_values(seen[-1], state) == account_scan(seen)
        state.update(step.payment, step.order_us)
        seen.append(step.payment)
        assert CORE_V1.account_values(step.payment, state) == account_scan(seen)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_account_features_equal_a_scan_of_all_payments(history: list[Step]) -> None:
    run_account(history)


@st.composite
def assertions(draw: st.DrawFn, history: list[Step]) -> list[tuple[int, Said]]:
    """Labels of those payments, each after the step it is given with."""
    labels = []
    for _ in range(draw(st.integers(0, 12))):
        index = draw(st.integers(0, len(history) - 1))
        paid_us = history[index].payment.ts_us
        said = Said(
            f"event-{index}",
            draw(st.sampled_from(["FRAUD_CONFIRMED", "FRAUD_CONFIRMED", "FRAUD_SUSPECTED", "LEGIT_CONFIRMED"])),
            draw(st.sampled_from(["HUMAN", "EXTERNAL", "AUTO"])),
            paid_us + draw(st.sampled_from([0, 0, 0, 1])),
            paid_us + draw(st.sampled_from([0, DAY, 6 * DAY])),
        )
        labels.append((draw(st.integers(index, len(history) - 1)), said))
    return labels


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_merchant_features_equal_a_scan_of_all_payments_and_labels(data: st.DataObject) -> None:
    history = data.draw(histories())
    labels = data.draw(assertions(history))
    state, seen, said = MerchantState(), [], []
    for at, step in enumerate(history):
        if step.restart:
            body = state.to_bytes()
            state = MerchantState.from_bytes(body)
            assert state.to_bytes() == body
        state.update(step.payment.ts_us, step.payment.amount_minor, step.order_us)
        seen.append(step.payment)
        for assertion in (assertion for when, assertion in labels if when == at):
            state.apply_label(*assertion)
            said.append(assertion)
        assert CORE_V1.snapshot_values(step.payment, state) == snapshot_scan(seen, said, step.payment)


def busy_history(seed: int, size: int) -> list[Step]:
    """A long history with idle times, so that dead entries are cut off in large and small pieces."""
    draw = random.Random(seed)
    order_us, history = START, []
    for _ in range(size):
        order_us += draw.choice((0, HOUR, HOUR, 8 * HOUR, DAY)) if draw.random() < 0.99 else 40 * DAY
        late_us = draw.choice((0, 0, 0, HOUR, LATENESS_US))
        who = (str(draw.randrange(9)), str(draw.randrange(3)), draw.choice((None, "x", "y")))
        payment = Payment(order_us - late_us, draw.randrange(100_000), "ECOM", *who)
        history.append(Step(payment, order_us, draw.random() < 0.05))
    return history


def test_a_long_busy_account_equals_the_scan() -> None:
    run_account(busy_history(seed=3, size=300))


def test_a_long_busy_merchant_equals_the_scan_and_stays_small() -> None:
    state, seen, said = MerchantState(), [], []
    for at, step in enumerate(busy_history(seed=4, size=300)):
        if step.restart:
            state = MerchantState.from_bytes(state.to_bytes())
        state.update(step.payment.ts_us, step.payment.amount_minor, step.order_us)
        seen.append(step.payment)
        if at % 3 == 0:
            said.append(Said(f"e{at}", "FRAUD_CONFIRMED", "EXTERNAL", step.payment.ts_us, step.order_us))
            state.apply_label(*said[-1])
        assert CORE_V1.snapshot_values(step.payment, state) == snapshot_scan(seen, said, step.payment)
    assert len(state.to_bytes()) < 10_000


@settings(max_examples=60, deadline=None)
@given(histories(), st.lists(st.integers(0, 60 * DAY), min_size=25, max_size=25))
def test_too_late_payments_are_counted_and_replay_to_the_same_bytes(history: list[Step], lates: list[int]) -> None:
    """Beyond the lateness horizon a window may be short, but restarts never change a bit."""
    kept, restarted = AccountState(), AccountState()
    for step, late_us in zip(history, lates, strict=False):
        payment = step.payment._replace(ts_us=step.order_us - late_us)
        restarted = AccountState.from_bytes(restarted.to_bytes())
        for state in (kept, restarted):
            state.update(payment, step.order_us)
        values = CORE_V1.account_values(payment, kept)
        assert values == CORE_V1.account_values(payment, restarted)
        assert kept.to_bytes() == restarted.to_bytes()
        assert values[0] >= 1.0
