"""Bodies of ingress and label records as the values the join works on. Pure; reads only the fields that it needs.

Not pydantic: a typed parse that skips what nobody reads costs a tenth, and ig has validated the whole payload before. A
test holds these readers to the contract models.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec

from fp_contracts import topics
from fp_contracts.downstream import SOURCE_RANK
from fp_contracts.envelope import CURRENCY
from fp_contracts.header import Kind
from fp_contracts.ingress import INGRESS_TYPES, RANK_LABEL, Channel
from fp_contracts.reasons import Quarantine
from fp_contracts.timestamps import to_us
from fp_runtime.errors import Poison

ArrivalKey = tuple[str, int]
_as = tuple.__new__  # a named tuple without its Python-level constructor, once per record
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
Reader = Callable[[bytes, int, bytes | None], Value]

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Seq = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Minor = Annotated[int, msgspec.Meta(ge=-_MINOR_MAX, le=_MINOR_MAX)]
_CHANNELS = frozenset(Channel)
_is_currency = CURRENCY.fullmatch  # a third of the cost of a pattern that msgspec looks at


class _Body(msgspec.Struct, gc=False):
    """What the join reads of a body: a subclass per kind says what of its payload."""


class _ArrivalFields(_Body):
    merchant_id: _Id
    arrival_seq: _Seq
    channel: str


class _EntitiesFields(_Body):
    merchant_id: _Id
    arrival_seq: _Seq
    account_id: _Id
    instrument_id: _Id
    device_id: _Id | None = None


class _AnchorFields(_Body):
    flow_id: _Id
    merchant_id: _Id
    arrival_seq: _Seq
    account_id: _Id
    instrument_id: _Id
    amount_minor: _Minor
    currency: str


class _AuthFields(_Body):
    flow_id: _Id
    merchant_id: _Id
    kind: Literal["AUTH_REQUEST"]
    amount_minor: _Minor
    currency: str


class _Subject(_Body):
    event_id: _Id
    merchant_id: _Id


class _LabelFields(_Body):
    subject: _Subject
    label_type: _Id
    label_value: _Id
    source: str
    effective_us: _Int
    observed_us: _Int


class _ArrivalBody(_Body):
    payload: _ArrivalFields


class _EntitiesBody(_Body):
    payload: _EntitiesFields


class _AnchorBody(_Body):
    payload: _AnchorFields


class _AuthBody(_Body):
    event_id: _Id
    ts_utc: str
    payload: _AuthFields


class _LabelBody(_Body):
    payload: _LabelFields


_arrival_body = msgspec.json.Decoder(_ArrivalBody).decode
_entities_body = msgspec.json.Decoder(_EntitiesBody).decode
_anchor_body = msgspec.json.Decoder(_AnchorBody).decode
_auth_body = msgspec.json.Decoder(_AuthBody).decode
_label_body = msgspec.json.Decoder(_LabelBody).decode


def decode(kind: Kind, body: bytes, offset: int, traceparent: bytes | None) -> Value:
    """The value of a record; None, without a look at the body, for traffic that asks for no decision. Raises Poison."""
    read = _READERS.get(kind)
    if read is None:
        return None
    try:
        return read(body, offset, traceparent)
    except msgspec.ValidationError as error:
        raise Poison(Quarantine.CONTRACT_BROKEN, f"{kind.name}: {str(error)[:100]}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Poison(Quarantine.UNDECODABLE, f"{kind.name}: {str(error)[:100]}") from error
    except ValueError as error:
        raise Poison(Quarantine.CONTRACT_BROKEN, f"{kind.name}: {str(error)[:100]}") from error


def _arrival(body: bytes, offset: int, _trace: bytes | None) -> Arrival:
    found = _arrival_body(body).payload
    if found.channel not in _CHANNELS:
        raise ValueError("unknown channel")
    return _as(Arrival, ((found.merchant_id, found.arrival_seq), found.channel, offset))


def _entities(body: bytes, offset: int, _trace: bytes | None) -> Entities:
    found = _entities_body(body).payload
    key = (found.merchant_id, found.arrival_seq)
    return _as(Entities, (key, found.account_id, found.instrument_id, found.device_id, offset))


def _anchor(body: bytes, offset: int, _trace: bytes | None) -> Anchor:
    found = _anchor_body(body).payload
    if not _is_currency(found.currency):
        raise ValueError("no currency")
    key = (found.merchant_id, found.arrival_seq)
    binding = (found.flow_id, key, found.account_id, found.instrument_id, found.amount_minor, found.currency, offset)
    return _as(Anchor, binding)


def _auth(body: bytes, offset: int, trace: bytes | None) -> Auth:
    envelope = _auth_body(body)
    found = envelope.payload
    if not _is_currency(found.currency):
        raise ValueError("no currency")
    return Auth(
        envelope.event_id, found.flow_id, found.merchant_id, to_us(envelope.ts_utc), found.amount_minor, found.currency,
        offset, trace.decode() if trace else None,
    )  # fmt: skip


def _label(body: bytes, _offset: int, _trace: bytes | None) -> Label:
    found = _label_body(body).payload
    if found.source not in SOURCE_RANK:
        raise ValueError("unknown label source")
    subject = found.subject
    return Label(
        subject.event_id, subject.merchant_id, found.label_type, found.label_value, found.source, found.effective_us,
        found.observed_us,
    )  # fmt: skip


_READERS: Mapping[Kind, Reader] = MappingProxyType(
    {
        Kind.ARRIVAL_EVENT: _arrival,
        Kind.ARRIVAL_ENTITIES: _entities,
        Kind.FLOW_ANCHOR: _anchor,
        Kind.AUTH_REQUEST: _auth,
        Kind.LABEL_ASSERTION: _label,
    }
)

# Which kinds a topic may carry, and the merge rank there.
RANKS: Mapping[str, int] = MappingProxyType(
    {topics.LABELS: RANK_LABEL, **{kind.topic: kind.rank for kind in INGRESS_TYPES.values()}}
)
