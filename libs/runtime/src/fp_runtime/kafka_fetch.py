"""bus.Consumer that fetches when it is polled: one request for all partitions of a broker, in the thread that polls.

librdkafka hands every record over as an object of its own, through a thread and a queue, and asks the broker again as
soon as a few records are there. Here a response is read where it is needed, in one go (ADR 21).
"""

import select
import struct
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import aiokafka.errors as errors
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka import KafkaException

from fp_runtime import bus
from fp_runtime.bus import HEADER, TRACEPARENT, OffsetOutOfRange, Record, physical
from fp_runtime.errors import Unavailable
from fp_runtime.kafka_client import log
from fp_runtime.kafka_link import Link
from fp_runtime.kafka_offsets import Asking, Offsets
from fp_runtime.kafka_wire import Place, response

RETRY_S = 0.1
TELL_S = 10.0  # what keeps reading waiting for so long is told, and then again
MAX_RECORDS = 2_000
_MAX_BYTES = 1_048_576  # of one response as it is on the wire; a batch that is larger comes whole
_AGAIN = (
    errors.NotLeaderForPartitionError, errors.LeaderNotAvailableError, errors.UnknownTopicOrPartitionError,
    errors.ReplicaNotAvailableError, errors.RequestTimedOutError,
)  # fmt: skip
_as = tuple.__new__  # a named tuple without its Python-level constructor, once per record


class Patience(NamedTuple):
    """With how many bytes, or after how many ms, the broker answers."""

    min_bytes: int
    max_wait_ms: int


class FetchConsumer(Asking):
    """bus.Consumer on connections of its own and aiokafka's record parser; `offsets` does what is not reading.

    A request that waits at the broker stays under way between polls. Records lie in `_ready`, of which `_given` were
    handed out; `_next` is the offset behind them.
    """

    def __init__(self, client_id: str, offsets: Offsets, prefix: str, patience: Patience) -> None:
        self._client_id = client_id
        super().__init__(offsets)
        self._prefix = prefix
        self._patience = patience
        self._next: dict[Place, int] = {}
        self._paused: set[Place] = set()
        self._logical: dict[str, str] = {}
        self._ready: list[Record] = []
        self._given = 0
        self._leaders: Mapping[Place, tuple[str, int]] | None = None
        self._links: dict[tuple[str, int], Link] = {}
        self._again_at = 0.0
        self._tell_at = time.monotonic() + TELL_S

    def assign(self, starts: Mapping[bus.TopicPartition, int]) -> None:
        """See bus.Consumer."""
        if any(offset < 0 for offset in starts.values()):
            raise ValueError(f"negative start offset: {dict(starts)}")
        self._next = {self._place(tp): offset for tp, offset in starts.items()}
        self._logical = {physical(self._prefix, topic): topic for topic, _ in starts}
        self._paused.clear()
        self._ready, self._given = [], 0
        self._leaders = None
        self._offsets.assigned = frozenset(starts)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """See bus.Consumer; raises also Unavailable for a broker's refusal."""
        most = min(max_records, MAX_RECORDS)
        deadline = time.monotonic() + timeout_s
        while self._given >= len(self._ready):
            self._ready, self._given = [], 0
            self._ask(deadline)
            self._await(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                break
        taken = self._ready[self._given : self._given + most]
        self._given += len(taken)
        return taken

    def commit(self, offsets: Mapping[bus.TopicPartition, int]) -> None:
        """See bus.Consumer; a failure is logged, since nothing depends on it."""
        super().commit(offsets)
        self._offsets.serve()

    def pause(self, tps: Iterable[bus.TopicPartition]) -> None:
        """See bus.Consumer. What lies ready of these partitions is read again after `resume`."""
        paused = {self._place(tp) for tp in tps}
        self._paused |= paused
        kept = []
        for record in self._ready[self._given :]:
            place = self._place((record.topic, record.partition))
            if place in paused:
                self._next[place] = min(self._next[place], record.offset)
            else:
                kept.append(record)
        self._ready, self._given = kept, 0

    def resume(self, tps: Iterable[bus.TopicPartition]) -> None:
        """See bus.Consumer."""
        self._paused -= {self._place(tp) for tp in tps}

    def close(self) -> None:
        """See bus.Consumer."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._offsets.close()

    def _place(self, tp: bus.TopicPartition) -> Place:
        return physical(self._prefix, tp[0]), tp[1]

    def _ask(self, deadline: float) -> None:
        """A request to every broker that has none under way and leads a partition that is read."""
        if time.monotonic() < self._again_at:
            return
        for address, asked in self._wanted(deadline).items():
            try:
                link = self._links.get(address) or Link(*address, self._client_id)
                self._links[address] = link
                link.ask(asked, self._patience.max_wait_ms, self._patience.min_bytes, _MAX_BYTES)
            except OSError as error:
                self._lost(address, error)
        if len(self._next) > 1:  # who comes first in a request is served first: next time it is another
            first = next(iter(self._next))
            self._next[first] = self._next.pop(first)

    def _wanted(self, deadline: float) -> Mapping[tuple[str, int], Mapping[Place, int]]:
        """Address of a broker -> the offsets to ask it for."""
        busy = {address for address, link in self._links.items() if link.asked}
        leaders = self._known(deadline)
        wanted: dict[tuple[str, int], dict[Place, int]] = {}
        for place, offset in self._next.items():
            address = leaders.get(place)
            if address is None:
                self._stale(f"{place[0]}[{place[1]}] has no leader")
            elif place not in self._paused and address not in busy:
                wanted.setdefault(address, {})[place] = offset
        return wanted

    def _known(self, deadline: float) -> Mapping[Place, tuple[str, int]]:
        """The leaders of what is assigned, as far as any broker tells."""
        if self._leaders is None:
            try:
                self._leaders = self._offsets.leaders(max(RETRY_S, deadline - time.monotonic()))
            except KafkaException as error:
                self._stale(str(error))  # it is asked again; deadlines decide
                return {}
        return self._leaders

    def _stale(self, why: str) -> None:
        """Look for the leaders again, but not without a pause."""
        self._leaders = None
        self._again_at = (now := time.monotonic()) + RETRY_S
        if now >= self._tell_at:
            log.warning("reading waits: %s", why)
            self._tell_at = now + TELL_S

    def _lost(self, address: tuple[str, int], error: Exception) -> None:
        log.info("kafka client: %s", error)
        if (link := self._links.pop(address, None)) is not None:
            link.close()
        self._stale(str(error))

    def _await(self, timeout_s: float) -> None:
        """Take in the responses that come within this time, or the first of them."""
        waiting = {link.fileno(): (address, link) for address, link in self._links.items() if link.asked}
        if not waiting:
            time.sleep(min(RETRY_S, timeout_s))
            return
        asking = select.poll()
        for descriptor in waiting:
            asking.register(descriptor, select.POLLIN)
        failure: Exception | None = None
        for descriptor, _ in asking.poll(timeout_s * 1_000):
            address, link = waiting[descriptor]
            asked = link.asked
            try:
                frame = link.answer()
                if frame is not None:
                    failure = self._take(frame, asked) or failure
            except OSError as error:
                self._lost(address, error)
        for address, link in waiting.values():
            if link.late():
                self._lost(address, TimeoutError(f"no answer from {address}"))
        if failure is not None:
            raise failure

    def _take(self, frame: bytes, asked: Mapping[Place, int]) -> Exception | None:
        """Make the records of a response ready; what is wrong with a partition of it, when nothing can help."""
        try:
            told = [
                (asked[topic, partition], (topic, partition), code, batches)
                for topic, partition, code, batches in response(frame)
            ]
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise ConnectionResetError("the broker's answer is no response to what was asked") from error
        if self._leaders is not None and not any(code for _, _, code, _ in told):
            self._tell_at = time.monotonic() + TELL_S
        failure: Exception | None = None
        for offset, place, code, batches in told:
            if self._next.get(place) != offset or place in self._paused:
                continue  # assigned anew or paused since
            if code != 0:
                failure = self._refused(place, offset, errors.for_code(code)) or failure
            elif batches:
                failure = self._read(place, batches, offset) or failure
        return failure

    def _read(self, place: Place, raw: bytes, offset: int) -> Exception | None:
        """Make the records of one partition's batches ready, from `offset` on; when one is corrupt, none of them."""
        topic, partition = self._logical[place[0]], place[1]
        found: list[Record] = []
        batches, add = MemoryRecords(raw), found.append
        while batches.has_next():
            batch = batches.next_batch()
            if not batch.validate_crc():
                return Unavailable(f"{place[0]}[{partition}]: a batch behind offset {offset} is corrupt")
            for record in () if batch.is_control_batch else batch:
                at = record.offset
                if at < offset:
                    continue  # a batch comes whole
                header, trace = b"", None
                for name, value in record.headers:
                    if name == HEADER:
                        header = value
                    elif name == TRACEPARENT:
                        trace = value
                key, value = record.key, record.value or b""
                add(_as(Record, (topic, partition, at, key, value, header, trace, record.timestamp)))
            offset = max(offset, batch.next_offset)
        self._ready += found
        self._next[place] = offset
        return None

    def _refused(self, place: Place, offset: int, error: type[errors.BrokerResponseError]) -> Exception | None:
        """What an error of one partition means; None = ask again, elsewhere if the metadata say so."""
        where = f"{place[0]}[{place[1]}] offset {offset}"
        if error is errors.OffsetOutOfRangeError:
            return OffsetOutOfRange(f"{where}: the log does not hold it")
        if issubclass(error, _AGAIN):
            self._stale(f"{where}: {error.__name__}")
            return None
        return Unavailable(f"{where}: {error.__name__}")
