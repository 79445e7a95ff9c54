"""A feature snapshot as the values that deciding works on. Pure; reads only the fields that it needs.

Not pydantic: one parse and a few checks cost a fifth, once per payment. A test holds this reader to the contract model.
"""

import re
from typing import Any, NamedTuple

import orjson

from fp_contracts.derive import vector_bytes
from fp_contracts.ids import HEX64
from fp_contracts.ingress import Channel
from fp_contracts.records import RecordError
from fp_features import CORE_V1, Payment, unpack

_ID_MAX = 256
_CHANNELS = frozenset(Channel) | {None}
_MINOR_MAX = 2**53
_CURRENCY = re.compile(r"[A-Z]{3}")
_WIDTH = len(CORE_V1.snapshot_names)


class Origin(NamedTuple):
    """Where a fact was first admitted."""

    topic: str
    partition: int
    offset: int


class Snapshot(NamedTuple):
    """One payment with its parts joined. `vector` is the part of the feature vector that came with it. Time in µs."""

    event_id: str
    origin: Origin
    flow_id: str
    account_id: str | None
    payment: Payment
    currency: str
    degrade_reasons: tuple[str, ...]
    schema_digest: str
    vector: tuple[float, ...]
    snapshot_hash: str


def read_snapshot(body: bytes) -> Snapshot:
    """The snapshot in a record body; RecordError when it breaks its contract."""
    try:
        envelope = orjson.loads(body)
        if envelope["event_type"] != "feature_snapshot":
            raise RecordError(f"{str(envelope['event_type'])[:60]} in a snapshot's place")
        return _snapshot(envelope["payload"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{type(error).__name__} {str(error)[:120]}") from error


def _snapshot(payload: dict[str, Any]) -> Snapshot:
    source = payload["source_event"]
    digest = _hex64(payload["feature_schema_digest"])
    vector = unpack(vector_bytes(payload["feature_vector"]))
    if digest == CORE_V1.schema_digest and len(vector) != _WIDTH:
        raise ValueError(f"{len(vector)} features where its schema has {_WIDTH}")
    payment = Payment(
        _int(payload["event_us"]), _minor(payload["amount_minor"]), _channel(payload["channel"]),
        _id(payload["merchant_id"]), _optional(payload["instrument_id"]), _optional(payload["device_id"]),
    )  # fmt: skip
    return Snapshot(
        _id(source["event_id"]), origin_of(source["origin"]), _id(payload["flow_id"]),
        _optional(payload["account_id"]), payment, _currency(payload["currency"]),
        _codes(payload["degrade_reasons"]), digest, vector, _hex64(payload["snapshot_hash"]),
    )  # fmt: skip


def origin_of(origin: dict[str, Any]) -> Origin:
    """An offset of a payload; KeyError or ValueError when it is none."""
    return Origin(_id(origin["topic"]), _int(origin["partition"]), _int(origin["offset"]))


def _id(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= _ID_MAX:
        raise ValueError("not an id")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _id(value)


def _channel(value: Any) -> str | None:
    if value not in _CHANNELS:
        raise ValueError("not a channel")
    return value  # type: ignore[no-any-return] # one of a closed set of texts


def _codes(value: Any) -> tuple[str, ...]:
    if type(value) is not list or not all(type(code) is str for code in value):
        raise ValueError("not a list of codes")
    return tuple(value)


def _int(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError("not a 64-bit integer")
    return value


def _minor(value: Any) -> int:
    if type(value) is not int or not -_MINOR_MAX <= value <= _MINOR_MAX:
        raise ValueError("not an amount in minor units")
    return value


def _currency(value: Any) -> str:
    if type(value) is not str or _CURRENCY.fullmatch(value) is None:
        raise ValueError("not a currency")
    return value


def _hex64(value: Any) -> str:
    if type(value) is not str or HEX64.fullmatch(value) is None:
        raise ValueError("not a hex64")
    return value
