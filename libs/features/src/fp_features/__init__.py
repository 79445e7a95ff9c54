"""Feature code shared bit for bit by rtdl, df and the dataset jobs; pure.

payment = Payment(ts_us, amount_minor, channel, merchant_id, instrument_id, device_id)
merchant.update(ts_us, amount_minor, order_us)             # rtdl; order_us = the merge clock
snapshot = CORE_V1.snapshot_values(payment, merchant)
account.update(payment, order_us)                          # df, before its features
vector = pack(snapshot + CORE_V1.account_values(payment, account))
"""

from fp_features.account import AccountState
from fp_features.core import CORE_V1
from fp_features.merchant import MerchantState
from fp_features.packed import pack, unpack
from fp_features.payment import Payment
from fp_features.sets import FeatureGroup, FeatureSet

__all__ = [
    "CORE_V1", "AccountState", "FeatureGroup", "FeatureSet", "MerchantState", "Payment", "pack", "unpack",
]  # fmt: skip
