"""Writing the bundle registry: journal by compare-and-set, publish, record the offset, read back; safe to repeat.

The journal is the order of a slot. An event is decided on the fold of everything journaled before it, and what has no
recorded offset is published again first, so the topic's order is the journal's.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

from fp_contracts import topics
from fp_contracts.canonical import sha256_hex
from fp_contracts.partition import partition_of
from fp_contracts.records import Pins, body_of
from fp_contracts.registry import (
    BundleApproved,
    BundleChallengerNamed,
    BundleChallengerWithdrawn,
    BundlePromotedActive,
    BundleRolledBack,
    RegistryPayload,
    read_registry,
    registry_event_id,
)
from fp_contracts.resolution import Registry, challenger_faults, fold, promotion_faults
from fp_runtime.bus import Consumer, Out, Producer
from fp_runtime.errors import Unavailable
from fp_runtime.readback import read_back

PARTITIONS = topics.TOPICS[topics.REGISTRY_EVENTS].partitions


class Stored(NamedTuple):
    """One journaled event: its place in the slot and its exact record."""

    n: int
    event_id: str
    body: bytes


class Place(NamedTuple):
    """Where the broker acknowledged an event."""

    partition: int
    offset: int


class RegistryTable(Protocol):
    """The journal of registry events, insert-only."""

    def rows(self, slot: str) -> Sequence[Stored]:
        """Every event of a slot, by n."""
        ...

    def insert(self, row: Stored, event: RegistryPayload) -> bool:
        """Take place n; False when it, the event id or the scope's revision is taken."""
        ...

    def places(self, slot: str) -> Mapping[str, Place]:
        """Event id to where it was acknowledged."""
        ...

    def note_place(self, event_id: str, place: Place) -> None:
        """Record an acknowledgement; the first one stands."""
        ...


class Receipt(NamedTuple):
    """An event that counts: as journaled, acknowledged, and read back from there (`equal`: byte for byte)."""

    event: RegistryPayload
    place: Place
    sha256: str
    equal: bool

    def document(self) -> dict[str, object]:
        """For evidence."""
        where = {"topic": topics.REGISTRY_EVENTS, "partition": self.place.partition, "offset": self.place.offset}
        payload = self.event.model_dump(mode="json")
        return {"event": payload, "acknowledged": where, "sha256": self.sha256, "read_back_equal": self.equal}


class RegistryDesk:
    """The corridor's hand on the registry. One thread; several processes are told apart by the journal."""

    def __init__(
        self, table: RegistryTable, producer: Producer, open_reader: Callable[[], Consumer], name: str,
        now_us: Callable[[], int],
    ) -> None:  # fmt: skip
        self._table = table
        self._producer = producer
        self._open_reader = open_reader
        self._name = name
        self._now_us = now_us
        self._receipts: dict[str, Receipt] = {}

    def registry(self, slot: str) -> Registry:
        """The fold of the journal."""
        return folded([row.body for row in self._table.rows(slot)])

    def registry_on_topic(self, slot: str) -> Registry:
        """The fold of the topic, as a process that has just started would read it."""
        place = (topics.REGISTRY_EVENTS, partition_of(slot, PARTITIONS))
        with closing(self._open_reader()) as reader:
            records = list(read_back(reader, reader.begins([place])))
        return folded([record.value for record in records if record.key == slot.encode()])

    def write(self, pins: Pins, event: RegistryPayload) -> Receipt | tuple[str, ...]:
        """Let an event count, or say why it may not. Repeating a written event gives its receipt."""
        slot, event_id = event.scope.bundle_slot, registry_event_id(event)
        rows = self._table.rows(slot)
        known = next((row for row in rows if row.event_id == event_id), None)
        if known is not None:
            standing = read_registry(known.body)[1]
            return self.receipt(slot, standing) if same(standing, event) else _taken(event)
        faults = _faults(folded([row.body for row in rows]), event)
        if faults:
            return faults
        body = body_of(pins, event.type, event_id, self._now_us(), self._name, event)
        if not self._table.insert(Stored(len(rows) + 1, event_id, body), event):
            return _taken(event)
        return self.receipt(slot, event)

    def receipt(self, slot: str, event: RegistryPayload) -> Receipt:
        """Publish what is journaled and not acknowledged, then read the event back. Unavailable when the bus is not."""
        event_id = registry_event_id(event)
        if event_id not in self._receipts:
            rows, places = self._table.rows(slot), dict(self._table.places(slot))
            for row in rows:
                if row.event_id not in places:
                    places[row.event_id] = self._publish(slot, row)
            row = next(row for row in rows if row.event_id == event_id)
            self._receipts[event_id] = self._read_back(row, places[event_id])
        return self._receipts[event_id]

    def _publish(self, slot: str, row: Stored) -> Place:
        partition = partition_of(slot, PARTITIONS)
        (delivery,) = self._producer.publish([Out(topics.REGISTRY_EVENTS, partition, slot.encode(), row.body, b"")])
        if delivery.offset is None:
            raise Unavailable(f"registry event not acknowledged: {delivery.error} {delivery.reason}")
        place = Place(partition, delivery.offset)
        self._table.note_place(row.event_id, place)
        return place

    def _read_back(self, row: Stored, place: Place) -> Receipt:
        with closing(self._open_reader()) as reader:
            found = next(read_back(reader, {(topics.REGISTRY_EVENTS, place.partition): place.offset}), None)
        equal = found is not None and found.offset == place.offset and found.value == row.body
        return Receipt(read_registry(row.body)[1], place, sha256_hex(row.body), equal)


def folded(bodies: Sequence[bytes]) -> Registry:
    """The registry that these records make, in their order."""
    registry = Registry()
    for body in bodies:
        registry = fold(registry, read_registry(body)[1])
    return registry


def same(one: RegistryPayload, other: RegistryPayload) -> bool:
    """Whether two events say the same, whenever they were made."""
    return one.model_dump(exclude={"at_us"}) == other.model_dump(exclude={"at_us"})


def _faults(registry: Registry, event: RegistryPayload) -> tuple[str, ...]:
    if isinstance(event, BundlePromotedActive | BundleRolledBack):
        return promotion_faults(registry, event)
    if isinstance(event, BundleChallengerNamed | BundleChallengerWithdrawn):
        return challenger_faults(registry, event)
    if isinstance(event, BundleApproved) and event.actor == event.requester:
        return ("approved by its requester",)
    return ()


def _taken(event: RegistryPayload) -> tuple[str, ...]:
    return (f"{event.type}: another writer came first",)
