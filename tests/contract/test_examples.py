"""One recorded example per event type: it validates, is read by consumers, and is what producers write."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # the package has no types
import pytest

from fp_contracts.canonical import canonical_bytes
from fp_contracts.downstream import Decision, FeatureSnapshot
from fp_contracts.envelope import Envelope
from fp_contracts.ingress import TRUTH_FIELDS
from fp_contracts.records import Pins, body_of, read_envelope
from fp_contracts.schema import payload_models, property_names, schemas
from fp_contracts.timestamps import to_us

EXAMPLES = Path(__file__).parent / "examples"
SCHEMAS = schemas()
MODELS = payload_models()


def example(event_type: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / f"{event_type}.json").read_text())
    return found


def test_every_event_type_has_one_example_and_no_other() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.json")} == set(MODELS)


@pytest.mark.parametrize("event_type", MODELS)
def test_an_example_validates_against_the_schema(event_type: str) -> None:
    record = example(event_type)
    assert record["event_type"] == event_type
    jsonschema.validate(record, SCHEMAS["envelope"], jsonschema.Draft202012Validator)
    jsonschema.validate(record["payload"], SCHEMAS[event_type], jsonschema.Draft202012Validator)


@pytest.mark.parametrize("event_type", MODELS)
def test_an_example_is_what_a_producer_writes(event_type: str) -> None:
    record = example(event_type)
    envelope = read_envelope(canonical_bytes(record))
    pins = Pins(
        envelope.platform_run_id, envelope.scenario_run_id, envelope.manifest_fingerprint, envelope.run_config_digest
    )
    payload = MODELS[event_type].model_validate_json(json.dumps(envelope.payload))
    body = body_of(
        pins, event_type, envelope.event_id, to_us(envelope.ts_utc), envelope.producer, payload, envelope.traceparent
    )
    assert body == canonical_bytes(record)


@pytest.mark.parametrize("event_type", MODELS)
def test_producers_are_held_to_the_fields_and_consumers_are_tolerant(event_type: str) -> None:
    raw = json.dumps({**example(event_type)["payload"], "added_later": 1})
    model = MODELS[event_type]
    with pytest.raises(ValueError, match="added_later"):
        model.model_validate_json(raw)
    assert model.model_validate_json(raw, extra="ignore")


@pytest.mark.parametrize("event_type", MODELS)
def test_no_truth_column_in_any_record(event_type: str) -> None:
    """Law 10: truth stays off the bus."""
    assert not property_names(SCHEMAS[event_type]) & TRUTH_FIELDS


def test_the_truth_test_would_see_one() -> None:
    planted: dict[str, Any] = {"properties": {"payload": {"items": {"properties": {"is_fraud": {}}}}}}
    assert property_names(planted) & TRUTH_FIELDS == {"is_fraud"}


@pytest.mark.parametrize("ts_utc", ["\uff12026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z\n"], ids=ascii)
def test_the_envelope_and_its_schema_take_ascii_digits_only(ts_utc: str) -> None:
    record = {**example("traffic"), "ts_utc": ts_utc}
    with pytest.raises(ValueError, match="ts_utc"):
        Envelope.model_validate(record)


@pytest.mark.parametrize("field", ["event_id", "ts_utc", "platform_run_id", "payload", "schema_version"])
def test_the_envelope_needs_its_fields(field: str) -> None:
    record = example("traffic")
    del record[field]
    with pytest.raises(ValueError, match=field):
        Envelope.model_validate(record)


def test_examples_of_one_payment_name_each_other() -> None:
    snapshot = FeatureSnapshot.model_validate_json(json.dumps(example("feature_snapshot")["payload"]))
    decision = Decision.model_validate_json(json.dumps(example("decision")["payload"]))
    assert decision.source_event == snapshot.source_event
    assert decision.snapshot_hash == snapshot.snapshot_hash
