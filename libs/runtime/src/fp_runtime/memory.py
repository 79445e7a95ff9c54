"""The bus in memory: the behaviour of Kafka without a server, plus planned faults. Deterministic, thread-safe."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fp_contracts.topics import TOPICS, Topic
from fp_runtime.bus import (
    Delivery,
    Flight,
    OffsetOutOfRange,
    Out,
    PublishError,
    Record,
    TopicPartition,
    TopicState,
    raise_for,
    raw_limit,
)


class Fault(StrEnum):
    """What happens to the n-th record written to the bus."""

    ABORT = "ABORT"  # raises Aborted before the write, as a crash would
    LOST_ACK = "LOST_ACK"  # written, but the reply is lost: UNKNOWN
    LOST_REQUEST = "LOST_REQUEST"  # never written, and no reply either: UNKNOWN
    FAILED = "FAILED"  # definite local error, not written


class Aborted(Exception):
    """A planned crash: the process would be gone here."""


@dataclass
class _Log:
    begin: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.begin + len(self.records)


class MemoryBus:
    """All logs of one environment. Faults count every record offered to any producer of this bus, from 1."""

    def __init__(self, topics: Mapping[str, Topic] = TOPICS, clock_ms: Callable[[], int] = lambda: 0) -> None:
        self._topics = topics
        self._clock_ms = clock_ms
        self._logs: dict[TopicPartition, _Log] = {}
        self._commits: dict[str, dict[TopicPartition, int]] = {}
        self._faults: dict[int, Fault] = {}
        self._offered = 0
        self._written = threading.Condition(threading.RLock())

    def plan(self, fault: Fault, nth: int = 1) -> None:
        """Let `fault` happen to the `nth` record offered from now on (1 = the next)."""
        with self._written:
            self._faults[self._offered + nth] = fault

    def consumer(self, group: str) -> "MemoryConsumer":
        """A consumer as kafka.open_consumer would make it."""
        return MemoryConsumer(self, group)

    def producer(self) -> "MemoryProducer":
        """A producer as kafka.open_producer would make it."""
        return MemoryProducer(self)

    def admin(self) -> "MemoryAdmin":
        """An admin as kafka.open_admin would make it."""
        return MemoryAdmin(self)

    def create(self, names: Iterable[str]) -> None:
        """Make empty logs for these topics; those that exist stay."""
        with self._written:
            for name in names:
                for partition in range(self._topics[name].partitions):
                    self._logs.setdefault((name, partition), _Log())

    def describe(self) -> dict[str, TopicState]:
        """State of the topics created so far."""
        with self._written:
            names = {topic for topic, _ in self._logs}
        return {
            name: TopicState(topic.partitions, topic.retention_ms, topic.max_message_bytes)
            for name, topic in self._topics.items()
            if name in names
        }

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop records below an offset, as retention does."""
        with self._written:
            log = self._logs[topic, partition]
            del log.records[: max(0, before - log.begin)]
            log.begin = max(log.begin, before)

    def span(self, tp: TopicPartition) -> tuple[int, int]:
        """The first offset that is there and the next one to be written."""
        with self._written:
            log = self._logs[tp]
            return log.begin, log.end

    def read(self, tp: TopicPartition, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset`; raises OffsetOutOfRange."""
        with self._written:
            log = self._logs[tp]
            if not log.begin <= offset <= log.end:
                raise OffsetOutOfRange(f"{tp[0]}[{tp[1]}] offset {offset}: the log holds [{log.begin}, {log.end})")
            at = offset - log.begin
            return log.records[at : at + limit]

    def lookup(self, topic: str, partition: int, from_offset: int, match: Callable[[Record], bool]) -> Record | None:
        """See kafka.lookup."""
        with self._written:
            end = self.span((topic, partition))[1]
            records = self.read((topic, partition), from_offset, end)
        return next((record for record in records if match(record)), None)

    def wait(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Sleep until `ready` or the timeout; woken by every write."""
        with self._written:
            self._written.wait_for(ready, timeout_s)

    def write(self, out: Out) -> Delivery:
        """Append one record, or let its planned fault happen; raises Aborted."""
        with self._written:
            self._offered += 1
            fault = self._faults.pop(self._offered, None)
            if fault is Fault.ABORT:
                raise Aborted(f"record {self._offered}")
            if fault is Fault.LOST_REQUEST:
                return Delivery(None, PublishError.UNKNOWN, fault)
            log = self._logs.get((out.topic, out.partition))
            if (
                fault is Fault.FAILED
                or log is None
                or len(out.key) + len(out.value) + len(out.header) > raw_limit(out.topic)
            ):
                return Delivery(None, PublishError.FAILED, fault or "no such partition, or the record is too large")
            offset = log.end
            now_ms = self._clock_ms()
            log.records.append(
                Record(out.topic, out.partition, offset, out.key, out.value, out.header, out.traceparent, now_ms)
            )
            self._written.notify_all()
            return Delivery(None, PublishError.UNKNOWN, fault) if fault else Delivery(offset)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember the committed offsets of a group."""
        with self._written:
            self._commits.setdefault(group, {}).update(offsets)

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that a group last committed."""
        with self._written:
            return dict(self._commits.get(group, {}))


class MemoryConsumer:
    """Consumer of a MemoryBus; takes partitions in turn, so none starves."""

    def __init__(self, bus: MemoryBus, group: str) -> None:
        self._bus = bus
        self._group = group
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._turn = 0

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """See bus.Consumer."""
        if any(offset < 0 for offset in starts.values()):
            raise ValueError(f"negative start offset: {dict(starts)}")
        self._positions = dict(starts)
        self._paused.clear()

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """See bus.Consumer; with timeout 0 it never waits."""
        records = self._take(max_records)
        if not records and timeout_s > 0:
            self._bus.wait(self._has_some, timeout_s)
            records = self._take(max_records)
        return records

    def _active(self) -> list[TopicPartition]:
        return [tp for tp in self._positions if tp not in self._paused]

    def _has_some(self) -> bool:
        return any(self._bus.read(tp, self._positions[tp], 1) for tp in self._active())

    def _take(self, max_records: int) -> list[Record]:
        active = self._active()
        self._turn += 1
        taken: list[Record] = []
        for index in range(len(active)):
            tp = active[(self._turn + index) % len(active)]
            found = self._bus.read(tp, self._positions[tp], max_records - len(taken))
            self._positions[tp] += len(found)
            taken += found
        return taken

    def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See bus.Consumer."""
        return {tp: self._bus.span(tp)[1] for tp in tps}

    def begins(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See bus.Consumer."""
        return {tp: self._bus.span(tp)[0] for tp in tps}

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See bus.Consumer."""
        foreign = offsets.keys() - self._positions.keys()
        if foreign:
            raise ValueError(f"not assigned: {sorted(foreign)}")
        self._bus.commit(self._group, offsets)

    def pause(self, tps: Iterable[TopicPartition]) -> None:
        """See bus.Consumer."""
        self._paused.update(tps)

    def resume(self, tps: Iterable[TopicPartition]) -> None:
        """See bus.Consumer."""
        self._paused.difference_update(tps)

    def close(self) -> None:
        """See bus.Consumer."""
        self._positions = {}


class MemoryProducer:
    """Producer of a MemoryBus; reports of `send` wait for the next call, as Kafka's do."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._reports: list[tuple[Callable[[int | None, str | None], None], Delivery]] = []
        self._errors: list[Delivery] = []

    def publish(self, outs: Sequence[Out], timeout_s: float | None = None) -> list[Delivery]:
        """See bus.Producer."""
        return self.begin(outs, timeout_s).deliveries()

    def begin(self, outs: Sequence[Out], timeout_s: float | None = None) -> Flight:
        """See bus.Producer; what is written has its report at once."""
        self._serve()
        return Flight([self._bus.write(out) for out in outs])

    def send(self, out: Out, on_delivered: Callable[[int | None, str | None], None] | None = None) -> None:
        """See bus.Producer."""
        self._serve()
        delivery = self._bus.write(out)
        if on_delivered is not None:
            self._reports.append((on_delivered, delivery))
        elif delivery.error is not None:
            self._errors.append(delivery)

    def send_all(self, outs: Sequence[Out]) -> None:
        """See bus.Producer."""
        for out in outs:
            self.send(out)

    def flush(self, timeout_s: float) -> None:
        """See bus.Producer."""
        self._serve()
        errors, self._errors = self._errors, []
        raise_for(errors)

    def _serve(self) -> None:
        reports, self._reports = self._reports, []
        for on_delivered, delivery in reports:
            on_delivered(delivery.offset, delivery.error)

    def close(self) -> None:
        """See bus.Producer."""
        self._serve()


class MemoryAdmin:
    """Admin of a MemoryBus."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    def create_topics(self, names: Iterable[str] | None = None) -> None:
        """See bus.Admin."""
        self._bus.create(TOPICS if names is None else names)

    def describe(self) -> dict[str, TopicState]:
        """See bus.Admin."""
        return self._bus.describe()

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """See bus.Admin."""
        return self._bus.committed(group)

    def close(self) -> None:
        """See bus.Admin."""
