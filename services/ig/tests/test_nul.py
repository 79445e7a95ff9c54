"""No NUL passes in any text of any event, however its line is read; other text of the contract still does."""

from collections.abc import Callable
from typing import Any, get_args

import pytest

from fp_contracts.canonical import trusted_bytes
from fp_contracts.envelope import Closed, Envelope
from fp_contracts.ingress import EVENT_CLASSES, INGRESS_TYPES
from fp_contracts.reasons import Quarantine
from fp_ig.domain import Admission
from fp_ig.lines import Admissible, Quarantined

ALL = frozenset(EVENT_CLASSES)
TRACE = f"00-{'a' * 32}-{'b' * 16}-0a"
Document = Callable[..., dict[str, Any]]


def _holds_text(annotation: Any) -> bool:
    return annotation is str or any(_holds_text(part) for part in get_args(annotation) if not isinstance(part, str))


def _texts(model: type[Closed]) -> list[str]:
    return [name for name, field in model.model_fields.items() if _holds_text(field.annotation) and name != "payload"]


PLACES = [
    *((event_type, "payload", name) for event_type, kind in INGRESS_TYPES.items() for name in _texts(kind.model)),
    *((event_type, "envelope", name) for event_type in INGRESS_TYPES for name in _texts(Envelope)),
]


@pytest.fixture
def warm(admission: Admission, document: Document) -> Admission:
    """An admission that cuts what looks like the lines it has read."""
    for event_type in INGRESS_TYPES:
        read = admission.read(trusted_bytes(document(7, event_type) | {"traceparent": TRACE}), 0, ALL)
        assert isinstance(read, Admissible)
    assert admission._usual._between
    return admission


def test_every_text_is_tried() -> None:
    assert {"account_id", "device_id", "instrument_id", "merchant_id", "terminal_id", "party_id", "tz", "traceparent",
            "event_id", "producer", "session_id", "ip_id", "flow_id"} <= {name for _, _, name in PLACES}  # fmt: skip


@pytest.mark.parametrize("text", ["\0", "a\0b", "x\0"], ids=["alone", "within", "at the end"])
@pytest.mark.parametrize(("event_type", "where", "name"), PLACES)
def test_a_nul_in_any_text_breaks_the_schema(
    event_type: str, where: str, name: str, text: str, warm: Admission, document: Document
) -> None:
    doc = document(8, event_type) | {"traceparent": TRACE}
    (doc if where == "envelope" else doc["payload"])[name] = text
    expected = {"event_type": Quarantine.UNKNOWN_TYPE, "schema_version": Quarantine.UNKNOWN_VERSION}
    for read in (warm.read(trusted_bytes(doc), 0, ALL), warm.read_fully(trusted_bytes(doc), 0, ALL)):
        assert isinstance(read, Quarantined)
        assert read.reason is (expected.get(name) if where == "envelope" and name in expected
                               else Quarantine.SCHEMA_BROKEN)  # fmt: skip


@pytest.mark.parametrize(("event_type", "where", "name"), PLACES)
def test_a_lone_surrogate_or_a_bare_nul_in_any_text_is_no_canonical_line(
    event_type: str, where: str, name: str, warm: Admission, document: Document
) -> None:
    doc = document(8, event_type) | {"traceparent": TRACE}
    (doc if where == "envelope" else doc["payload"])[name] = "MARK"
    for piece, reason in ((b"\\ud800", Quarantine.NOT_CANONICAL), (b"\0", Quarantine.NOT_JSON)):
        read = warm.read(trusted_bytes(doc).replace(b"MARK", piece), 0, ALL)
        assert isinstance(read, Quarantined)
        assert read.reason is reason


@pytest.mark.parametrize("text", ["\\u0000", "two\nlines", "\ufeffbom", "tab\t", "caf\u00e9", "\x1b[0m", "\x7f"])
def test_other_text_is_admitted_as_before(text: str, warm: Admission, document: Document) -> None:
    doc = document(8, "arrival_entities") | {"traceparent": TRACE}
    doc["payload"] |= {"account_id": text, "device_id": text}
    assert isinstance(warm.read(trusted_bytes(doc), 0, ALL), Admissible)
