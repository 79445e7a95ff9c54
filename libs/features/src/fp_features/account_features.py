"""Features of one account; each function gives the values of one group for a payment already counted."""

from bisect import bisect_right

from fp_contracts.timestamps import US_PER_DAY, US_PER_S
from fp_features.account import LONGEST_US, AccountState
from fp_features.payment import US_PER_HOUR, Payment
from fp_features.timeline import Timeline

VELOCITY_WIDTHS = {"1h": US_PER_HOUR, "1d": US_PER_DAY, "7d": 7 * US_PER_DAY, "30d": LONGEST_US}
_VELOCITY_US = tuple(VELOCITY_WIDTHS.values())
_NO_PARTNER = (0.0, 0.0, -1.0)


def account_velocity(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """Count and mean amount (minor units) over 1 h, 1, 7 and 30 days, this payment included."""
    (n_hour, hour), (n_day, day), (n_week, week), (n_month, month) = state.windows(payment.ts_us, _VELOCITY_US)
    return (
        float(n_hour), hour / n_hour, float(n_day), day / n_day, float(n_week), week / n_week, float(n_month),
        month / n_month,
    )  # fmt: skip


def account_habit(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """How this payment differs from what the account does.

    Seconds since the last payment (-1 = none in 30 days), amount ÷ 30-day mean (0 when that is 0), new merchant
    (none other with it in 30 days), distinct merchants in 7 days.
    """
    ts_us = payment.ts_us
    gap_us = state.gap_us(ts_us)
    ((count, total),) = state.windows(ts_us, (LONGEST_US,))
    return (
        -1.0 if gap_us is None else gap_us / US_PER_S,
        payment.amount_minor * count / total if total else 0.0,
        1.0 if state.met(payment.merchant_id, ts_us) == 1 else 0.0,
        float(state.recent_merchants(ts_us)),
    )


def _partner_values(timeline: Timeline | None, ts_us: int) -> tuple[float, ...]:
    """Count over 1 h and 1 day and seconds since first seen in 30 days; 0, 0, -1 when the payment has no partner."""
    if timeline is None:
        return _NO_PARTNER
    end = timeline.end(ts_us)
    times = timeline.times
    hour = bisect_right(times, ts_us - US_PER_HOUR, 0, end)
    day = bisect_right(times, ts_us - US_PER_DAY, 0, hour)
    longest = bisect_right(times, ts_us - LONGEST_US, 0, day)
    return (float(end - hour), float(end - day), (ts_us - times[longest]) / US_PER_S)


def account_instrument(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """What this account did with the instrument of the payment."""
    return _partner_values(state.with_instrument(payment.instrument_id), payment.ts_us)


def account_device(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """What this account did on the device of the payment."""
    return _partner_values(state.with_device(payment.device_id), payment.ts_us)
