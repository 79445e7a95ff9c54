"""The usual form of a line, read at a fifth of the full way's cost; what is admitted here is admitted there, alike.

Usual: ASCII without escapes or spaces, keys in canonical order, the run's pins, a class and a lane that are allowed.
msgspec reads it into structs made from the contract's models. That writing them again gives the same bytes proves that
no key is doubled, no number has another form and the payload is canonical. Any other line, valid or not, is left to the
full way (domain.py), which also says why it is refused. Card numbers are looked for there before a line comes here.
"""

import hashlib
from types import NoneType
from typing import Annotated, Any, get_args

import msgspec
from annotated_types import Ge, Le
from pydantic import StringConstraints

from fp_contracts.canonical import trusted_bytes
from fp_contracts.envelope import EVENT_LIMIT, HASHED_FIELDS, NO_NUL, SCHEMA_VERSION, Closed, Envelope
from fp_contracts.ids import framed
from fp_contracts.ingress import INGRESS_TYPES, IngressType, TrafficKind, kind_of
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_contracts.timestamps import to_us
from fp_contracts.topics import INGRESS
from fp_ig.lines import Admissible

INT_LIMIT = 2**53
_ID_LIMIT = 256
# A canonical line: its head, the event id, a type's start, the payload, what is the same in all lines of a producer in
# a run, and at the end the trace and the time, which have their places.
_HEAD, _TYPE, _TIME = b'{"event_id":"', b'","event_type":"', b'","ts_utc":"'
_TIME_AT = -len('2026-01-01T00:00:00.000000Z"}')
_TRACE_END = _TIME_AT - len(_TIME)
_TRACE_AT = _TRACE_END - len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
_TRACE = b"0123456789abcdef-"
# Compared with the run's pins or looked at by `to_us`, which is narrower than their patterns.
_PINS = ("manifest_fingerprint", "platform_run_id", "run_config_digest", "scenario_run_id")
_APART: dict[str, Any] = {"payload": msgspec.Raw, "ts_utc": str, **dict.fromkeys(_PINS, str)}
_sha256 = hashlib.sha256
_written = msgspec.json.Encoder().encode


class Usual:
    """Reads the lines of one run."""

    def __init__(self, pins: Pins, lanes: int) -> None:
        self._lanes = lanes
        self._pins = tuple(getattr(pins, name) for name in _PINS)
        self._envelope = msgspec.json.Decoder(struct_of(Envelope, _APART)).decode
        self._types = {name.encode(): _Type(spec, pins) for name, spec in INGRESS_TYPES.items()}
        self._between = b""

    def read(self, raw: bytes, lane: int, classes: frozenset[str]) -> Admissible | None:
        """The line as it may be admitted, None when the full way has to look at it."""
        if len(raw) > EVENT_LIMIT or b"\\" in raw or not raw.isascii():
            return None
        apart = self._cut(raw) or self._parsed(raw)
        if apart is None:
            return None
        of_type, event_id, text, trace, ts_us = apart
        try:
            payload = of_type.decode(text)
        except msgspec.MsgspecError:
            return None
        merchant = payload.merchant_id
        if (
            of_type.event_class not in classes
            or partition_of(merchant, self._lanes) != lane
            or _written(payload) != text
        ):  # fmt: skip
            return None
        hashed = of_type.hash_head.copy()
        hashed.update(b"".join((text, of_type.hash_tail, raw[_TIME_AT - 1 :])))
        return Admissible(
            raw,
            _sha256(of_type.identity_head + len(event_id).to_bytes(4, "big") + event_id).digest(),
            hashed.digest(),
            of_type.kinds[payload.kind] if of_type.kinds else of_type.kind,
            of_type.topic,
            ts_us,
            merchant.encode(),
            trace,
        )

    def _cut(self, raw: bytes) -> "_Apart | None":
        """The parts of a line that differs from one that was parsed in its type, id, payload, trace and time alone."""
        id_end = raw.find(b'"', len(_HEAD))
        type_at = id_end + len(_TYPE)
        of_type = self._types.get(raw[type_at : raw.find(b'"', type_at)])
        event_id, trace, between = raw[len(_HEAD) : id_end], raw[_TRACE_AT:_TRACE_END], self._between
        ts_us = _us_of(raw[_TIME_AT:-2].decode())
        if (
            of_type is None or ts_us is None or not between
            or not raw.startswith(_HEAD) or not event_id.isalnum() or len(event_id) > _ID_LIMIT
            or not raw.startswith(of_type.start, id_end) or not raw.endswith(between, id_end, _TRACE_AT)
            or trace.strip(_TRACE) or not raw.endswith(_TIME, id_end, _TIME_AT) or not raw.endswith(b'"}')
        ):  # fmt: skip
            return None
        return of_type, event_id, raw[id_end + len(of_type.start) : _TRACE_AT - len(between)], trace, ts_us

    def _parsed(self, raw: bytes) -> "_Apart | None":
        """The parts of a line in the usual form."""
        try:
            line = self._envelope(raw)
            of_type = self._types[line.event_type.encode()]
        except (msgspec.MsgspecError, KeyError):
            return None
        ts_us = _us_of(line.ts_utc)
        pins = (line.manifest_fingerprint, line.platform_run_id, line.run_config_digest, line.scenario_run_id)
        if ts_us is None or pins != self._pins or _written(line) != raw:
            return None
        event_id, text, trace = line.event_id.encode(), bytes(line.payload), line.traceparent
        if isinstance(trace, str) and len(trace) == _TRACE_END - _TRACE_AT:
            self._between = raw[len(_HEAD) + len(event_id) + len(of_type.start) + len(text) : _TRACE_AT]
        return of_type, event_id, text, trace.encode() if isinstance(trace, str) else None, ts_us


class _Type:
    """What is the same for every line of one event type in one run."""

    def __init__(self, spec: IngressType, pins: Pins) -> None:
        self.event_class = spec.event_class
        self.topic = INGRESS.index(spec.topic)
        self.start = b'%b%b","manifest_fingerprint":"%b","payload":' % (
            _TYPE, spec.event_type.encode(), pins.manifest_fingerprint.encode()
        )  # fmt: skip
        self.decode = msgspec.json.Decoder(struct_of(spec.model)).decode
        self.identity_head = framed(pins.platform_run_id, spec.event_class)
        has_kind = "kind" in spec.model.model_fields
        self.kinds = {kind: kind_of(spec.event_type, kind).value for kind in TrafficKind} if has_kind else {}
        self.kind = kind_of(spec.event_type, None).value
        head, self.hash_tail = _around_payload(spec.event_type, pins)
        self.hash_head = _sha256(head)


def _around_payload(event_type: str, pins: Pins) -> tuple[bytes, bytes]:
    """The canonical bytes of the hashed fields before the payload, and behind it up to the time, which is the last."""
    fields = {
        "event_type": event_type, "schema_version": SCHEMA_VERSION, "scenario_run_id": pins.scenario_run_id,
        "manifest_fingerprint": pins.manifest_fingerprint, "payload": None, "ts_utc": None,
    }  # fmt: skip
    head, mark, tail = trusted_bytes({name: fields[name] for name in HASHED_FIELDS}).partition(b'"payload":')
    if not (tail.startswith(b"null,") and tail.endswith(b'"ts_utc":null}')):
        raise TypeError("the hashed fields are no longer payload, others, ts_utc in this order")
    return head + mark, tail.removeprefix(b"null").removesuffix(b"null}")


_Apart = tuple[_Type, bytes, bytes, bytes | None, int]
"""Type, event id, payload, trace and time (µs) of a line."""


def _us_of(text: str) -> int | None:
    try:
        return to_us(text)
    except ValueError:
        return None


def struct_of(model: type[Closed], apart: dict[str, Any] | None = None) -> type[Any]:
    """A closed msgspec struct that takes what `model` takes, fields in canonical order; those `apart` get another type.

    Optional fields may be absent or null. TypeError for a rule that it cannot express.
    """
    fields = []
    for name, field in sorted(model.model_fields.items()):
        own = (apart or {}).get(name) or _constrained(field.annotation, field.metadata)
        fields.append((name, own) if field.is_required() else (name, own | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(model.__name__, fields, forbid_unknown_fields=True, gc=False, kw_only=True)


def _constrained(annotation: Any, rules: list[Any]) -> Any:
    """A field's type with its rules as msgspec writes them. Patterns are anchored: `$` would pass a last newline."""
    given = get_args(annotation)
    if NoneType in given:
        (inner,) = (one for one in given if one is not NoneType)
        return _constrained(inner, []) | None
    if annotation is not None and hasattr(annotation, "__metadata__"):
        return _constrained(given[0], [*rules, *annotation.__metadata__])
    bounds: dict[str, Any] = {"ge": -INT_LIMIT, "le": INT_LIMIT} if annotation is int else {}
    for rule in rules:
        match rule:
            case Ge(ge=least):
                bounds["ge"] = least
            case Le(le=most):
                bounds["le"] = most
            case StringConstraints(min_length=least, max_length=most, pattern=str() | None as pattern):
                # Without escapes no JSON text holds a NUL: that rule would cost a look and find nothing.
                own = None if pattern == NO_NUL else pattern
                found = {"min_length": least, "max_length": most, "pattern": own and f"{own[:-1]}\\Z"}
                bounds |= {name: value for name, value in found.items() if value is not None}
            case _ if type(rule).__name__ == "Strict":
                pass  # an enum by its value: msgspec's way
            case _:
                raise TypeError(f"no msgspec rule for {rule!r}")
    return Annotated[annotation, msgspec.Meta(**bounds)] if bounds else annotation
