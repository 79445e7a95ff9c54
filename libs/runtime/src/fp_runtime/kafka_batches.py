"""Records of one round as Kafka batches, one per topic-partition, and what their answers say of each record."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from fp_runtime.bus import HEADER, TRACEPARENT, Delivery, Out, PublishError

NO_REPORT = Delivery(None, PublishError.UNKNOWN, "no report by the deadline")
TOO_LARGE = Delivery(None, PublishError.FAILED, "the record is larger than its topic allows")
_NO_OFFSET = Delivery(None, PublishError.UNKNOWN, "written twice, and the broker has forgotten where")
_DEFINITE = (
    MessageSizeTooLargeError, RecordListTooLargeError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError,
)  # fmt: skip
Route = Mapping[str, tuple[str, int]]
_new = tuple.__new__  # a named tuple without its Python-level constructor, once per record


@dataclass(slots=True, eq=False)
class Entry:
    """Records given at once, with their deliveries so far; `after` is called with them when all are known."""

    outs: Sequence[Out]
    deliveries: list[Delivery]
    after: Callable[[Sequence[Delivery]], None] | None = None
    at_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    done: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """Records of one topic-partition in their order. `places`: whose delivery each of them is."""

    topic: str
    partition: int
    builder: BatchBuilder
    places: list[tuple[list[Delivery], int]] = field(default_factory=list)

    def settle(self, delivery: Delivery) -> None:
        """The same for all records."""
        for deliveries, index in self.places:
            deliveries[index] = delivery

    def acknowledged(self, base: int) -> None:
        """All are written, the first one at offset `base`; -1 = nobody knows where."""
        if base < 0:
            self.settle(_NO_OFFSET)
            return
        for offset, (deliveries, index) in enumerate(self.places, base):
            deliveries[index] = _new(Delivery, (offset, None, ""))


def batches_of(client: AIOKafkaProducer, entries: Sequence[Entry], route: Route) -> list[Batch]:
    """The records as batches, those of a topic-partition in order; one that is too large has its delivery at once."""
    open_: dict[tuple[str, int], Batch] = {}
    made: list[Batch] = []
    for entry in entries:
        deliveries, at_ms = entry.deliveries, entry.at_ms
        for index, (topic, partition, key, value, header, traceparent) in enumerate(entry.outs):
            name, limit = route[topic]
            if len(key) + len(value) + len(header) > limit:
                deliveries[index] = TOO_LARGE
                continue
            headers = [(HEADER, header)] if traceparent is None else [(HEADER, header), (TRACEPARENT, traceparent)]
            batch = open_.get((topic, partition))
            if batch is None or not batch.builder.append(timestamp=at_ms, key=key, value=value, headers=headers):
                batch = open_[topic, partition] = Batch(name, partition, client.create_batch())
                made.append(batch)
                batch.builder.append(timestamp=at_ms, key=key, value=value, headers=headers)
            batch.places.append((deliveries, index))
    return made


def failure(error: BaseException) -> Delivery:
    """What an error of the client says of the records that met it."""
    kind = PublishError.FAILED if isinstance(error, _DEFINITE) else PublishError.UNKNOWN
    return Delivery(None, kind, f"{type(error).__name__}: {error}")
