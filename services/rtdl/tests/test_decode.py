"""decode.py against the contract models: what they refuse is refused, what they take is taken with equal values."""

import orjson
import pytest

from fp_contracts.downstream import LabelAssertion
from fp_contracts.header import Kind
from fp_contracts.ingress import INGRESS_TYPES
from fp_contracts.reasons import Quarantine
from fp_contracts.topics import KINDS
from fp_rtdl import sample
from fp_rtdl.decode import RANKS, decode
from fp_runtime.errors import Poison

PAYMENT = sample.Payment(7, sample.START_US, "m-1", "acc-1", 1_250)
PARTS = {kind: dict(payload) for _, kind, payload in sample.Feed().parts(PAYMENT)}
MODELS = {kind: INGRESS_TYPES[name].model for kind, (_, name) in sample._TOPIC.items()}
READ = (Kind.ARRIVAL_EVENT, Kind.ARRIVAL_ENTITIES, Kind.FLOW_ANCHOR, Kind.AUTH_REQUEST)
WRONG: tuple[object, ...] = (None, "", 7.5, [], "x" * 300)
BROKEN: list[tuple[Kind, str, object]] = [
    (kind, name, wrong)
    for kind in READ
    for name in PARTS[kind]
    if name not in ("tz", "is_virtual", "party_id", "event_seq")  # not read by the join
    for wrong in WRONG
    if not (name == "device_id" and wrong is None)
]


def body(payload: dict[str, object], **envelope: object) -> bytes:
    return orjson.dumps({"event_id": "e-1", "ts_utc": "2026-01-01T00:00:00.000000Z", "payload": payload, **envelope})


@pytest.mark.parametrize("kind", READ)
def test_values_are_those_of_the_contract_model(kind: Kind) -> None:
    model = MODELS[kind].model_validate(PARTS[kind])
    value = decode(kind, body(PARTS[kind]), 42, None)
    assert value is not None
    found = value._asdict()
    assert found.pop("offset") == 42
    shared = {name: found[name] for name in found if hasattr(model, name) and name != "event_id"}
    assert shared == {name: getattr(model, name) for name in shared}
    if "key" in found:
        assert found["key"] == (model.merchant_id, model.arrival_seq)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "name", "wrong"), BROKEN)
def test_what_the_contract_refuses_is_poison(kind: Kind, name: str, wrong: object) -> None:
    payload = {**PARTS[kind], name: wrong}
    with pytest.raises(ValueError, match=name):
        MODELS[kind].model_validate_json(orjson.dumps(payload))
    with pytest.raises(Poison) as refused:
        decode(kind, body(payload), 0, None)
    assert refused.value.reason == Quarantine.CONTRACT_BROKEN


@pytest.mark.parametrize("name", ["merchant_id", "flow_id", "amount_minor", "currency", "kind"])
def test_a_missing_field_is_poison(name: str) -> None:
    payload = {key: value for key, value in PARTS[Kind.AUTH_REQUEST].items() if key != name}
    with pytest.raises(Poison, match=Quarantine.CONTRACT_BROKEN):
        decode(Kind.AUTH_REQUEST, body(payload), 0, None)


def test_bytes_that_are_no_json_are_undecodable() -> None:
    with pytest.raises(Poison, match=Quarantine.UNDECODABLE):
        decode(Kind.AUTH_REQUEST, b"{", 0, None)


@pytest.mark.parametrize(
    "raw", [b"[]", b"7", b"null", b"{}", b'{"event_id":"e","payload":7}', body(PARTS[Kind.AUTH_REQUEST], event_id=5)]
)
def test_json_that_is_no_envelope_is_broken(raw: bytes) -> None:
    with pytest.raises(Poison, match=Quarantine.CONTRACT_BROKEN):
        decode(Kind.AUTH_REQUEST, raw, 0, None)


def test_other_traffic_asks_for_nothing() -> None:
    assert decode(Kind.TRAFFIC_OTHER, b"not even JSON", 0, None) is None


def test_a_label_is_read_as_the_contract_says() -> None:
    out = sample.Feed().label(PAYMENT, PAYMENT.ts_us, 1)
    envelope = orjson.loads(out.value)
    model = LabelAssertion.model_validate_json(orjson.dumps(envelope["payload"]))
    value = decode(Kind.LABEL_ASSERTION, out.value, 0, None)
    assert value == (
        model.subject.event_id, model.subject.merchant_id, model.label_type, model.label_value, model.source,
        model.effective_us, model.observed_us,
    )  # fmt: skip


def test_every_input_topic_has_kinds_and_a_rank() -> None:
    assert KINDS.keys() == RANKS.keys()
    assert sorted(RANKS.values()) == [0, 1, 2, 3, 4]
