"""Bodies of ingress and label records as the values the join works on. Pure; reads only the fields that it needs.

Not pydantic: one parse and a few type checks cost a third, and ig has validated the whole payload before. A test holds
these readers to the contract models.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from fp_contracts import topics
from fp_contracts.downstream import SOURCE_RANK
from fp_contracts.header import Kind
from fp_contracts.ingress import INGRESS_TYPES, RANK_LABEL, Channel
from fp_contracts.reasons import Quarantine
from fp_contracts.timestamps import to_us
from fp_runtime.errors import Poison

ArrivalKey = tuple[str, int]
_CHANNELS = frozenset(Channel)
_ID_MAX = 256
_MINOR_MAX = 2**53


class Arrival(NamedTuple):
    """The where of a payment: joins on `key` = (merchant_id, arrival_seq)."""

    key: ArrivalKey
    channel: str
    offset: int


class Entities(NamedTuple):
    """Who and what took part: joins on `key`."""

    key: ArrivalKey
    account_id: str
    instrument_id: str
    device_id: str | None
    offset: int


class Anchor(NamedTuple):
    """Binds a flow to an arrival; everything but the offset is the binding."""

    flow_id: str
    key: ArrivalKey
    account_id: str
    instrument_id: str
    amount_minor: int
    currency: str
    offset: int


class Auth(NamedTuple):
    """One AUTH_REQUEST: asks for exactly one snapshot. Times in µs, money in minor units."""

    event_id: str
    flow_id: str
    merchant_id: str
    ts_us: int
    amount_minor: int
    currency: str
    offset: int
    traceparent: str | None


class Label(NamedTuple):
    """What somebody knows of a payment, as the merchant's state takes it. Times in µs."""

    event_id: str
    merchant_id: str
    label_type: str
    value: str
    source: str
    effective_us: int
    observed_us: int


Value = Arrival | Entities | Anchor | Auth | Label | None


def decode(kind: Kind, body: bytes, offset: int, traceparent: bytes | None) -> Value:
    """The value of a record; None, without a look at the body, for traffic that asks for no decision. Raises Poison."""
    read = _READERS.get(kind)
    if read is None:
        return None
    try:
        envelope = orjson.loads(body)
        return read(envelope, envelope["payload"], offset, traceparent)
    except orjson.JSONDecodeError as error:
        raise Poison(Quarantine.UNDECODABLE, str(error)[:100]) from error
    except (KeyError, TypeError, ValueError) as error:
        raise Poison(Quarantine.CONTRACT_BROKEN, f"{kind.name}: {type(error).__name__} {str(error)[:100]}") from error


def _id(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= _ID_MAX:
        raise ValueError("not an id")
    return value


def _optional_id(value: Any) -> str | None:
    return None if value is None else _id(value)


def _int(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("not an integer")
    return value


def _minor(value: Any) -> int:
    if type(value) is not int or not -_MINOR_MAX <= value <= _MINOR_MAX:
        raise ValueError("not an amount in minor units")
    return value


def _currency(value: Any) -> str:
    if type(value) is not str or len(value) != 3 or not (value.isascii() and value.isalpha() and value.isupper()):
        raise ValueError("not a currency")
    return value


def _key(payload: dict[str, Any]) -> ArrivalKey:
    seq = _int(payload["arrival_seq"])
    if seq < 1:
        raise ValueError("arrival_seq below 1")
    return _id(payload["merchant_id"]), seq


def _arrival(_envelope: dict[str, Any], payload: dict[str, Any], offset: int, _trace: bytes | None) -> Arrival:
    channel = payload["channel"]
    if channel not in _CHANNELS:
        raise ValueError("unknown channel")
    return Arrival(_key(payload), channel, offset)


def _entities(_envelope: dict[str, Any], payload: dict[str, Any], offset: int, _trace: bytes | None) -> Entities:
    account, instrument = _id(payload["account_id"]), _id(payload["instrument_id"])
    return Entities(_key(payload), account, instrument, _optional_id(payload.get("device_id")), offset)


def _anchor(_envelope: dict[str, Any], payload: dict[str, Any], offset: int, _trace: bytes | None) -> Anchor:
    return Anchor(
        _id(payload["flow_id"]), _key(payload), _id(payload["account_id"]), _id(payload["instrument_id"]),
        _minor(payload["amount_minor"]), _currency(payload["currency"]), offset,
    )  # fmt: skip


def _auth(envelope: dict[str, Any], payload: dict[str, Any], offset: int, trace: bytes | None) -> Auth:
    if payload["kind"] != Kind.AUTH_REQUEST.name:
        raise ValueError("header and payload disagree on the kind")
    return Auth(
        _id(envelope["event_id"]), _id(payload["flow_id"]), _id(payload["merchant_id"]), to_us(envelope["ts_utc"]),
        _minor(payload["amount_minor"]), _currency(payload["currency"]), offset, trace.decode() if trace else None,
    )  # fmt: skip


def _label(_envelope: dict[str, Any], payload: dict[str, Any], _offset: int, _trace: bytes | None) -> Label:
    subject = payload["subject"]
    if payload["source"] not in SOURCE_RANK:
        raise ValueError("unknown label source")
    return Label(
        _id(subject["event_id"]), _id(subject["merchant_id"]), _id(payload["label_type"]), _id(payload["label_value"]),
        payload["source"], _int(payload["effective_us"]), _int(payload["observed_us"]),
    )  # fmt: skip


_READERS: Mapping[Kind, Callable[[dict[str, Any], dict[str, Any], int, bytes | None], Value]] = MappingProxyType(
    {
        Kind.ARRIVAL_EVENT: _arrival,
        Kind.ARRIVAL_ENTITIES: _entities,
        Kind.FLOW_ANCHOR: _anchor,
        Kind.AUTH_REQUEST: _auth,
        Kind.LABEL_ASSERTION: _label,
    }
)

# Which kinds a topic may carry, and the merge rank there.
KINDS: Mapping[str, frozenset[Kind]] = MappingProxyType(
    {
        topics.ARRIVAL_EVENTS: frozenset({Kind.ARRIVAL_EVENT}),
        topics.ARRIVAL_ENTITIES: frozenset({Kind.ARRIVAL_ENTITIES}),
        topics.FLOW_ANCHOR: frozenset({Kind.FLOW_ANCHOR}),
        topics.TRAFFIC: frozenset({Kind.AUTH_REQUEST, Kind.TRAFFIC_OTHER}),
        topics.LABELS: frozenset({Kind.LABEL_ASSERTION}),
    }
)
RANKS: Mapping[str, int] = MappingProxyType(
    {topics.LABELS: RANK_LABEL, **{kind.topic: kind.rank for kind in INGRESS_TYPES.values()}}
)
