"""One payment becomes five events on the bus, all worlds' events in one event-time order. Pure."""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from fp_contracts.ids import framed
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins
from fp_contracts.timestamps import US_PER_S, to_text
from fp_wsp import world
from fp_wsp.world import Payment

PRODUCER = "wsp"
RANK_LABEL = 0
CHUNK_PAYMENTS = 512
VIRTUAL = frozenset({"ECOM", "MOTO", "TRANSFER"})
_US_PER_MINUTE = 60 * US_PER_S
TRACED = "00"  # one payment in 256 is traced: its flow id ends with these digits


class Part(NamedTuple):
    """One of the five events of a payment: its name, when it happens (µs from the payment) and its merge rank."""

    name: str
    event_type: str
    offset_us: int
    rank: int


PARTS = (
    Part(world.ARRIVAL_EVENT, "arrival_event", -world.FIRST_PART_LEAD_US, 1),
    Part(world.ARRIVAL_ENTITIES, "arrival_entities", -300_000, 2),
    Part(world.FLOW_ANCHOR, "flow_anchor", -200_000, 3),
    Part(world.AUTH_REQUEST, "traffic", 0, 4),
    Part(world.AUTH_RESPONSE, "traffic", world.LAST_PART_LAG_US, 4),
)
CONTEXT_PARTS = (0, 1, 2)
_new = tuple.__new__  # of a named tuple: a third of the cost of calling its class, for what is made once per line
_RESPONSE = 4
_RECIPE = tuple((number, part.offset_us, part.rank, framed(part.name)) for number, part in enumerate(PARTS))


class Flow(NamedTuple):
    """What the five events of a payment share; `lines` stays empty until one of their lines is asked for."""

    flow_id: str
    payment: Payment
    event_ids: list[str]
    lines: list[bytes]


class Event(NamedTuple):
    """One event before it is written. Compares by (ts_us, rank, event_id); event ids never tie."""

    ts_us: int
    rank: int
    event_id: str
    part: int
    lane: int
    flow: Flow

    @property
    def payment(self) -> Payment:
        """The payment that it is one of five events of."""
        return self.flow.payment


def expand(payment: Payment, of_world: str, lanes: int) -> list[Event]:
    """The five events of a payment; its lane is the ingress partition of its merchant."""
    lane, ts_us = partition_of(payment.merchant_id, lanes), payment.ts_us
    of_events, of_flow = _hashes(of_world)
    of_events, of_flow = of_events.copy(), of_flow.copy()
    framed_id = framed(payment.payment_id)
    of_events.update(framed_id)
    of_flow.update(framed_id)
    event_ids: list[str] = []
    flow = _new(Flow, (of_flow.hexdigest()[:32], payment, event_ids, []))
    events: list[Event] = []
    for number, offset_us, rank, framed_part in _RECIPE:
        of_event = of_events.copy()
        of_event.update(framed_part)
        event_id = of_event.hexdigest()[:32]
        event_ids.append(event_id)
        events.append(_new(Event, (ts_us + offset_us, rank, event_id, number, lane, flow)))
    return events


@lru_cache(maxsize=4)
def _hashes(of_world: str) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """What `world.event_id` and `world.flow_id` begin to hash; to be copied, never updated."""
    return hashlib.sha256(framed("event", of_world)), hashlib.sha256(framed("flow", of_world))


def merge(payments: Iterable[Payment], of_world: str, lanes: int) -> Iterator[list[Event]]:
    """All events in (ts_us, rank, event_id) order, by stretches. `payments` come by ts_us; memory holds one chunk.

    Sorts a chunk at once (cheaper than a heap) and gives out what no later payment can precede. Lists, since one frame
    per event and stage would cost more than what the stages do.
    """
    payments = iter(payments)
    waiting: list[Event] = []
    while chunk := list(islice(payments, CHUNK_PAYMENTS)):
        for payment in chunk:
            waiting += expand(payment, of_world, lanes)
        waiting.sort()
        ready = bisect_left(waiting, chunk[-1].ts_us - world.FIRST_PART_LEAD_US, key=itemgetter(0))
        yield waiting[:ready]
        waiting = waiting[ready:]
    yield waiting


def envelope_of(event: Event, pins: Pins) -> dict[str, Any]:
    """The envelope of an event (contracts.md §2), keys in canonical order; absent optional fields are left out."""
    flow, payment = event.flow.flow_id, event.payment
    return {
        "event_id": event.event_id,
        "event_type": PARTS[event.part].event_type,
        "manifest_fingerprint": pins.manifest_fingerprint,
        "payload": _PAYLOADS[event.part](payment, flow),
        "platform_run_id": pins.platform_run_id,
        "producer": PRODUCER,
        "run_config_digest": pins.run_config_digest,
        "scenario_run_id": pins.scenario_run_id,
        "schema_version": "v1",
        "traceparent": _traceparent(pins.platform_run_id, flow, event.event_id),
        "ts_utc": ts_text(event.ts_us),
    }


def line_of(event: Event, pins: Pins) -> bytes:
    """The event as one line of canonical JSON, without the newline. Keys are built in order, so nothing sorts here."""
    return orjson.dumps(envelope_of(event, pins))


def _arrival_event(payment: Payment, flow: str) -> dict[str, Any]:
    return _present(
        {
            "arrival_seq": payment.arrival_seq,
            "channel": payment.channel,
            "country": payment.country,
            "is_virtual": payment.channel in VIRTUAL,
            "mcc": payment.mcc,
            "merchant_id": payment.merchant_id,
            "terminal_id": payment.terminal_id,
            "tz": "UTC",
        }
    )


def _arrival_entities(payment: Payment, flow: str) -> dict[str, Any]:
    return _present(
        {
            "account_id": payment.account_id,
            "arrival_seq": payment.arrival_seq,
            "device_id": payment.device_id,
            "instrument_id": payment.instrument_id,
            "merchant_id": payment.merchant_id,
            "party_id": payment.account_id,
        }
    )


def _flow_anchor(payment: Payment, flow: str) -> dict[str, Any]:
    return {
        "account_id": payment.account_id,
        "amount_minor": payment.amount_minor,
        "arrival_seq": payment.arrival_seq,
        "currency": payment.currency,
        "flow_id": flow,
        "instrument_id": payment.instrument_id,
        "merchant_id": payment.merchant_id,
    }


def _auth_request(payment: Payment, flow: str) -> dict[str, Any]:
    return {
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "event_seq": 1,
        "flow_id": flow,
        "kind": world.AUTH_REQUEST,
        "merchant_id": payment.merchant_id,
    }


def _auth_response(payment: Payment, flow: str) -> dict[str, Any]:
    return _present(
        {
            "amount_minor": payment.amount_minor,
            "auth_result": payment.auth_result,
            "currency": payment.currency,
            "event_seq": 2,
            "flow_id": flow,
            "kind": world.AUTH_RESPONSE,
            "merchant_id": payment.merchant_id,
        }
    )


_PAYLOADS: tuple[Callable[[Payment, str], dict[str, Any]], ...] = (
    _arrival_event,
    _arrival_entities,
    _flow_anchor,
    _auth_request,
    _auth_response,
)


def _present(payload: dict[str, Any]) -> dict[str, Any]:
    if None not in payload.values():
        return payload
    return {name: value for name, value in payload.items() if value is not None}


def ts_text(us: int) -> str:
    """`to_text` with the minute cached: neighbours in event time share it."""
    minute, us = divmod(us, _US_PER_MINUTE)
    return f"{_minute_text(minute)}{us // US_PER_S:02d}.{us % US_PER_S:06d}Z"


@lru_cache(maxsize=1_024)
def _minute_text(minute: int) -> str:
    return to_text(minute * _US_PER_MINUTE)[:17]


def _traceparent(run: str, flow: str, of_event: str) -> str:
    """W3C trace context: one trace per payment and run, one span per event, one payment in 256 sampled."""
    flags = "01" if flow.endswith(TRACED) else "00"
    return f"{trace_start(run)}{flow[:16]}-{of_event[:16]}-{flags}"


@lru_cache(maxsize=16)
def trace_start(run: str) -> str:
    """What every traceparent of a run begins with."""
    return f"00-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
