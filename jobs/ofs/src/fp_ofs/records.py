"""Archived bodies as the values a build works on. Pure; reads only the fields that it needs."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from fp_contracts.derive import vector_bytes
from fp_contracts.downstream import SOURCE_RANK
from fp_contracts.header import Kind
from fp_contracts.timestamps import to_us

ArrivalKey = tuple[str, int]


class Broken(ValueError):
    """A body that breaks its contract: the stream quarantined it, and so does a build."""


class Arrival(NamedTuple):
    """The where of a payment; joins on `key` = (merchant_id, arrival_seq)."""

    key: ArrivalKey
    channel: str
    mcc: str | None
    country: str | None


class Entities(NamedTuple):
    """Who and what took part; joins on `key`."""

    key: ArrivalKey
    instrument_id: str
    device_id: str | None


class Anchor(NamedTuple):
    """Binds a flow to an arrival; the whole value is the binding."""

    flow_id: str
    key: ArrivalKey
    account_id: str
    instrument_id: str
    amount_minor: int
    currency: str


class Auth(NamedTuple):
    """One AUTH_REQUEST. Time in µs, money in minor units."""

    event_id: str
    flow_id: str
    merchant_id: str
    ts_us: int
    amount_minor: int
    currency: str


class Label(NamedTuple):
    """One assertion. Times in µs."""

    event_id: str
    merchant_id: str
    label_type: str
    value: str
    source: str
    effective_us: int
    observed_us: int


class ServedSnapshot(NamedTuple):
    """What rtdl said of a payment: its hash covers every field that replays."""

    event_id: str
    snapshot_hash: str
    payload: Mapping[str, Any]


class ServedDecision(NamedTuple):
    """What df decided, and the whole packed feature vector on which it did."""

    event_id: str
    snapshot_hash: str
    vector: bytes
    action: str
    posture: str
    policy_rev: str


Value = Arrival | Entities | Anchor | Auth | Label | ServedSnapshot | ServedDecision


def decode(kind: Kind, body: bytes) -> Value | None:
    """The value of a record; None for kinds that no build looks into. Raises Broken."""
    read = _READERS.get(kind)
    if read is None:
        return None
    try:
        envelope = orjson.loads(body)
        return read(envelope, envelope["payload"])
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(f"{kind.name}: {type(error).__name__} {str(error)[:100]}") from error


def _text(value: Any) -> str:
    if type(value) is not str or not value:
        raise ValueError("not an id")
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("not an integer")
    return value


def _key(payload: dict[str, Any]) -> ArrivalKey:
    return _text(payload["merchant_id"]), _int(payload["arrival_seq"])


def _arrival(_envelope: dict[str, Any], payload: dict[str, Any]) -> Arrival:
    return Arrival(_key(payload), _text(payload["channel"]), payload.get("mcc"), payload.get("country"))


def _entities(_envelope: dict[str, Any], payload: dict[str, Any]) -> Entities:
    return Entities(_key(payload), _text(payload["instrument_id"]), payload.get("device_id"))


def _anchor(_envelope: dict[str, Any], payload: dict[str, Any]) -> Anchor:
    return Anchor(
        _text(payload["flow_id"]), _key(payload), _text(payload["account_id"]), _text(payload["instrument_id"]),
        _int(payload["amount_minor"]), _text(payload["currency"]),
    )  # fmt: skip


def _auth(envelope: dict[str, Any], payload: dict[str, Any]) -> Auth:
    return Auth(
        _text(envelope["event_id"]), _text(payload["flow_id"]), _text(payload["merchant_id"]),
        to_us(envelope["ts_utc"]), _int(payload["amount_minor"]), _text(payload["currency"]),
    )  # fmt: skip


def _label(_envelope: dict[str, Any], payload: dict[str, Any]) -> Label:
    subject = payload["subject"]
    if payload["source"] not in SOURCE_RANK:
        raise ValueError("unknown label source")
    return Label(
        _text(subject["event_id"]), _text(subject["merchant_id"]), _text(payload["label_type"]),
        _text(payload["label_value"]), payload["source"], _int(payload["effective_us"]), _int(payload["observed_us"]),
    )  # fmt: skip


def _snapshot(_envelope: dict[str, Any], payload: dict[str, Any]) -> ServedSnapshot:
    return ServedSnapshot(_text(payload["source_event"]["event_id"]), _text(payload["snapshot_hash"]), payload)


def _decision(_envelope: dict[str, Any], payload: dict[str, Any]) -> ServedDecision:
    return ServedDecision(
        _text(payload["source_event"]["event_id"]), _text(payload["snapshot_hash"]),
        vector_bytes(payload["feature_vector"]), _text(payload["action"]), _text(payload["posture"]),
        _text(payload["policy_rev"]),
    )  # fmt: skip


_READERS: Mapping[Kind, Callable[[dict[str, Any], dict[str, Any]], Value]] = MappingProxyType(
    {
        Kind.ARRIVAL_EVENT: _arrival,
        Kind.ARRIVAL_ENTITIES: _entities,
        Kind.FLOW_ANCHOR: _anchor,
        Kind.AUTH_REQUEST: _auth,
        Kind.LABEL_ASSERTION: _label,
        Kind.FEATURE_SNAPSHOT: _snapshot,
        Kind.DECISION: _decision,
    }
)
