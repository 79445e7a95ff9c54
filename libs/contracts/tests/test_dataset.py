"""Datasets: the fingerprint names the intent and nothing else."""

from typing import Any

import pytest
from pydantic import ValidationError

from fp_contracts.canonical import canonical_bytes
from fp_contracts.dataset import BasisRange, BuildIntent, JoinScope, LabelRule, dataset_fingerprint, dataset_key

RANGES = (
    BasisRange(topic="fp.bus.labels.events.v1", partition=0, start=3, end=9),
    BasisRange(topic="fp.bus.traffic.fraud.v1", partition=1, start=0, end=5),
)


def intent(**changes: Any) -> BuildIntent:
    fields: dict[str, Any] = {
        "platform_run_id": "platform_20260101T000000Z", "scenario_run_id": "a" * 32, "manifest_fingerprint": "b" * 64,
        "run_config_digest": "c" * 64, "basis": RANGES, "feature_set": "core.v1", "feature_schema_digest": "d" * 64,
        "labels": LabelRule(as_of_us=10, maturity_days=7, effect_delay_us=1),
        "join": JoinScope(join_wait_us=1, horizon_us=1, window_ends_us=(20,)), "code_release": "r1",
    }  # fmt: skip
    return BuildIntent(**{**fields, **changes})


def test_the_order_of_ranges_is_no_part_of_the_fingerprint() -> None:
    assert dataset_fingerprint(intent()) == dataset_fingerprint(intent(basis=RANGES[::-1]))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": LabelRule(as_of_us=11, maturity_days=7, effect_delay_us=1)},
        {"labels": LabelRule(as_of_us=10, maturity_days=8, effect_delay_us=1)},
        {"basis": RANGES[:1]},
        {"feature_schema_digest": "e" * 64},
        {"code_release": "r2"},
        {"join": JoinScope(join_wait_us=2, horizon_us=1, window_ends_us=(20,))},
    ],
)
def test_whatever_decides_rows_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert dataset_fingerprint(intent(**change)) != dataset_fingerprint(intent())


def test_an_intent_has_a_canonical_form_and_comes_back() -> None:
    body = canonical_bytes(intent().model_dump(mode="json"))
    assert BuildIntent.model_validate_json(body) == intent()


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        intent(truth="x")


def test_keys_of_a_dataset_lie_below_its_fingerprint() -> None:
    assert dataset_key("f" * 64, "rows/00000.parquet") == f"datasets/{'f' * 64}/rows/00000.parquet"
