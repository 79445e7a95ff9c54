"""Expansion: golden vectors, contract conformance, one total order whatever the chunking."""

import hashlib
from collections.abc import Callable
from itertools import chain

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.canonical import canonical_bytes, parse_strict
from fp_contracts.envelope import Envelope
from fp_contracts.ids import h32
from fp_contracts.ingress import INGRESS_TYPES, TRUTH_FIELDS
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_text
from fp_wsp import expand
from fp_wsp.world import Payment, event_id, flow_id

PAYMENT = Payment(
    1_551_657_856_000_000, "pay-1", 'Käse & "Söhne"', 3, "acct-7", "card-7", None, "term-1", 1_234, "USD", "ECOM",
    None, "US", "food", "APPROVED",
)  # fmt: skip

RUN_TRACE = hashlib.sha256(b"platform_20260101T000000Z").hexdigest()[:16]
GOLDEN = "70d2aec33ade10d0f7c829fbf1fa94caa4b77ae4900194c1a43ee65ac8166b4e"


def test_the_five_events_of_a_payment_are_known_bytes(pins: Pins, world_id: str) -> None:
    events = expand.expand(PAYMENT, world_id, 6)
    lines = [expand.line_of(event, pins) for event in events]
    assert [parse_strict(line)["ts_utc"][17:] for line in lines] == [
        "15.600000Z", "15.700000Z", "15.800000Z", "16.000000Z", "16.600000Z",
    ]  # fmt: skip
    assert parse_strict(lines[3]) == {
        "event_id": h32("event", world_id, "pay-1", "AUTH_REQUEST"),
        "event_type": "traffic",
        "manifest_fingerprint": "b" * 64,
        "payload": {
            "amount_minor": 1234,
            "currency": "USD",
            "event_seq": 1,
            "flow_id": h32("flow", world_id, "pay-1"),
            "kind": "AUTH_REQUEST",
            "merchant_id": 'Käse & "Söhne"',
        },
        "platform_run_id": "platform_20260101T000000Z",
        "producer": "wsp",
        "run_config_digest": "c" * 64,
        "scenario_run_id": "a" * 32,
        "schema_version": "v1",
        "traceparent": f"00-{RUN_TRACE}{h32('flow', world_id, 'pay-1')[:16]}-{events[3].event_id[:16]}-00",
        "ts_utc": "2019-03-04T00:04:16.000000Z",
    }
    assert hashlib.sha256(b"\n".join(lines)).hexdigest() == GOLDEN


def test_every_line_is_canonical_and_keeps_the_contract(
    make_payments: Callable[..., list[Payment]], pins: Pins, world_id: str
) -> None:
    for payment in [PAYMENT, *make_payments(20)]:
        for event in expand.expand(payment, world_id, 6):
            line = expand.line_of(event, pins)
            doc = parse_strict(line)
            assert canonical_bytes(doc) == line
            envelope = Envelope.model_validate(doc)
            kind = INGRESS_TYPES[envelope.event_type]
            kind.model.model_validate(envelope.payload)
            assert kind.rank == event.rank
            assert not TRUTH_FIELDS & {*doc, *envelope.payload}
            assert event.lane == partition_of(envelope.payload["merchant_id"], 6)
            assert event.event_id == event_id(world_id, payment.payment_id, expand.PARTS[event.part].name)
            assert event.flow.flow_id == flow_id(world_id, payment.payment_id)


@pytest.mark.parametrize("chunk", [1, 3, 512])
def test_merge_is_the_sorted_whole_whatever_the_chunk(
    chunk: int, make_payments: Callable[..., list[Payment]], world_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expand, "CHUNK_PAYMENTS", chunk)
    payments = make_payments(60, gap_us=150_000)
    everything = sorted(event for p in payments for event in expand.expand(p, world_id, 6))
    assert list(chain.from_iterable(expand.merge(payments, world_id, 6))) == everything
    assert len(everything) == 300


def test_ids_name_world_payment_and_part(world_id: str) -> None:
    ids = {event.event_id for w in (world_id, "e" * 32) for event in expand.expand(PAYMENT, w, 6)}
    assert len(ids) == 10


def test_a_run_has_its_own_trace_and_the_same_events(pins: Pins, world_id: str) -> None:
    event = expand.expand(PAYMENT, world_id, 6)[0]
    other = Pins("platform_20260102T000000Z", pins.scenario_run_id, pins.manifest_fingerprint, pins.run_config_digest)
    one, two = (orjson.loads(expand.line_of(event, p)) for p in (pins, other))
    assert {name for name in one if one[name] != two[name]} == {"platform_run_id", "traceparent"}


@given(st.integers(min_value=-(10**16), max_value=4 * 10**15))
def test_ts_text_is_to_text(us: int) -> None:
    assert expand.ts_text(us) == to_text(us)
