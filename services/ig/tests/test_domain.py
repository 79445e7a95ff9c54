"""The error table of contracts.md §6, line by line, and parity of the cheap parser with the strict one."""

import hashlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fp_contracts.canonical import CanonicalError, parse_strict
from fp_contracts.envelope import EVENT_LIMIT, payload_hash
from fp_contracts.header import Kind
from fp_contracts.ids import identity_key
from fp_contracts.ingress import EVENT_CLASSES, INGRESS_TYPES
from fp_contracts.reasons import Quarantine
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_us
from fp_contracts.topics import INGRESS
from fp_ig.domain import Admission, explain, luhn_valid, parse_line
from fp_ig.lines import Admissible, Quarantined

ALL = frozenset(EVENT_CLASSES)
PAN = "4111111111111111"
Document = Callable[..., dict[str, Any]]
Line = Callable[..., bytes]


@pytest.mark.parametrize("event_type", INGRESS_TYPES)
def test_a_valid_line_is_admissible_with_the_contract_s_identity_and_hash(
    event_type: str, admission: Admission, document: Document, pins: Pins
) -> None:
    doc = document(7, event_type, second=3)
    raw = orjson.dumps(doc)
    read = admission.read(raw, 0, ALL)
    assert isinstance(read, Admissible)
    spec = INGRESS_TYPES[event_type]
    assert read.raw is raw
    assert read.identity == identity_key(pins.platform_run_id, spec.event_class, doc["event_id"])
    assert read.payload_hash == payload_hash(doc)
    assert INGRESS[read.topic] == spec.topic
    assert read.ts_us == to_us(doc["ts_utc"])
    assert read.key.decode() == doc["payload"]["merchant_id"]
    assert read.traceparent is None


def test_kinds_and_traceparent(admission: Admission, line: Line) -> None:
    other = admission.read(line(1, change=lambda d: d["payload"].update(kind="REFUND")), 0, ALL)
    traced = admission.read(line(1, change=lambda d: d.update(traceparent="00-ab-cd-01")), 0, ALL)
    assert isinstance(other, Admissible)
    assert isinstance(traced, Admissible)
    assert other.kind == Kind.TRAFFIC_OTHER
    assert traced.kind == Kind.AUTH_REQUEST
    assert traced.traceparent == b"00-ab-cd-01"


def _deep(doc: dict[str, Any]) -> None:
    value: Any = 1
    for _ in range(17):
        value = [value]
    doc["payload"]["extra"] = value


CHANGES: list[tuple[str, Callable[[dict[str, Any]], Any], Quarantine]] = [
    ("PAN in an instrument id", lambda d: d["payload"].update(flow_id=PAN), Quarantine.PAN_REFUSED),
    ("PAN in free text", lambda d: d.update(producer=f"card {PAN}, thanks"), Quarantine.PAN_REFUSED),
    ("PAN in a field that is not allowed", lambda d: d["payload"].update(note=PAN), Quarantine.PAN_REFUSED),
    ("PAN beside a wrong pin", lambda d: d.update(producer=PAN, scenario_run_id="b" * 32), Quarantine.PAN_REFUSED),
    ("truth in the payload", lambda d: d["payload"].update(is_fraud=False), Quarantine.TRUTH_FIELD),
    ("truth in the envelope", lambda d: d.update(Campaign_Id="x"), Quarantine.TRUTH_FIELD),
    ("truth deep down", lambda d: d["payload"].update(more=[{"fraud_scenario": 1}]), Quarantine.TRUTH_FIELD),
    ("unknown type", lambda d: d.update(event_type="loyalty_points"), Quarantine.UNKNOWN_TYPE),
    ("unknown version", lambda d: d.update(schema_version="v2"), Quarantine.UNKNOWN_VERSION),
    ("unknown field", lambda d: d["payload"].update(unexpected=1), Quarantine.SCHEMA_BROKEN),
    ("missing field", lambda d: d["payload"].pop("currency"), Quarantine.SCHEMA_BROKEN),
    ("missing type", lambda d: d.pop("event_type"), Quarantine.SCHEMA_BROKEN),
    ("type of another kind", lambda d: d.update(event_type=["traffic"]), Quarantine.SCHEMA_BROKEN),
    ("payload no object", lambda d: d.update(payload=[1]), Quarantine.SCHEMA_BROKEN),
    ("text for a number", lambda d: d["payload"].update(amount_minor="5"), Quarantine.SCHEMA_BROKEN),
    ("true for a number", lambda d: d["payload"].update(event_seq=True), Quarantine.SCHEMA_BROKEN),
    ("zero sequence", lambda d: d["payload"].update(event_seq=0), Quarantine.SCHEMA_BROKEN),
    ("no such kind", lambda d: d["payload"].update(kind="BRIBE"), Quarantine.SCHEMA_BROKEN),
    ("empty id", lambda d: d.update(event_id=""), Quarantine.SCHEMA_BROKEN),
    ("long id", lambda d: d.update(event_id="x" * 257), Quarantine.SCHEMA_BROKEN),
    ("month 13", lambda d: d.update(ts_utc="2026-13-01T00:00:00.000000Z"), Quarantine.SCHEMA_BROKEN),
    ("no microseconds", lambda d: d.update(ts_utc="2026-01-01T00:00:00Z"), Quarantine.SCHEMA_BROKEN),
    ("other run", lambda d: d.update(platform_run_id="platform_20260102T000000Z"), Quarantine.PIN_MISMATCH),
    ("other scenario", lambda d: d.update(scenario_run_id="b" * 32), Quarantine.PIN_MISMATCH),
    ("other world", lambda d: d.update(manifest_fingerprint="b" * 64), Quarantine.PIN_MISMATCH),
    ("other config", lambda d: d.update(run_config_digest="b" * 64), Quarantine.PIN_MISMATCH),
    ("float", lambda d: d["payload"].update(amount_minor=1.0), Quarantine.NOT_CANONICAL),
    ("integer beyond 64 bits", lambda d: d["payload"].update(event_seq=2**63), Quarantine.NOT_CANONICAL),
    ("NFD text", lambda d: d.update(producer="e\u0301"), Quarantine.NOT_CANONICAL),
    ("depth 17", _deep, Quarantine.NOT_CANONICAL),
]


@pytest.mark.parametrize(("change", "reason"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_one_broken_rule_gives_its_reason(
    change: Callable[[dict[str, Any]], Any], reason: Quarantine, admission: Admission, line: Line
) -> None:
    raw = line(1, change=change)
    read = admission.read(raw, 0, ALL)
    kept = None if reason is Quarantine.PAN_REFUSED else raw
    assert read == Quarantined(reason, hashlib.sha256(raw).digest(), kept)


RAW: list[tuple[str, Callable[[bytes], bytes], Quarantine]] = [
    ("half a line", lambda raw: raw[: len(raw) // 2], Quarantine.NOT_JSON),
    ("empty", lambda raw: b"", Quarantine.NOT_JSON),
    ("NaN", lambda raw: raw.replace(b'"event_seq":1', b'"event_seq":NaN'), Quarantine.NOT_CANONICAL),
    ("1e400", lambda raw: raw.replace(b'"event_seq":1', b'"event_seq":1e400'), Quarantine.NOT_CANONICAL),
    ("bad UTF-8", lambda raw: raw.replace(b'"test"', b'"te\xff"'), Quarantine.NOT_JSON),
    ("lone surrogate", lambda raw: raw.replace(b'"test"', b'"\\ud800"'), Quarantine.NOT_CANONICAL),
    (
        "duplicate key",
        lambda raw: raw.replace(b'{"event_id"', b'{"producer":"test","event_id"'),
        Quarantine.NOT_CANONICAL,
    ),
    ("escaped PAN", lambda raw: raw.replace(b'"test"', b'"\\u0034111111111111111"'), Quarantine.PAN_REFUSED),
    ("PAN in no JSON", lambda raw: b'{"card":"4111111111111111"', Quarantine.PAN_REFUSED),
    ("depth 10,000", lambda raw: b"[" * 10_000 + b"]" * 10_000, Quarantine.NOT_JSON),
    ("over 64 KiB", lambda raw: raw + b" " * EVENT_LIMIT, Quarantine.OVER_LIMIT),
    ("a bare number", lambda raw: b"1", Quarantine.SCHEMA_BROKEN),
]


@pytest.mark.parametrize(("change", "reason"), [case[1:] for case in RAW], ids=[case[0] for case in RAW])
def test_broken_bytes_give_their_reason(
    change: Callable[[bytes], bytes], reason: Quarantine, admission: Admission, line: Line
) -> None:
    read = admission.read(change(line(1)), 0, ALL)
    assert isinstance(read, Quarantined)
    assert read.reason is reason


def test_limits_to_the_byte(admission: Admission, line: Line) -> None:
    raw = line(1)
    fits = raw + b" " * (EVENT_LIMIT - len(raw))
    assert isinstance(admission.read(fits, 0, ALL), Admissible)
    assert isinstance(admission.read(fits + b" ", 0, ALL), Quarantined)


def test_scope_and_lane(admission: Admission, line: Line) -> None:
    outside = admission.read(line(1), 0, frozenset({"context_arrival"}))
    elsewhere = admission.read(line(1, lane=3), 2, ALL)
    assert isinstance(outside, Quarantined)
    assert isinstance(elsewhere, Quarantined)
    assert outside.reason is Quarantine.CLASS_NOT_ALLOWED
    assert elsewhere.reason is Quarantine.WRONG_LANE
    assert isinstance(admission.read(line(1, lane=3), 3, ALL), Admissible)


@pytest.mark.parametrize(
    "text", ["x4111111111111111", "4111111111111112", "9111111111111111", "411111111111", "41111111111111111111",
             "a4111111111111111", "4111-1111-1111-1111"],
)  # fmt: skip
def test_what_is_no_bare_card_number_passes(text: str, admission: Admission, line: Line) -> None:
    read = admission.read(line(1, change=lambda d: d["payload"].update(flow_id=text)), 0, ALL)
    assert isinstance(read, Admissible)


def test_a_span_id_of_digits_is_no_card_number(admission: Admission, line: Line) -> None:
    traced = line(1, change=lambda d: d.update(traceparent=f"00-{'a' * 32}-{PAN}-01"))
    assert isinstance(admission.read(traced, 0, ALL), Admissible)


NETWORKS = (
    "4222222222222", "5555555555554444", "2221000000000009", "378282246310005", "6011111111111117", "3530111333300000",
    "30569309025904", "6221260000000000",
)  # fmt: skip


@pytest.mark.parametrize("pan", NETWORKS)
def test_every_network_is_refused(pan: str, admission: Admission, line: Line) -> None:
    assert luhn_valid(pan.encode())
    read = admission.read(line(1, change=lambda d: d["payload"].update(flow_id=pan)), 0, ALL)
    assert isinstance(read, Quarantined)
    assert (read.reason, read.raw) == (Quarantine.PAN_REFUSED, None)


# --- parity with the strict parser ---

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def strict(raw: bytes) -> Any:
    try:
        return parse_strict(raw)
    except CanonicalError:
        return CanonicalError


@given(st.binary(max_size=40))
def test_no_bytes_are_taken_that_the_strict_parser_refuses(raw: bytes) -> None:
    check_parity(raw)


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_the_cheap_parser_agrees_with_the_strict_one(value: Any, indent: int | None, ascii_only: bool) -> None:
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=None if indent else (",", ":"))
    check_parity(text.encode("utf-8", "surrogatepass"))


@given(st.lists(st.sampled_from(["a", "b", "\u00e9"]), min_size=2, max_size=4), st.integers(0, 9))
def test_duplicate_keys_never_pass(keys: list[str], value: int) -> None:
    raw = ("{" + ",".join(f'"{key}":{value}' for key in keys) + "}").encode()
    check_parity(raw)


def check_parity(raw: bytes) -> None:
    """Equal values; the one difference allowed is a float that the cheap way leaves to the models."""
    expected = strict(raw)
    try:
        found = parse_line(raw)
    except ValueError:
        assert expected is CanonicalError
        return
    if expected is CanonicalError:
        assert _has_float_or_depth(found), raw
    else:
        assert found == expected


def _has_float_or_depth(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict):
        return depth > 15 or any(_has_float_or_depth(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return depth > 15 or any(_has_float_or_depth(item, depth + 1) for item in value)
    return isinstance(value, float)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_a_line_with_any_value_in_any_place_is_admitted_only_if_the_strict_way_admits_it(
    data: st.DataObject, admission: Admission, document: Document
) -> None:
    import json

    doc = document(1)
    target = doc if data.draw(st.booleans()) else doc["payload"]
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(VALUES)
    raw = json.dumps(doc).encode()
    read = admission.read(raw, 0, ALL)
    if isinstance(read, Admissible):
        assert read.payload_hash == payload_hash(parse_strict(raw))
    else:
        assert read.reason in (explain(raw), Quarantine.PIN_MISMATCH, Quarantine.WRONG_LANE, Quarantine.PAN_REFUSED)
