"""Window edges to the microsecond, with the latest payment that must still be exact and the day that forgets most."""

import pytest

from fp_features import CORE_V1, AccountState, MerchantState, Payment
from fp_features.account import ACCOUNT_KEEP_US
from fp_features.merchant import MERCHANT_KEEP_US
from fp_features.timeline import LATENESS_US, floor_of

from .scan import DAY, HOUR, Said, account_scan, snapshot_scan

MIDNIGHT = 20_000 * DAY
DELAY = 7 * DAY


def test_whole_days_are_forgotten_never_more_than_allowed() -> None:
    assert floor_of(MIDNIGHT, 31 * DAY) == MIDNIGHT - 31 * DAY
    assert floor_of(MIDNIGHT - 1, 31 * DAY) == MIDNIGHT - 32 * DAY
    assert (ACCOUNT_KEEP_US, MERCHANT_KEEP_US) == (31 * DAY, 38 * DAY)


@pytest.mark.parametrize("width_us", [HOUR, DAY, 7 * DAY, 30 * DAY])
@pytest.mark.parametrize("late_us", [0, 1, LATENESS_US])
def test_account_window_is_open_at_its_start_and_closed_at_its_end(width_us: int, late_us: int) -> None:
    """The order clock stands at midnight, where nothing is kept beyond the horizon."""
    now_us = MIDNIGHT - late_us
    state, seen = AccountState(), []
    for ts_us in (now_us - width_us - 1, now_us - width_us, now_us - width_us + 1, now_us + late_us, now_us):
        payment = Payment(ts_us, 100, "ECOM", f"m{ts_us % 2}", "card", "phone")
        order_us = max(ts_us, MIDNIGHT) if ts_us >= now_us else ts_us
        state.update(payment, order_us)
        seen.append(payment)
    values = dict(zip(CORE_V1.account_names, CORE_V1.account_values(seen[-1], state), strict=True))
    assert tuple(values.values()) == account_scan(seen)
    count = {HOUR: "1h", DAY: "1d", 7 * DAY: "7d", 30 * DAY: "30d"}[width_us]
    assert values[f"account_count_{count}"] == (3.0 if late_us == 0 else 2.0)


@pytest.mark.parametrize("width_us", [DAY, 7 * DAY, 30 * DAY])
@pytest.mark.parametrize("late_us", [0, 1, LATENESS_US])
def test_merchant_window_is_delayed_open_at_its_start_and_closed_at_its_end(width_us: int, late_us: int) -> None:
    now_us = MIDNIGHT - late_us
    end_us, start_us = now_us - DELAY, now_us - DELAY - width_us
    state, seen, said = MerchantState(), [], []
    for ts_us in (start_us, start_us + 1, end_us, end_us + 1):
        seen.append(Payment(ts_us, 100, "ECOM", "m"))
        state.update(ts_us, 100, ts_us)
        said.append(Said(f"e{ts_us}", "FRAUD_CONFIRMED", "EXTERNAL", ts_us, ts_us + 6 * DAY))
        if ts_us != start_us + 1:
            state.apply_label(*said[-1])
        else:
            said.pop()
    for ts_us in (MIDNIGHT, now_us):
        seen.append(Payment(ts_us, 100, "ECOM", "m"))
        state.update(ts_us, 100, MIDNIGHT)
    assert CORE_V1.snapshot_values(seen[-1], state) == snapshot_scan(seen, said, seen[-1])
    place = (DAY, 7 * DAY, 30 * DAY).index(width_us)
    assert (state.counts(now_us)[place], state.frauds(now_us)[place]) == (2, 1)


def test_what_is_out_of_reach_is_gone_from_the_bytes() -> None:
    account, merchant = AccountState(), MerchantState()
    for ts_us in (MIDNIGHT, MIDNIGHT + 1, MIDNIGHT + 60 * DAY):
        account.update(Payment(ts_us, 5, None, f"m{ts_us}", f"i{ts_us}", f"d{ts_us}"), ts_us)
        merchant.update(ts_us, 5, ts_us)
        merchant.apply_label(f"e{ts_us}", "LEGIT_CONFIRMED", "AUTO", ts_us, ts_us)
    fresh_account, fresh_merchant = AccountState(), MerchantState()
    fresh_account.update(Payment(ts_us, 5, None, f"m{ts_us}", f"i{ts_us}", f"d{ts_us}"), ts_us)
    fresh_merchant.update(ts_us, 5, ts_us)
    fresh_merchant.apply_label(f"e{ts_us}", "LEGIT_CONFIRMED", "AUTO", ts_us, ts_us)
    assert account.to_bytes() == fresh_account.to_bytes()
    assert merchant.to_bytes() == fresh_merchant.to_bytes()
    assert not account.with_instrument(f"i{MIDNIGHT}")
    assert not account.with_device(f"d{MIDNIGHT}")


def test_a_payment_far_too_late_sees_itself() -> None:
    account = AccountState()
    account.update(Payment(MIDNIGHT, 100, "ECOM", "m"), MIDNIGHT)
    late = Payment(MIDNIGHT - 90 * DAY, 300, "ECOM", "n")
    account.update(late, MIDNIGHT + DAY)
    assert CORE_V1.account_values(late, account)[:2] == (1.0, 300.0)


@pytest.mark.parametrize(("gap_us", "expected"), [(30 * DAY - 1, (30 * DAY - 1) / 1_000_000), (30 * DAY, -1.0)])
def test_the_last_payment_counts_as_last_for_less_than_30_days(gap_us: int, expected: float) -> None:
    account = AccountState()
    for ts_us in (MIDNIGHT, MIDNIGHT + gap_us):
        payment = Payment(ts_us, 100, "ECOM", "m")
        account.update(payment, ts_us)
    values = dict(zip(CORE_V1.account_names, CORE_V1.account_values(payment, account), strict=True))
    assert values["account_seconds_since_last"] == expected
    assert values["account_new_merchant"] == (1.0 if expected < 0 else 0.0)


def test_a_payment_put_before_the_week_does_not_shift_the_week() -> None:
    account, payment = AccountState(), Payment(MIDNIGHT, 100, "ECOM", "old")
    account.update(payment, MIDNIGHT)
    for late_days in (9, 8):
        account.update(payment._replace(ts_us=MIDNIGHT - late_days * DAY, merchant_id="older"), MIDNIGHT)
    payment = Payment(MIDNIGHT + 7 * DAY, 100, "ECOM", "new")
    account.update(payment, payment.ts_us)
    assert account.recent_merchants(payment.ts_us) == 1
    assert account.to_bytes() == AccountState.from_bytes(account.to_bytes()).to_bytes()
