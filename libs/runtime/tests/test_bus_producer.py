"""How the Kafka producer reads the client's answers, on a hand-made client that answers as told."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from fp_contracts.topics import RTDL, TOPICS
from fp_runtime.bus import BusBroken, Delivery, Out, PublishError, PublishFailed, PublishUnknown
from fp_runtime.kafka_client import FatalWatch
from fp_runtime.kafka_producer import KafkaProducer

Report = Callable[[KafkaError | None, Any], None]


class Written:
    """The message of a report."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


class Client:
    """A librdkafka producer whose n-th record meets `answers[n]`: an error, an exception to raise, or silence."""

    def __init__(
        self, answers: dict[int, KafkaError | Exception | None], room: int = 1_000, stuck: bool = False
    ) -> None:
        self.answers = answers
        self.room = room
        self.stuck = stuck
        self.queue: list[tuple[int, Report]] = []
        self.topics: list[str] = []
        self.purged = 0
        self._count = 0

    def produce(
        self, topic: str, value: bytes, key: bytes, partition: int, report: Report, headers: list[tuple[str, bytes]]
    ) -> None:
        if len(self.queue) >= self.room:
            raise BufferError("Local: Queue full")
        answer = self.answers.get(self._count)
        if isinstance(answer, Exception):
            self._count += 1
            raise answer
        self.topics.append(topic)
        self.queue.append((self._count, report))
        self._count += 1

    def poll(self, timeout_s: float) -> int:
        return 0 if self.stuck else self.flush(timeout_s)

    def flush(self, timeout_s: float) -> int:
        silent = [(number, report) for number, report in self.queue if self.answers.get(number, 0) is None]
        for number, report in self.queue:
            if (number, report) not in silent:
                error = self.answers.get(number)
                report(error if isinstance(error, KafkaError) else None, Written(100 + number))
        self.queue = silent
        return len(silent)

    def purge(self) -> None:
        self.purged += 1
        for number, _ in self.queue:
            self.answers[number] = KafkaError(KafkaError._PURGE_INFLIGHT)

    def close(self) -> None:
        self.queue = []


def _producer(client: Client, fatal: FatalWatch | None = None) -> KafkaProducer:
    return KafkaProducer(client, "p.", fatal or FatalWatch(), 0.05)  # type: ignore[arg-type]


def _outs(count: int) -> list[Out]:
    return [Out(RTDL, 0, b"k", b"%d" % number, b"h") for number in range(count)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._MSG_TIMED_OUT, PublishError.UNKNOWN),
        (KafkaError._PURGE_INFLIGHT, PublishError.UNKNOWN),
        (KafkaError._PURGE_QUEUE, PublishError.UNKNOWN),  # it may be queued again after an attempt without a reply
        (KafkaError.REQUEST_TIMED_OUT, PublishError.UNKNOWN),
        (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, PublishError.UNKNOWN),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, PublishError.UNKNOWN),
        (KafkaError.MSG_SIZE_TOO_LARGE, PublishError.FAILED),
        (KafkaError._UNKNOWN_PARTITION, PublishError.FAILED),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, PublishError.FAILED),
    ],
)
def test_only_a_certain_refusal_counts_as_failed(code: int, kind: PublishError) -> None:
    deliveries = _producer(Client({1: KafkaError(code)})).publish(_outs(3))
    assert [(delivery.offset, delivery.error) for delivery in deliveries] == [(100, None), (None, kind), (102, None)]


def test_a_refusal_on_the_spot_is_failed_and_keeps_the_order() -> None:
    refusal = KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
    deliveries = _producer(Client({0: refusal})).publish(_outs(2))
    assert [delivery.error for delivery in deliveries] == [PublishError.FAILED, None]


def test_what_has_no_report_at_the_deadline_is_unknown_and_given_up() -> None:
    client = Client({1: None})
    deliveries = _producer(client).publish(_outs(3), timeout_s=0.05)
    assert [delivery.error for delivery in deliveries] == [None, PublishError.UNKNOWN, None]
    assert client.purged == 1
    assert client.queue == []


def test_a_queue_that_stays_full_is_a_definite_failure() -> None:
    deliveries = _producer(Client({}, room=2, stuck=True)).publish(_outs(3), timeout_s=0.05)
    assert [delivery.error for delivery in deliveries] == [
        PublishError.UNKNOWN,
        PublishError.UNKNOWN,
        PublishError.FAILED,
    ]


def test_a_full_queue_is_waited_for() -> None:
    assert _producer(Client({}, room=2)).publish(_outs(5)) == [Delivery(100 + number) for number in range(5)]


def test_a_fatal_error_breaks_the_producer_for_good() -> None:
    fatal = FatalWatch()
    producer = _producer(Client({}), fatal)
    fatal.see(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
    with pytest.raises(BusBroken, match="fenced"):
        producer.publish(_outs(1))
    with pytest.raises(BusBroken):
        producer.send(_outs(1)[0])
    with pytest.raises(BusBroken):
        producer.flush(1)


def test_a_fatal_refusal_on_the_spot_breaks_the_producer() -> None:
    refusal = KafkaException(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
    with pytest.raises(BusBroken, match="fenced"):
        _producer(Client({0: refusal})).publish(_outs(1))


def test_a_passing_client_error_breaks_nothing() -> None:
    fatal = FatalWatch()
    fatal.see(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert _producer(Client({}), fatal).publish(_outs(1)) == [Delivery(100)]


def test_the_prefix_is_applied_once_and_the_size_is_checked_before_the_client() -> None:
    client = Client({})
    large = Out(RTDL, 0, b"k", bytes(TOPICS[RTDL].max_message_bytes), b"h")
    deliveries = _producer(client).publish([large, *_outs(1)])
    assert [delivery.error for delivery in deliveries] == [PublishError.FAILED, None]
    assert client.topics == ["p." + RTDL]


def test_flush_counts_records_without_a_report_as_unknown() -> None:
    producer = _producer(Client({0: None}))
    producer.send(_outs(1)[0])
    with pytest.raises(PublishUnknown, match="1 records: no report"):
        producer.flush(0.01)


def test_a_callback_gets_the_kind_of_error() -> None:
    seen: list[tuple[int | None, str | None]] = []
    producer = _producer(Client({0: KafkaError(KafkaError._MSG_TIMED_OUT)}))
    for out in _outs(2):
        producer.send(out, lambda offset, error: seen.append((offset, error)))
    producer.flush(1)
    assert seen == [(None, "UNKNOWN"), (101, None)]


def test_sending_many_keeps_their_order_and_flush_tells_of_each_that_failed() -> None:
    client = Client({1: KafkaError(KafkaError._MSG_TIMED_OUT)}, room=2)
    producer = _producer(client)
    producer.send_all(_outs(4))
    assert client.topics == ["p." + RTDL] * 4
    with pytest.raises(PublishUnknown, match="1 records: KafkaError"):
        producer.flush(1)
    producer.flush(1)
    producer.send_all([Out(RTDL, 0, b"k", bytes(TOPICS[RTDL].max_message_bytes), b"h")])
    with pytest.raises(PublishFailed, match="larger than its topic"):
        producer.flush(1)
