"""A feature snapshot as the values that deciding works on. Pure; reads only the fields that it needs.

Not pydantic: one parse straight into the fields costs a tenth, once per payment. A test holds it to the contract model.
"""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from fp_contracts.derive import vector_bytes
from fp_contracts.records import RecordError
from fp_features import CORE_V1, Payment, unpack

_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Minor = Annotated[int, Meta(ge=-(2**53), le=2**53)]
_Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]
_Channel = Literal["CARD_PRESENT", "ECOM", "MOTO", "ATM", "TRANSFER"]
_WIDTH = len(CORE_V1.snapshot_names)
_DIGEST = CORE_V1.schema_digest


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


class _Origin(msgspec.Struct):
    topic: _Id
    partition: _Int
    offset: _Int


class _SourceEvent(msgspec.Struct):
    event_id: _Id
    origin: _Origin


class _Payload(msgspec.Struct):
    source_event: _SourceEvent
    flow_id: _Id
    account_id: _Id | None
    merchant_id: _Id
    instrument_id: _Id | None
    device_id: _Id | None
    event_us: _Int
    amount_minor: _Minor
    currency: _Currency
    channel: _Channel | None
    degrade_reasons: tuple[str, ...]
    feature_schema_digest: _Hex64
    feature_vector: str
    snapshot_hash: _Hex64


class _Body(msgspec.Struct):
    event_type: Literal["feature_snapshot"]
    payload: _Payload


_body = msgspec.json.Decoder(_Body)
_as = tuple.__new__  # a named tuple without its Python-level constructor, three times per payment


def read_snapshot(body: bytes) -> Snapshot:
    """The snapshot in a record body; RecordError when it breaks its contract."""
    try:
        return _snapshot(_body.decode(body).payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordError(f"{type(error).__name__} {str(error)[:120]}") from error


def _snapshot(found: _Payload) -> Snapshot:
    source = found.source_event
    origin = source.origin
    vector = unpack(vector_bytes(found.feature_vector))
    if found.feature_schema_digest == _DIGEST and len(vector) != _WIDTH:
        raise ValueError(f"{len(vector)} features where its schema has {_WIDTH}")
    payment = (
        found.event_us, found.amount_minor, found.channel, found.merchant_id, found.instrument_id, found.device_id
    )  # fmt: skip
    values = (
        source.event_id, _as(Origin, (origin.topic, origin.partition, origin.offset)), found.flow_id, found.account_id,
        _as(Payment, payment), found.currency, found.degrade_reasons, found.feature_schema_digest, vector,
        found.snapshot_hash,
    )  # fmt: skip
    return _as(Snapshot, values)


def origin_of(origin: dict[str, Any]) -> Origin:
    """An offset of a payload; KeyError or ValueError when it is none."""
    topic, partition, offset = origin["topic"], origin["partition"], origin["offset"]
    if not (type(topic) is str and type(partition) is type(offset) is int):
        raise ValueError("no offset")
    return Origin(topic, partition, offset)
