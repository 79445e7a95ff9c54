"""The bus on Kafka through confluent-kafka: manual assignment only, one thread per consumer, explicit partitions."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka import Producer as ProducerClient

from fp_contracts.topics import pinned
from fp_runtime import bus
from fp_runtime.bus import HEADER, TRACEPARENT, FetchProfile, OffsetOutOfRange, Record, physical
from fp_runtime.errors import Unavailable
from fp_runtime.kafka_admin import KafkaAdmin
from fp_runtime.kafka_client import FETCH, FatalWatch, admin_options, consumer_options, log, producer_options
from fp_runtime.kafka_fetch import MAX_RECORDS, FetchConsumer, Patience
from fp_runtime.kafka_offsets import Asking, Offsets
from fp_runtime.kafka_producer import KafkaProducer
from fp_runtime.settings import RuntimeSettings

_GATHER_S = {FetchProfile.LOW_LATENCY: 0.003, FetchProfile.GATHERED: 0.1}
_as = tuple.__new__  # a named tuple without its Python-level constructor, once per record


def open_consumer(
    settings: RuntimeSettings, group: str, *, fetch: FetchProfile = FetchProfile.LOW_LATENCY
) -> bus.Consumer:
    """A consumer without an assignment; `group` names its committed offsets.

    What reads much fetches for itself (ADR 21). On MSK librdkafka reads everything: our way has no login there.
    """
    fatal, gather_s = FatalWatch(), _GATHER_S.get(fetch, 0.0)
    options = consumer_options(settings, group, fetch) | {"error_cb": fatal.see, "on_commit": _log_failed_commit}
    client = Client(options)
    if settings.profile == "dev_full" or fetch is FetchProfile.CONTROL:
        return KafkaConsumer(client, settings.topic_prefix, fatal, gather_s)
    offsets = Offsets(client, settings.topic_prefix)
    return FetchConsumer(settings.instance, offsets, settings.topic_prefix, Patience(*FETCH[fetch]))


def open_producer(settings: RuntimeSettings, *, linger_ms: int = 1, delivery_timeout_s: float = 30.0) -> KafkaProducer:
    """An idempotent producer that gives up on a record, as UNKNOWN, after `delivery_timeout_s`."""
    fatal = FatalWatch()
    options = producer_options(settings, linger_ms, delivery_timeout_s) | {"error_cb": fatal.see}
    return KafkaProducer(ProducerClient(options), settings.topic_prefix, fatal, delivery_timeout_s)


def open_admin(settings: RuntimeSettings) -> KafkaAdmin:
    """An admin of the profile's topics; on MSK it creates at most two per second."""
    calls_per_s = 2.0 if settings.profile == "dev_full" else None
    return KafkaAdmin(admin_options(settings), settings.topic_prefix, pinned(settings.profile), calls_per_s)


def lookup(
    settings: RuntimeSettings,
    topic: str,
    partition: int,
    from_offset: int,
    match: Callable[[Record], bool],
    timeout_s: float = 30.0,
) -> Record | None:
    """The first record that matches between `from_offset` and the end as of now; raises OffsetOutOfRange, Unavailable.

    None means: not on the topic up to that end. What a stopped broker still holds in its sockets can follow.
    """
    tp = (topic, partition)
    deadline = time.monotonic() + timeout_s
    consumer = open_consumer(settings, "fp.lookup", fetch=FetchProfile.CONTROL)
    try:
        end = consumer.ends([tp])[tp]
        if from_offset > end:
            raise OffsetOutOfRange(f"{topic}[{partition}] offset {from_offset}: the log ends at {end}")
        consumer.assign({tp: from_offset})
        position = from_offset
        while position < end:
            records = consumer.poll(MAX_RECORDS, 0.1)
            for record in records:
                if record.offset >= end:
                    return None
                if match(record):
                    return record
                position = record.offset + 1
            if not records and time.monotonic() > deadline:
                raise Unavailable(f"{topic}[{partition}] not read to {end} within {timeout_s:g} s, only to {position}")
        return None
    finally:
        consumer.close()


def _log_failed_commit(error: KafkaError | None, _offsets: list[TopicPartition]) -> None:
    if error is not None:
        log.warning("commit for lag tools failed: %s", error)


class KafkaConsumer(Asking):
    """bus.Consumer on Kafka. A poll that is not full waits `gather_s` behind its first record."""

    def __init__(
        self,
        client: Client,
        prefix: str,
        fatal: FatalWatch,
        gather_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        super().__init__(Offsets(client, prefix))
        self._prefix = prefix
        self._fatal = fatal
        self._gather_s = gather_s
        self._sleep = sleep
        self._logical: dict[str, str] = {}

    def assign(self, starts: Mapping[bus.TopicPartition, int]) -> None:
        """See bus.Consumer."""
        if any(offset < 0 for offset in starts.values()):
            raise ValueError(f"negative start offset: {dict(starts)}")
        self._logical = {physical(self._prefix, topic): topic for topic, _ in starts}
        self._offsets.assigned = frozenset(starts)
        self._client.assign([self._offsets.native(tp, offset) for tp, offset in starts.items()])
        # The client keeps a pause over a new assignment of the same partition: nothing would ever come of it.
        self._client.resume([self._offsets.native(tp) for tp in starts])

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """See bus.Consumer; raises also Unavailable for a broker's refusal and BusBroken."""
        self._fatal.check()
        first = self._client.poll(timeout_s)
        if first is None:
            return []
        most = min(max_records, MAX_RECORDS)
        messages = [first, *self._more(most - 1)]
        if len(messages) < most and self._gather_s:
            self._sleep(self._gather_s)
            messages += self._more(most - len(messages))
        return _records(messages, self._logical)

    def _more(self, at_most: int) -> list[Any]:
        """What the client holds already."""
        return self._client.consume(at_most, 0) if at_most > 0 else []

    def pause(self, tps: Iterable[bus.TopicPartition]) -> None:
        """See bus.Consumer."""
        self._client.pause([self._offsets.native(tp) for tp in tps])

    def resume(self, tps: Iterable[bus.TopicPartition]) -> None:
        """See bus.Consumer."""
        self._client.resume([self._offsets.native(tp) for tp in tps])

    def close(self) -> None:
        """See bus.Consumer."""
        self._client.close()


# The client's types say that any field may be None, which holds for hand-made messages only: hence Any.
def _records(messages: list[Any], logical: Mapping[str, str]) -> list[Record]:
    records = []
    for message in messages:
        if message.error() is not None:
            raise _read_error(message)
        header, traceparent = b"", None
        for name, value in message.headers() or ():
            if name == HEADER:
                header = value
            elif name == TRACEPARENT:
                traceparent = value
        topic, key, value = logical[message.topic()], message.key(), message.value() or b""
        at_ms = message.timestamp()[1]
        place = topic, message.partition(), message.offset()
        records.append(_as(Record, (*place, key, value, header, traceparent, at_ms)))
    return records


def _read_error(message: Any) -> Exception:
    error = message.error()
    where = f"{message.topic()}[{message.partition()}] offset {message.offset()}"
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        return OffsetOutOfRange(f"{where}: {error.str()}")
    return Unavailable(f"{where}: {error}")
