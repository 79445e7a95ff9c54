"""A feature snapshot as the values that deciding works on. Pure; reads only the fields that it needs.

Not pydantic: one parse straight into the fields costs a tenth, once per payment. A test holds it to the contract model.
"""

import re
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from fp_contracts.derive import vector_bytes
from fp_contracts.envelope import CURRENCY
from fp_contracts.ids import HEX64
from fp_contracts.records import RecordError
from fp_features import CORE_V1, Payment, unpack

_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Minor = Annotated[int, Meta(ge=-(2**53), le=2**53)]
_Channel = Literal["CARD_PRESENT", "ECOM", "MOTO", "ATM", "TRANSFER"]
_WIDTH = len(CORE_V1.snapshot_names)
_DIGEST = CORE_V1.schema_digest
# Three patterns at one look, a quarter of what msgspec asks for them: a space is in none of them.
_are_formed = re.compile(f"{HEX64.pattern} {HEX64.pattern} {CURRENCY.pattern}").fullmatch


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


class _Origin(msgspec.Struct, gc=False):
    topic: _Id
    partition: _Int
    offset: _Int


class _SourceEvent(msgspec.Struct, gc=False):
    event_id: _Id
    origin: _Origin


class _Payload(msgspec.Struct, gc=False):
    source_event: _SourceEvent
    flow_id: _Id
    account_id: _Id | None
    merchant_id: _Id
    instrument_id: _Id | None
    device_id: _Id | None
    event_us: _Int
    amount_minor: _Minor
    currency: str
    channel: _Channel | None
    degrade_reasons: tuple[str, ...]
    feature_schema_digest: str
    feature_vector: str
    snapshot_hash: str


class _Body(msgspec.Struct, gc=False):
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
    if not _are_formed(f"{found.feature_schema_digest} {found.snapshot_hash} {found.currency}"):
        raise ValueError("no digest, no hash or no currency")
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
