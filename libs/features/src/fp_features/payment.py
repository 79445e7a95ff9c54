"""One payment as features see it, and the features that need no state."""

import math
from typing import NamedTuple

from fp_contracts.ingress import Channel
from fp_contracts.timestamps import US_PER_DAY

US_PER_HOUR = US_PER_DAY // 24
CHANNELS = tuple(Channel)
# 1970-01-01 was a Thursday: day 0 is weekday 3 when Monday is 0.
_EPOCH_WEEKDAY = 3
_FIRST_WEEKEND_DAY = 5
_LAST_NIGHT_HOUR = 6


class Payment(NamedTuple):
    """An AUTH_REQUEST: event time in microseconds UTC, amount in minor units; a part that is missing is None."""

    ts_us: int
    amount_minor: int
    channel: str | None
    merchant_id: str
    instrument_id: str | None = None
    device_id: str | None = None


def is_night(ts_us: int) -> float:
    """1.0 when the UTC hour is 0..6 (the handbook's code, not its text), else 0.0."""
    return 1.0 if ts_us // US_PER_HOUR % 24 <= _LAST_NIGHT_HOUR else 0.0


def is_weekend(ts_us: int) -> float:
    """1.0 on Saturday and Sunday (UTC), else 0.0."""
    return 1.0 if (ts_us // US_PER_DAY + _EPOCH_WEEKDAY) % 7 >= _FIRST_WEEKEND_DAY else 0.0


# One row per channel, ready made; a missing or unknown channel is all zeros.
_NO_CHANNEL = (0.0,) * len(CHANNELS)
_ONE_HOT: dict[str | None, tuple[float, ...]] = {
    channel.value: tuple(1.0 if channel is other else 0.0 for other in CHANNELS) for channel in CHANNELS
}


def payment_values(payment: Payment, _state: object) -> tuple[float, ...]:
    """Amount and its signed log(1 + |amount|) in minor units, night, weekend, one column per channel."""
    amount, ts_us = payment.amount_minor, payment.ts_us
    log_amount = math.copysign(math.log1p(abs(amount)), amount)
    calendar = (float(amount), log_amount, is_night(ts_us), is_weekend(ts_us))
    return calendar + _ONE_HOT.get(payment.channel, _NO_CHANNEL)


PAYMENT_FEATURES = ("amount", "log_amount", "night", "weekend", *(f"channel_{c.value.lower()}" for c in CHANNELS))
