"""What becomes of one raw line: Admissible or Quarantined, by its bytes, the run's pins and its lane alone. Pure.

Nearly all lines have the usual form and end in usual.py. The full way: orjson parses. A line in ASCII whose compact
re-dump equals its bytes has no duplicate keys, no text that is not NFC and no integer beyond 53 bits; the closed models
refuse floats and depth. Any other line is parsed again by `parse_strict`. All ways admit the same lines under the same
hashes.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from fp_contracts.canonical import CanonicalError, parse_strict, trusted_bytes
from fp_contracts.envelope import EVENT_LIMIT, HASHED_FIELDS, SCHEMA_VERSION, Envelope
from fp_contracts.ids import framed
from fp_contracts.ingress import INGRESS_TYPES, TRUTH_FIELDS, IngressType, kind_of
from fp_contracts.partition import partition_of
from fp_contracts.reasons import Quarantine
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_us
from fp_contracts.topics import INGRESS
from fp_ig.lines import Admissible, Quarantined
from fp_ig.usual import Usual

KEPT_LIMIT = 1_048_576  # bytes of one quarantined line that are kept; of a longer one only the hash
TOPIC_NUMBER = {topic: number for number, topic in enumerate(INGRESS)}


class Admission:
    """Reads the lines of one run."""

    def __init__(self, pins: Pins, lanes: int) -> None:
        self._pins = pins
        self._lanes = lanes
        self._usual = Usual(pins, lanes)
        self._identities = {
            kind.event_class: hashlib.sha256(framed(pins.platform_run_id, kind.event_class))
            for kind in INGRESS_TYPES.values()
        }

    def read(self, raw: bytes, lane: int, classes: frozenset[str]) -> Admissible | Quarantined:
        """The line as it may be admitted in this lane under a credential for `classes`, or why it is set aside."""
        usual = None if may_hold_pan(raw) else self._usual.read(raw, lane, classes)
        return usual or self.read_fully(raw, lane, classes)

    def read_fully(self, raw: bytes, lane: int, classes: frozenset[str]) -> Admissible | Quarantined:
        """As `read`, whatever form the line has."""
        try:
            doc = parse_line(raw)
            spec = INGRESS_TYPES[doc["event_type"]]
            Envelope.__pydantic_validator__.validate_python(doc)
            payload = doc["payload"]
            spec.model.__pydantic_validator__.validate_python(payload)
            ts_us = to_us(doc["ts_utc"])
        except (KeyError, TypeError, ValueError):  # ValidationError, CanonicalError and JSON errors are ValueErrors
            return quarantined(raw, explain(raw))
        reason = self._refusal(raw, doc, spec, lane, classes)
        return quarantined(raw, reason) if reason else self._admissible(raw, doc, spec, ts_us)

    def _refusal(
        self, raw: bytes, doc: dict[str, Any], spec: IngressType, lane: int, classes: frozenset[str]
    ) -> Quarantine | None:
        if has_pan(raw, doc):
            return Quarantine.PAN_REFUSED
        pins = self._pins
        if (
            doc["run_config_digest"] != pins.run_config_digest
            or doc["platform_run_id"] != pins.platform_run_id
            or doc["scenario_run_id"] != pins.scenario_run_id
            or doc["manifest_fingerprint"] != pins.manifest_fingerprint
        ):
            return Quarantine.PIN_MISMATCH
        if spec.event_class not in classes:
            return Quarantine.CLASS_NOT_ALLOWED
        if partition_of(doc["payload"]["merchant_id"], self._lanes) != lane:
            return Quarantine.WRONG_LANE
        return None

    def _admissible(self, raw: bytes, doc: dict[str, Any], spec: IngressType, ts_us: int) -> Admissible:
        payload = doc["payload"]
        event_id = doc["event_id"].encode()
        identity = self._identities[spec.event_class].copy()
        identity.update(len(event_id).to_bytes(4, "big") + event_id)
        hashed = hashlib.sha256(trusted_bytes({name: doc[name] for name in HASHED_FIELDS}))
        traceparent = doc.get("traceparent")
        return Admissible(
            raw,
            identity.digest(),
            hashed.digest(),
            kind_of(spec.event_type, payload.get("kind")).value,
            TOPIC_NUMBER[spec.topic],
            ts_us,
            payload["merchant_id"].encode(),
            None if traceparent is None else traceparent.encode(),
        )


def parse_line(raw: bytes) -> Any:
    """The JSON value of a line; CanonicalError or ValueError when it has no canonical form or is over the limit."""
    if len(raw) > EVENT_LIMIT:
        raise ValueError("over the event limit")
    doc = orjson.loads(raw)
    return doc if _is_plain(raw, doc) else parse_strict(raw)


def _is_plain(raw: bytes, doc: Any) -> bool:
    try:
        return raw.isascii() and orjson.dumps(doc, option=orjson.OPT_STRICT_INTEGER) == raw
    except TypeError:  # an integer beyond 53 bits
        return False


def quarantined(raw: bytes, reason: Quarantine) -> Quarantined:
    """A line set aside for `reason`; the bytes of one that holds a card number are not kept."""
    if reason is not Quarantine.PAN_REFUSED and has_pan(raw, None):
        reason = Quarantine.PAN_REFUSED
    keep = reason is not Quarantine.PAN_REFUSED and len(raw) <= KEPT_LIMIT
    return Quarantined(reason, hashlib.sha256(raw).digest(), raw if keep else None)


def explain(raw: bytes) -> Quarantine:
    """Why a line that broke its contract did so: the first broken rule in the order of contracts.md §2-3."""
    if len(raw) > EVENT_LIMIT:
        return Quarantine.OVER_LIMIT
    try:
        doc = parse_strict(raw)
    except CanonicalError as error:
        return Quarantine.NOT_JSON if str(error).startswith("not JSON") else Quarantine.NOT_CANONICAL
    if has_pan(raw, doc):
        return Quarantine.PAN_REFUSED
    if _has_truth(doc):
        return Quarantine.TRUTH_FIELD
    if isinstance(doc, dict) and isinstance(doc.get("event_type"), str) and doc["event_type"] not in INGRESS_TYPES:
        return Quarantine.UNKNOWN_TYPE
    if isinstance(doc, dict) and isinstance(doc.get("schema_version"), str) and doc["schema_version"] != SCHEMA_VERSION:
        return Quarantine.UNKNOWN_VERSION
    return Quarantine.SCHEMA_BROKEN


def _has_truth(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(key.lower() in TRUTH_FIELDS or _has_truth(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_truth(item) for item in value)


# --- card numbers ---

# Digits become '0', letters 'a', everything else a space: then thirteen zeros in a row are worth a closer look.
_SHAPE = bytes(
    ord("0") if 48 <= code <= 57 else ord("a") if chr(code).isascii() and chr(code).isalpha() else ord(" ")
    for code in range(256)
)
_MIN_PAN = b"0" * 13
_BARE_MIN_PAN = b" " + _MIN_PAN
_BARE = re.compile(rb"(?<![0-9A-Za-z])[0-9]{13,19}(?![0-9A-Za-z])")
# Visa, Mastercard, American Express, Discover, JCB, Diners, UnionPay, Maestro.
_NETWORK = re.compile(
    rb"4|5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|3[47]|6011|64[4-9]|65|35(2[89]|[3-8])|30[0-5]|36|3[89]|62|5018"
    rb"|5020|5038|6304|6759|676[1-3]"
)


# The span id of a traceparent is sixteen hex digits between dashes: no card number, even when all are decimal.
_TRACE = re.compile(rb"(?<![0-9A-Za-z])00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?![0-9A-Za-z])")


def may_hold_pan(raw: bytes) -> bool:
    """Whether thirteen digits in a row begin a word anywhere: without that no bytes hold a bare card number."""
    shape = raw.translate(_SHAPE)
    return _BARE_MIN_PAN in shape or shape.startswith(_MIN_PAN)


def has_pan(raw: bytes, doc: Any) -> bool:
    """Whether a line holds a bare card number: 13-19 digits, a card network's prefix, Luhn-valid.

    `doc`, the parsed line, is looked at too when escapes may hide digits from the raw bytes.
    """
    if may_hold_pan(raw) and _holds_pan(raw):
        return True
    return b"\\u" in raw and doc is not None and _holds_pan(trusted_bytes(doc))


def _holds_pan(text: bytes) -> bool:
    return any(_NETWORK.match(digits) and luhn_valid(digits) for digits in _BARE.findall(_TRACE.sub(b" ", text)))


def luhn_valid(digits: bytes) -> bool:
    """Whether ASCII digits pass the Luhn check."""
    total = 0
    for index, code in enumerate(reversed(digits)):
        digit = code - 48
        if index % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0
