"""The usual form: what the cheap reader takes is what the full way admits, field by field; the rest is left to it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from fp_contracts.canonical import trusted_bytes
from fp_contracts.envelope import Closed
from fp_contracts.ingress import EVENT_CLASSES, INGRESS_TYPES
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_ig.domain import Admission, _holds_pan, has_pan, may_hold_pan
from fp_ig.lines import Admissible
from fp_ig.usual import Usual, struct_of

ALL = frozenset(EVENT_CLASSES)
Document = Callable[..., dict[str, Any]]
EXTRAS: dict[str, dict[str, Any]] = {
    "arrival_event": {"terminal_id": "t-1", "country": "US", "mcc": None},
    "arrival_entities": {"device_id": "d", "ip_id": None, "session_id": "s"},
    "flow_anchor": {"amount_minor": -(2**53)},
    "traffic": {"auth_result": "APPROVED", "kind": "REFUND"},
}


@pytest.fixture
def usual(pins: Pins) -> Usual:
    return Usual(pins, 6)


@pytest.mark.parametrize("event_type", INGRESS_TYPES)
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("trace", [None, "00-ab-cd-01", "absent"])
def test_the_usual_form_is_read_as_the_full_way_reads_it(
    event_type: str, extra: bool, trace: str | None, usual: Usual, admission: Admission, document: Document
) -> None:
    doc = document(7, event_type, second=61)
    doc["traceparent"] = trace
    if trace == "absent":
        del doc["traceparent"]
    if extra:
        doc["payload"] |= EXTRAS[event_type]
    raw = trusted_bytes(doc)
    read = usual.read(raw, 0, ALL)
    assert read is not None
    assert read == admission.read_fully(raw, 0, ALL) == admission.read(raw, 0, ALL)
    assert read.raw is raw


UNUSUAL: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("a space", lambda raw: raw.replace(b":", b": ", 1)),
    ("a space at the end", lambda raw: raw + b" "),
    ("a doubled key", lambda raw: raw.replace(b'{"event_id"', b'{"event_id":"x","event_id"')),
    ("a doubled key in the payload", lambda raw: raw.replace(b'"currency"', b'"currency":"USD","currency"')),
    ("an escape", lambda raw: raw.replace(b'"test"', b'"te\\u0073t"')),
    ("text beyond ASCII", lambda raw: raw.replace(b'"test"', '"t\u00e9st"'.encode())),
    ("a number in another form", lambda raw: raw.replace(b'"event_seq":1', b'"event_seq":1.0')),
    ("minus zero", lambda raw: raw.replace(b'"amount_minor":1001', b'"amount_minor":-0')),
    ("an integer beyond 53 bits", lambda raw: raw.replace(b'"event_seq":1', b'"event_seq":9007199254740993')),
    ("a bare control character", lambda raw: raw.replace(b'"test"', b'"te\x01st"')),
    ("a byte order mark", lambda raw: b"\xef\xbb\xbf" + raw),
    ("a currency with a newline", lambda raw: raw.replace(b'"EUR"', b'"EUR\n"')),
    ("a wrong pin", lambda raw: raw.replace(b"platform_20260101T", b"platform_20260102T")),
    ("another version", lambda raw: raw.replace(b'"v1"', b'"v2"')),
    ("no such type", lambda raw: raw.replace(b'"traffic"', b'"graffic"')),
    ("no such second", lambda raw: raw.replace(b":00.000000Z", b":60.000000Z")),
    ("a cut line", lambda raw: raw[:-1]),
]


@pytest.mark.parametrize("change", [case[1] for case in UNUSUAL], ids=[case[0] for case in UNUSUAL])
def test_anything_unusual_is_left_to_the_full_way(
    change: Callable[[bytes], bytes], usual: Usual, document: Document
) -> None:
    raw = trusted_bytes(document(1))
    assert usual.read(raw, 0, ALL) is not None
    assert change(raw) != raw
    assert usual.read(change(raw), 0, ALL) is None


@pytest.fixture
def cutting(usual: Usual, document: Document) -> Usual:
    """A reader that has seen a line of the producer: what differs in few places is cut, not parsed."""
    for event_type in INGRESS_TYPES:
        assert usual.read(_traced(document(7, event_type)), 0, ALL) is not None
    assert usual._between
    return usual


def _traced(doc: dict[str, Any], **changes: Any) -> bytes:
    return trusted_bytes(doc | {"traceparent": TRACE.decode()} | changes)


@pytest.mark.parametrize("event_type", INGRESS_TYPES)
def test_a_line_that_is_cut_is_read_as_the_full_way_reads_it(
    event_type: str, cutting: Usual, admission: Admission, document: Document
) -> None:
    raw = _traced(document(8, event_type), event_id="e8")
    assert cutting._cut(raw) is not None
    assert cutting.read(raw, 0, ALL) == admission.read_fully(raw, 0, ALL)
    assert isinstance(admission.read_fully(raw, 0, ALL), Admissible)


@pytest.mark.parametrize("change", [case[1] for case in UNUSUAL], ids=[case[0] for case in UNUSUAL])
def test_anything_unusual_is_never_cut(change: Callable[[bytes], bytes], cutting: Usual, document: Document) -> None:
    raw = _traced(document(1))
    assert cutting._cut(raw) is not None
    assert change(raw) != raw
    assert cutting.read(change(raw), 0, ALL) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=600)
@given(data=st.data())
def test_whatever_bytes_change_a_cut_line_is_what_the_full_way_reads(
    data: st.DataObject, cutting: Usual, admission: Admission, document: Document
) -> None:
    raw = _traced(document(1, data.draw(st.sampled_from(sorted(INGRESS_TYPES)))))
    at, until = sorted((data.draw(st.integers(-100, len(raw))) % (len(raw) + 1), data.draw(st.integers(0, len(raw)))))
    until = min(until, at + data.draw(st.integers(0, 6)))
    piece = data.draw(
        st.sampled_from([b"", b'"', b"\n", b"0", b"a", b",", b'":"', b"}", b"{", b"-"]) | st.binary(max_size=3)
    )
    raw = raw[:at] + piece + raw[until:]
    read = cutting.read(raw, 0, ALL)
    if read is not None and not has_pan(raw, None):
        assert read == admission.read_fully(raw, 0, ALL)


def test_a_foreign_class_or_lane_is_left_to_the_full_way(usual: Usual, document: Document) -> None:
    raw = trusted_bytes(document(1))
    assert usual.read(raw, 1, ALL) is None
    assert usual.read(raw, 0, frozenset({"context_arrival"})) is None


TEXT = st.text(st.characters(max_codepoint=0x2FF), max_size=6) | st.sampled_from(["EUR", "EUR\n", "REFUND", "x" * 257])
NUMBER = st.integers(-(2**65), 2**65) | st.sampled_from([2**53, 2**53 + 1, -(2**53), 0, 1]) | st.floats(width=16)
ANY = st.none() | st.booleans() | NUMBER | TEXT | st.lists(TEXT, max_size=2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(data=st.data())
def test_whatever_stands_in_any_field_the_two_ways_agree(
    data: st.DataObject, usual: Usual, admission: Admission, document: Document
) -> None:
    doc = document(1, data.draw(st.sampled_from(sorted(INGRESS_TYPES))))
    target = doc if data.draw(st.integers(0, 2)) == 0 else doc["payload"]
    name = data.draw(st.sampled_from([*sorted(target), "new_field"]))
    target[name] = data.draw(ANY)
    in_order, ascii_only = data.draw(st.booleans()), data.draw(st.booleans())
    raw = json.dumps(doc, separators=(",", ":"), sort_keys=in_order, ensure_ascii=ascii_only).encode()
    merchant = doc["payload"].get("merchant_id") if isinstance(doc["payload"], dict) else None
    lane = partition_of(merchant, 6) if isinstance(merchant, str) and merchant.isascii() else 0
    read = usual.read(raw, lane, ALL)
    full = admission.read_fully(raw, lane, ALL)
    if read is not None and not has_pan(raw, None):
        assert read == full
    if isinstance(full, Admissible) and raw == trusted_bytes(doc) and raw.isascii() and b"\\" not in raw:
        assert read == full or b"9007199254740993" in raw or max(map(abs, _numbers(doc))) > 2**53


def _numbers(doc: dict[str, Any]) -> list[int]:
    return [0, *(value for value in doc["payload"].values() if isinstance(value, int))]


TRACE = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-0a"
PIECES = [b"4111111111111111", b"4111", b"111111111111", b"a", b" ", b"-", b'"', TRACE]


@given(st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join))
def test_bytes_without_a_word_of_digits_hold_no_card_number(raw: bytes) -> None:
    assert may_hold_pan(raw) or not _holds_pan(raw)


def test_a_rule_that_msgspec_cannot_express_is_an_error() -> None:
    class Model(Closed):
        even: int = Field(multiple_of=2)

    with pytest.raises(TypeError, match="no msgspec rule"):
        struct_of(Model)
