"""What a vector means is pinned: digest, order, bits."""

from dataclasses import replace

import pytest

from fp_features import CORE_V1, AccountState, FeatureSet, MerchantState, Payment, pack, unpack
from fp_features.handbook import HANDBOOK_COLUMNS, to_minor

from .scan import DAY, HOUR

NOON = 1_700_000_000_000_000 // DAY * DAY + 12 * HOUR
PINNED = {
    "amount": 700.0,
    "log_amount": 6.55250788703459,
    "night": 0.0,
    "weekend": 0.0,
    "channel_card_present": 0.0,
    "channel_ecom": 0.0,
    "channel_moto": 0.0,
    "channel_atm": 1.0,
    "channel_transfer": 0.0,
    "merchant_count_1d": 0.0,
    "merchant_count_7d": 1.0,
    "merchant_count_30d": 1.0,
    "merchant_risk_1d": 0.0,
    "merchant_risk_7d": 1.0,
    "merchant_risk_30d": 1.0,
    "account_count_1h": 2.0,
    "account_mean_amount_1h": 1600.0,
    "account_count_1d": 2.0,
    "account_mean_amount_1d": 1600.0,
    "account_count_7d": 2.0,
    "account_mean_amount_7d": 1600.0,
    "account_count_30d": 3.0,
    "account_mean_amount_30d": 1400.0,
    "account_seconds_since_last": 1.5,
    "account_amount_to_mean_30d": 0.5,
    "account_new_merchant": 0.0,
    "account_merchants_7d": 2.0,
    "instrument_count_1h": 2.0,
    "instrument_count_1d": 2.0,
    "instrument_seconds_since_first": 777601.5,
    "device_count_1h": 1.0,
    "device_count_1d": 1.0,
    "device_seconds_since_first": 777601.5,
}


def vector_of_a_small_history() -> tuple[float, ...]:
    """The vector of the third payment of one account at one merchant, one fraud known."""
    merchant, account = MerchantState(), AccountState()
    payments = [
        Payment(NOON, 1_000, "ECOM", "m", "card", "phone"),
        Payment(NOON + 9 * DAY, 2_500, "ECOM", "n", "card", None),
        Payment(NOON + 9 * DAY + 1_500_000, 700, "ATM", "m", "card", "phone"),
    ]
    for payment in payments:
        merchant.update(payment.ts_us, payment.amount_minor, payment.ts_us)
        account.update(payment, payment.ts_us)
    merchant.apply_label("first", "FRAUD_CONFIRMED", "EXTERNAL", NOON, NOON + 6 * DAY)
    return CORE_V1.snapshot_values(payments[-1], merchant) + CORE_V1.account_values(payments[-1], account)


def test_core_v1_is_pinned() -> None:
    """A change here breaks every model in use: add a new set instead (docs/how-to/add-a-feature.md)."""
    assert CORE_V1.schema_digest == "48c226cb7ca1a5a366166de8d1823d28eb898b6e4aab387b1b81e18a354db2d4"
    values = dict(zip(CORE_V1.names, vector_of_a_small_history(), strict=True))
    assert values == PINNED


def test_names_are_the_two_parts_in_order() -> None:
    assert CORE_V1.names == CORE_V1.snapshot_names + CORE_V1.account_names
    assert len(set(CORE_V1.names)) == len(CORE_V1.names) == len(vector_of_a_small_history())


def test_the_handbook_is_a_subset() -> None:
    assert len(HANDBOOK_COLUMNS) == 14
    assert {ours for ours, _ in HANDBOOK_COLUMNS.values()} <= set(CORE_V1.names)
    assert to_minor(285.90000000000003) == 28_590


def test_every_part_of_a_description_changes_the_digest() -> None:
    group = CORE_V1.account_groups[0]
    changed = [
        replace(group, name="other"), replace(group, version=2), replace(group, entity="x"),
        replace(group, window="x"), replace(group, features=(*group.features, "more")),
    ]  # fmt: skip
    sets = [replace(CORE_V1, account_groups=(one, *CORE_V1.account_groups[1:])) for one in changed]
    sets += [replace(CORE_V1, name="x"), replace(CORE_V1, account_groups=CORE_V1.account_groups[::-1])]
    digests = {one.schema_digest for one in (*sets, CORE_V1)}
    assert len(digests) == len(sets) + 1
    assert len({one.digest for one in (*changed, group)}) == len(changed) + 1


def test_absent_by_schema() -> None:
    fewer = CORE_V1.without("account_device")
    assert fewer.name == "core.v1-account_device"
    assert set(CORE_V1.names) - set(fewer.names) == {n for n in CORE_V1.names if n.startswith("device_")}
    assert fewer.schema_digest != CORE_V1.schema_digest
    with pytest.raises(ValueError, match="no group"):
        CORE_V1.without("devices")
    with pytest.raises(ValueError, match="a name twice"):
        FeatureSet("x", CORE_V1.snapshot_groups * 2, ())


def test_vectors_are_little_endian_float64() -> None:
    assert pack((1.0, -0.5)) == bytes.fromhex("000000000000f03f000000000000e0bf")
    assert unpack(pack(iter(vector_of_a_small_history()))) == vector_of_a_small_history()
    with pytest.raises(ValueError, match="no float64 vector"):
        unpack(b"123")


@pytest.mark.parametrize("state", [AccountState, MerchantState])
def test_broken_state_bytes_are_refused(state: type[AccountState] | type[MerchantState]) -> None:
    body = state().to_bytes()
    for broken in (b"", b"XXXX" + body[4:], body[:-1], body + b"\0"):
        with pytest.raises(ValueError, match="state"):
            state.from_bytes(broken)


def test_labels_of_an_unknown_source_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown label source"):
        MerchantState().apply_label("e", "FRAUD_CONFIRMED", "RUMOUR", NOON, NOON)


def test_a_human_word_overrides_an_external_fraud_whatever_came_first() -> None:
    fraud = ("e", "FRAUD_CONFIRMED", "EXTERNAL", NOON, NOON + 6 * DAY)
    legit = ("e", "LEGIT_CONFIRMED", "HUMAN", NOON, NOON + DAY)
    bodies = set()
    for order in ((fraud, legit), (legit, fraud), (fraud, legit, fraud)):
        merchant = MerchantState()
        merchant.update(NOON, 100, NOON)
        for said in order:
            merchant.apply_label(*said)
        assert merchant.frauds(NOON + 7 * DAY) == [0, 0, 0]
        bodies.add(merchant.to_bytes())
    assert len(bodies) == 1
    merchant.apply_label("e", "FRAUD_CONFIRMED", "HUMAN", NOON, NOON + 2 * DAY)
    assert merchant.frauds(NOON + 7 * DAY) == [1, 1, 1]
    assert merchant.counts(NOON + 7 * DAY) == [1, 1, 1]


def test_equal_times_keep_their_order_of_arrival() -> None:
    """So that a late payment gives the same state, byte for byte, on every path."""
    account = AccountState()
    for merchant_id, ts_us in (("a", 5), ("c", 9), ("b", 5)):
        account.update(Payment(ts_us, 1, None, merchant_id), 9)
    assert account._merchants == ["a", "b", "c"]
