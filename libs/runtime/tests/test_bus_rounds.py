"""How the producer of rounds reads its client's answers, on a hand-made client that answers as told."""

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
)

from fp_contracts.topics import AUDIT, RTDL, TOPICS
from fp_runtime import kafka_rounds
from fp_runtime.bus import BusBroken, Out, PublishError, PublishUnknown
from fp_runtime.kafka_rounds import RoundProducer

TIMEOUT_S = 0.3
Answer = int | Exception | None  # base offset, error, or silence


class Builder:
    """A batch that holds `room` records."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.values: list[bytes] = []

    def append(self, *, timestamp: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> object | None:
        assert timestamp > 0
        assert headers[0][0] == "fp"
        if len(self.values) == self.room:
            return None
        self.values.append(value)
        return self


class Client:
    """An idempotent aiokafka producer."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.client = SimpleNamespace(close=self._end)
        self._sender = SimpleNamespace(close=self._end)
        self._closed = False
        self.ended = 0

    async def _end(self) -> None:
        self.ended += 1

    async def start(self) -> None:
        if self.world.unreachable:
            self.world.unreachable -= 1
            raise KafkaConnectionError("Unable to bootstrap")

    def create_batch(self) -> Builder:
        return Builder(self.world.room)

    async def send_batch(self, batch: Builder, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        assert partition < 6, "Unrecognized partition"
        if not self.world.sent:  # what else the loop has to do, as aiokafka's sender, which this batch wakes up
            asyncio.get_running_loop().call_soon(lambda: self.world.first_request.append(len(self.world.sent)))
        self.world.sent.append((topic, partition, batch.values))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        given = self.world.answers.pop(0) if self.world.answers else 100
        if self.world.gate is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.world.gate.wait)
        if isinstance(given, Exception):
            answer.set_exception(given)
        elif given is not None:
            answer.set_result(SimpleNamespace(offset=given))
        return answer


class World:
    """What the clients of a test meet, and what they did."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.room = 1_000
        self.unreachable = 0
        self.gate: threading.Event | None = None
        self.sent: list[tuple[str, int, list[bytes]]] = []
        self.first_request: list[int] = []
        self.clients: list[Client] = []

    def connect(self) -> Any:
        self.clients.append(Client(self))
        return self.clients[-1]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def producer(world: World) -> Iterator[RoundProducer]:
    made = RoundProducer(world.connect, "p.", TIMEOUT_S)
    yield made
    made.close()


def _outs(*places: tuple[str, int]) -> list[Out]:
    return [Out(topic, partition, b"k", b"%d" % n, b"h") for n, (topic, partition) in enumerate(places)]


def test_a_round_is_one_batch_per_topic_partition_and_each_record_gets_its_own_offset(
    world: World, producer: RoundProducer
) -> None:
    world.answers = [10, 20, 30]
    deliveries = producer.publish(_outs((RTDL, 0), (RTDL, 1), (RTDL, 0), (AUDIT, 0), (RTDL, 0)))
    assert world.sent == [("p." + RTDL, 0, [b"0", b"2", b"4"]), ("p." + RTDL, 1, [b"1"]), ("p." + AUDIT, 0, [b"3"])]
    assert [delivery.offset for delivery in deliveries] == [10, 20, 11, 30, 12]


def test_all_batches_of_a_round_are_there_before_the_client_sends(world: World, producer: RoundProducer) -> None:
    """It sends what it has and leaves the rest until that is answered: twice the requests, and twice the wait."""
    producer.publish([Out(topic, part, b"", b"x", b"h") for topic in (RTDL, AUDIT) for part in range(3)])
    assert world.first_request == [6]


def test_what_waits_while_a_round_is_under_way_goes_together_and_in_order(
    world: World, producer: RoundProducer
) -> None:
    world.gate = threading.Event()
    producer.send_all(_outs((RTDL, 0)))
    while not world.sent:
        pass
    producer.send_all([Out(RTDL, 0, b"k", b"a", b"h")])
    producer.send_all([Out(RTDL, 0, b"k", b"b", b"h")])
    world.gate.set()
    producer.flush(5)
    assert [values for _, _, values in world.sent] == [[b"0"], [b"a", b"b"]]


def test_what_is_sent_in_one_breath_is_one_round(
    world: World, producer: RoundProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_rounds, "LINGER_S", 0.5)  # a breath of this machine may be longer than a millisecond
    producer.publish(_outs((AUDIT, 0)))
    for n in range(3):
        producer.send_all([Out(RTDL, 0, b"k", b"%d" % n, b"h")])
    producer.flush(5)
    assert world.sent[1:] == [("p." + RTDL, 0, [b"0", b"1", b"2"])]


def test_a_batch_that_is_full_is_followed_by_another(world: World, producer: RoundProducer) -> None:
    world.room, world.answers = 2, [5, 7]
    deliveries = producer.publish(_outs(*[(RTDL, 0)] * 3))
    assert [values for _, _, values in world.sent] == [[b"0", b"1"], [b"2"]]
    assert [delivery.offset for delivery in deliveries] == [5, 6, 7]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MessageSizeTooLargeError(), PublishError.FAILED), (NotEnoughReplicasError(), PublishError.UNKNOWN)],
)
def test_after_a_refused_batch_the_next_round_has_a_new_client_since_sequences_are_missing(
    world: World, producer: RoundProducer, error: Exception, kind: PublishError
) -> None:
    world.answers = [error, 3]
    refused, written = producer.publish(_outs((RTDL, 0), (RTDL, 1)))
    assert (refused.offset, refused.error, written.offset) == (None, kind, 3)
    assert producer.publish(_outs((RTDL, 0)))[0].offset == 100
    assert len(world.clients) == 2
    assert world.clients[0].ended == 2


def test_silence_is_unknown_and_the_client_goes(world: World, producer: RoundProducer) -> None:
    world.answers = [None, 4]
    silent, written = producer.publish(_outs((RTDL, 0), (RTDL, 1)))
    assert (silent.error, written.offset) == (PublishError.UNKNOWN, 4)
    producer.publish(_outs((RTDL, 0)))
    assert len(world.clients) == 2


def test_a_missed_deadline_gives_up_what_waits_as_well(world: World, producer: RoundProducer) -> None:
    world.gate = threading.Event()
    producer.send_all(_outs((RTDL, 1)))
    while not world.sent:
        pass
    (late,) = producer.publish(_outs((RTDL, 0)), timeout_s=0.05)
    world.gate.set()
    assert late.error is PublishError.UNKNOWN
    with pytest.raises(PublishUnknown):
        producer.flush(5)
    assert [partition for _, partition, _ in world.sent] == [1]


def test_written_twice_at_a_forgotten_place_is_unknown(world: World, producer: RoundProducer) -> None:
    world.answers = [-1]
    assert producer.publish(_outs((RTDL, 0)))[0].error is PublishError.UNKNOWN


def test_a_sequence_out_of_order_ends_the_process(world: World, producer: RoundProducer) -> None:
    world.answers = [OutOfOrderSequenceNumber()]
    with pytest.raises(BusBroken, match="OutOfOrder"):
        producer.publish(_outs((RTDL, 0)))
    with pytest.raises(BusBroken):
        producer.send_all(_outs((RTDL, 0)))


def test_what_cannot_be_there_is_failed_and_stops_nobody_else(world: World, producer: RoundProducer) -> None:
    large = Out(RTDL, 0, b"", b"x" * TOPICS[RTDL].max_message_bytes, b"")
    deliveries = producer.publish([*_outs((RTDL, 0)), large, *_outs((RTDL, 9))])
    assert [delivery.error for delivery in deliveries] == [None, PublishError.FAILED, PublishError.FAILED]
    assert len(world.clients) == 1  # neither took a sequence


def test_a_broker_that_comes_back_in_time_is_waited_for_and_one_that_does_not_has_nothing(
    world: World, producer: RoundProducer
) -> None:
    world.unreachable = 1
    assert producer.publish(_outs((RTDL, 0)))[0].offset == 100
    world.answers, world.unreachable = [None], 99
    producer.publish(_outs((RTDL, 0)))
    assert producer.publish(_outs((RTDL, 0)))[0].error is PublishError.FAILED


def test_a_callback_hears_of_its_record(producer: RoundProducer) -> None:
    heard: list[tuple[int | None, str | None]] = []
    producer.send(_outs((RTDL, 0))[0], lambda offset, error: heard.append((offset, error)))
    producer.flush(5)
    assert heard == [(100, None)]
