"""bus.Producer on Kafka: idempotent, acks=all, and every report is UNKNOWN unless it is certain."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from fp_contracts.topics import TOPICS
from fp_runtime.bus import (
    HEADER,
    TRACEPARENT,
    BusBroken,
    Delivery,
    Flight,
    Out,
    PublishError,
    physical,
    raise_for,
    raw_limit,
)
from fp_runtime.kafka_client import FatalWatch, log

CLOSE_TIMEOUT_S = 5.0
_GRACE_S = 5.0  # the client reports a timed-out record within about a second of its timeout
_PURGE_S = 1.0
_TOO_LARGE = Delivery(None, PublishError.FAILED, "the record is larger than its topic allows")
_QUEUE_FULL = Delivery(None, PublishError.FAILED, "the local queue stayed full")
_NO_REPORT = Delivery(None, PublishError.UNKNOWN, "no report by the deadline")

Report = Callable[[KafkaError | None, Message], None]

# A report with one of these says that no attempt can have been written; any other leaves it open.
_DEFINITE = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)


def _failed(error: KafkaError) -> Delivery:
    kind = PublishError.FAILED if error.code() in _DEFINITE else PublishError.UNKNOWN
    return Delivery(None, kind, str(error))


class KafkaProducer:
    """bus.Producer on Kafka. Several threads may use one; a publish that misses its deadline purges them all."""

    def __init__(self, client: Client, prefix: str, fatal: FatalWatch, delivery_timeout_s: float) -> None:
        self._client = client
        self._fatal = fatal
        self._timeout_s = delivery_timeout_s
        self._route = {topic: (physical(prefix, topic), raw_limit(topic)) for topic in TOPICS}
        self._sent_errors: list[Delivery] = []

    def publish(self, outs: Sequence[Out], timeout_s: float | None = None) -> list[Delivery]:
        """See bus.Producer."""
        return self.begin(outs, timeout_s).deliveries()

    def begin(self, outs: Sequence[Out], timeout_s: float | None = None) -> Flight:
        """See bus.Producer."""
        self._fatal.check()
        deadline = time.monotonic() + (self._timeout_s + _GRACE_S if timeout_s is None else timeout_s)
        deliveries = [_NO_REPORT] * len(outs)

        def report(index: int, error: KafkaError | None, message: Message) -> None:
            deliveries[index] = Delivery(message.offset()) if error is None else _failed(error)

        for index, out in enumerate(outs):
            refused = self._produce(out, partial(report, index), deadline)
            if refused is not None:
                deliveries[index] = refused
        self._client.poll(0)
        return Flight(deliveries, partial(self._settle, deliveries, deadline))

    def _settle(self, deliveries: list[Delivery], deadline: float) -> None:
        self._await(deliveries, deadline)
        self._fatal.check()

    def _await(self, deliveries: list[Delivery], deadline: float) -> None:
        while any(delivery is _NO_REPORT for delivery in deliveries):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._client.purge()  # nothing of this publish may be written long after it was called UNKNOWN
                self._client.flush(_PURGE_S)
                return
            self._client.flush(left_s)

    def send_all(self, outs: Sequence[Out]) -> None:
        """See bus.Producer."""
        self._fatal.check()
        note, deadline = self._note, time.monotonic() + self._timeout_s
        for out in outs:
            refused = self._produce(out, note, deadline)
            if refused is not None:
                self._sent_errors.append(refused)
        self._client.poll(0)

    def send(self, out: Out, on_delivered: Callable[[int | None, str | None], None] | None = None) -> None:
        """See bus.Producer."""
        self._fatal.check()
        report = self._note if on_delivered is None else partial(_tell, on_delivered)
        refused = self._produce(out, report, time.monotonic() + self._timeout_s)
        if refused is not None and on_delivered is None:
            self._sent_errors.append(refused)
        elif refused is not None and on_delivered is not None:
            on_delivered(None, refused.error)
        self._client.poll(0)

    def _note(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._sent_errors.append(_failed(error))

    def flush(self, timeout_s: float) -> None:
        """See bus.Producer."""
        unreported = self._client.flush(timeout_s)
        self._fatal.check()
        errors, self._sent_errors = self._sent_errors, []
        raise_for(errors, unreported)

    def close(self) -> None:
        """See bus.Producer; what has no report by then is given up and logged."""
        unreported = self._client.flush(CLOSE_TIMEOUT_S)
        if unreported:
            log.error("closing with %d records without a report", unreported)
            self._client.purge()
            self._client.flush(_PURGE_S)
        self._client.close()

    def _produce(self, out: Out, report: Report, deadline: float) -> Delivery | None:
        """Queue one record; a Delivery when it was refused on the spot. A full queue is waited for."""
        topic, partition, key, value, header, traceparent = out
        name, limit = self._route[topic]
        if len(key) + len(value) + len(header) > limit:
            return _TOO_LARGE
        headers: list[tuple[str, str | bytes | None]] = [(HEADER, header)]
        if traceparent is not None:
            headers.append((TRACEPARENT, traceparent))
        while True:
            try:
                self._client.produce(name, value, key, partition, report, headers=headers)
            except BufferError:
                if time.monotonic() >= deadline:
                    return _QUEUE_FULL
                self._client.poll(0.02)
            except KafkaException as refusal:
                error = refusal.args[0]
                if error.fatal():
                    raise BusBroken(str(error)) from refusal
                return Delivery(None, PublishError.FAILED, str(error))
            else:
                return None


def _tell(on_delivered: Callable[[int | None, str | None], None], error: KafkaError | None, message: Message) -> None:
    if error is None:
        on_delivered(message.offset(), None)
    else:
        on_delivered(None, _failed(error).error)
