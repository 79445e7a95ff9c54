"""Features of one account; each function gives the values of one group for a payment already counted."""

from fp_contracts.timestamps import US_PER_DAY, US_PER_S
from fp_features.account import DEVICE, INSTRUMENT, LONGEST_US, MERCHANT, AccountState
from fp_features.payment import US_PER_HOUR, Payment

VELOCITY_WIDTHS = {"1h": US_PER_HOUR, "1d": US_PER_DAY, "7d": 7 * US_PER_DAY, "30d": 30 * US_PER_DAY}
_NO_PARTNER = (0.0, 0.0, -1.0)


def account_velocity(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """Count and mean amount (minor units) over 1 h, 1, 7 and 30 days, this payment included."""
    values: list[float] = []
    for width_us in VELOCITY_WIDTHS.values():
        count, total = state.window(payment.ts_us, width_us)
        values += (float(count), total / count)
    return tuple(values)


def account_habit(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """Seconds since the last payment (-1 = none in 30 days), amount ÷ 30-day mean (0 when that is 0), new merchant
    (none with it in 30 days), distinct merchants in 7 days."""
    ts_us = payment.ts_us
    gap_us = state.gap_us(ts_us)
    count, total = state.window(ts_us, LONGEST_US)
    merchant = state.with_partner(MERCHANT, payment.merchant_id)
    met = merchant.count(ts_us - LONGEST_US, ts_us) if merchant else 0
    return (
        -1.0 if gap_us is None else gap_us / US_PER_S,
        payment.amount_minor * count / total if total else 0.0,
        1.0 if met <= 1 else 0.0,
        float(state.recent_merchants(ts_us)),
    )


def _partner(kind: int, name: str | None, ts_us: int, state: AccountState) -> tuple[float, ...]:
    """Count over 1 h and 1 day and seconds since first seen in 30 days; (0, 0, -1) when the payment has none."""
    partner = state.with_partner(kind, name)
    if partner is None:
        return _NO_PARTNER
    return (
        float(partner.count(ts_us - US_PER_HOUR, ts_us)),
        float(partner.count(ts_us - US_PER_DAY, ts_us)),
        (ts_us - partner.first(ts_us - LONGEST_US)) / US_PER_S,
    )


def account_instrument(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """What this account did with the instrument of the payment."""
    return _partner(INSTRUMENT, payment.instrument_id, payment.ts_us, state)


def account_device(payment: Payment, state: AccountState) -> tuple[float, ...]:
    """What this account did on the device of the payment."""
    return _partner(DEVICE, payment.device_id, payment.ts_us, state)
