"""The default feature set `core.v1` (learning.md §1)."""

from fp_features.account import AccountState
from fp_features.account_features import (
    VELOCITY_WIDTHS,
    account_device,
    account_habit,
    account_instrument,
    account_velocity,
)
from fp_features.merchant import MERCHANT_DAYS, MerchantState, merchant_risk, merchant_velocity
from fp_features.payment import PAYMENT_FEATURES, payment_values
from fp_features.sets import FeatureGroup, FeatureSet

_CURRENT = "(t - w, t], this payment included; late by at most 1 d"
_DELAYED = "(t - 7 d - w, t - 7 d]; late by at most 1 d"

PAYMENT: FeatureGroup[MerchantState] = FeatureGroup("payment", 1, "payment", "none", PAYMENT_FEATURES, payment_values)
MERCHANT_VELOCITY: FeatureGroup[MerchantState] = FeatureGroup(
    "merchant_velocity", 1, "merchant", f"{_DELAYED}; w = 1, 7, 30 d",
    tuple(f"merchant_count_{days}d" for days in MERCHANT_DAYS), merchant_velocity,
)  # fmt: skip
MERCHANT_RISK: FeatureGroup[MerchantState] = FeatureGroup(
    "merchant_risk", 1, "merchant", f"{_DELAYED}; w = 1, 7, 30 d; 0 when empty",
    tuple(f"merchant_risk_{days}d" for days in MERCHANT_DAYS), merchant_risk,
)  # fmt: skip
ACCOUNT_VELOCITY: FeatureGroup[AccountState] = FeatureGroup(
    "account_velocity", 1, "account", f"{_CURRENT}; w = 1 h, 1, 7, 30 d",
    tuple(f"account_{what}_{width}" for width in VELOCITY_WIDTHS for what in ("count", "mean_amount")),
    account_velocity,
)  # fmt: skip
ACCOUNT_HABIT: FeatureGroup[AccountState] = FeatureGroup(
    "account_habit", 1, "account", f"{_CURRENT}; w = 30 d, distinct merchants 7 d; no last payment = -1",
    ("account_seconds_since_last", "account_amount_to_mean_30d", "account_new_merchant", "account_merchants_7d"),
    account_habit,
)  # fmt: skip
_PARTNER_WINDOW = f"{_CURRENT}; w = 1 h, 1 d, first seen in 30 d; payment without one = 0, 0, -1"
ACCOUNT_INSTRUMENT: FeatureGroup[AccountState] = FeatureGroup(
    "account_instrument", 1, "account, instrument", _PARTNER_WINDOW,
    ("instrument_count_1h", "instrument_count_1d", "instrument_seconds_since_first"), account_instrument,
)  # fmt: skip
ACCOUNT_DEVICE: FeatureGroup[AccountState] = FeatureGroup(
    "account_device", 1, "account, device", _PARTNER_WINDOW,
    ("device_count_1h", "device_count_1d", "device_seconds_since_first"), account_device,
)  # fmt: skip

CORE_V1 = FeatureSet(
    "core.v1",
    (PAYMENT, MERCHANT_VELOCITY, MERCHANT_RISK),
    (ACCOUNT_VELOCITY, ACCOUNT_HABIT, ACCOUNT_INSTRUMENT, ACCOUNT_DEVICE),
)
