"""A consumer that fetches for itself, against a broker that answers as it is told to: cut, late, corrupt, moved."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError, NotLeaderForPartitionError, TopicAuthorizationFailedError, UnknownError
from aiokafka.protocol.fetch import FetchResponse_v4
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from confluent_kafka import KafkaException

from fp_contracts.topics import RTDL
from fp_runtime.bus import HEADER, TRACEPARENT, OffsetOutOfRange, Record
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.kafka_fetch import FetchConsumer, Patience
from fp_runtime.kafka_offsets import Offsets

Answer = Callable[[socket.socket, bytes], None]
TP = (RTDL, 0)


def batch(first: int, n: int) -> bytes:
    """A batch of records first … first + n - 1."""
    made = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    for number in range(n):
        headers = [(HEADER, b"h"), (TRACEPARENT, b"t%d" % (first + number))]
        made.append(number, timestamp=7, key=None, value=b"%d" % (first + number), headers=headers)
    return first.to_bytes(8, "big") + bytes(made.build())[8:]  # the base offset lies before what the CRC covers


def told(batches: bytes = b"", error: type[KafkaError] | None = None) -> bytes:
    code = 0 if error is None else cast(Any, error).errno
    return bytes(FetchResponse_v4(0, [(RTDL, [(0, code, 99, 99, [], batches)])]).encode())


def says(body: bytes) -> Answer:
    """The whole response at once."""
    return lambda peer, number: peer.sendall(framed(number, body))


def framed(number: bytes, body: bytes) -> bytes:
    return (len(body) + 4).to_bytes(4, "big") + number + body


class Broker:
    """Answers its connections' requests one after the other from a script; then with nothing."""

    def __init__(self, script: Sequence[Answer]) -> None:
        self._script = iter(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        with peer:
            while head := peer.recv(4, socket.MSG_WAITALL):
                request = peer.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                answer = next(self._script, says(told()))
                try:
                    answer(peer, request[4:8])
                except ConnectionError:
                    return

    def close(self) -> None:
        self._listener.close()


class FakeOffsets:
    """Leaders as the test has them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.found: list[dict[tuple[str, int], tuple[str, int]] | None] = []
        self.address = address
        self.asked = 0

    def leaders(self, _: float) -> dict[tuple[str, int], tuple[str, int]]:
        self.asked += 1
        found = self.found.pop(0) if self.found else {TP: self.address}
        if found is None:
            raise KafkaException("no broker answers")
        return found

    def close(self) -> None:
        """Nothing to let go of."""


@contextmanager
def reading(*script: Answer, start: int = 0) -> Iterator[tuple[FetchConsumer, Broker, FakeOffsets]]:
    broker = Broker(script)
    offsets = FakeOffsets(broker.address)
    consumer = FetchConsumer("test", cast(Offsets, offsets), "", Patience(1, 50))
    consumer.assign({TP: start})
    try:
        yield consumer, broker, offsets
    finally:
        consumer.close()
        broker.close()


def read(consumer: FetchConsumer, count: int) -> list[Record]:
    found: list[Record] = []

    def enough() -> bool:
        found.extend(consumer.poll(500, 0.05))
        return len(found) >= count

    until(enough, 10, f"{count} records", interval_s=0)
    return found


def test_batches_come_whole_and_are_read_from_the_offset_asked_for() -> None:
    with reading(says(told(batch(0, 5) + batch(5, 5))), start=3) as (consumer, _, _):
        found = read(consumer, 7)
    assert [record.offset for record in found] == list(range(3, 10))
    assert found[0] == (RTDL, 0, 3, None, b"3", b"h", b"t3", 7)


def test_a_batch_cut_at_the_end_of_a_response_is_read_with_the_next_one() -> None:
    cut = batch(5, 5)
    with reading(says(told(batch(0, 5) + cut[:-10])), says(told(cut))) as (consumer, _, _):
        assert [record.offset for record in read(consumer, 10)] == list(range(10))


def test_a_response_that_comes_in_pieces_over_several_polls_is_one() -> None:
    go_on = threading.Event()

    def in_pieces(peer: socket.socket, number: bytes) -> None:
        frame = framed(number, told(batch(0, 3)))
        for piece in (frame[:2], frame[2:40]):
            peer.sendall(piece)
        go_on.wait(10)
        peer.sendall(frame[40:])

    with reading(in_pieces) as (consumer, broker, _):
        assert consumer.poll(500, 0.05) == []
        go_on.set()
        assert [record.offset for record in read(consumer, 3)] == [0, 1, 2]
        assert broker.connections == 1


def test_a_connection_that_breaks_in_the_middle_of_a_response_is_made_anew_and_nothing_is_missed_or_doubled() -> None:
    def broken(peer: socket.socket, number: bytes) -> None:
        peer.sendall(framed(number, told(batch(0, 5)))[:60])
        peer.shutdown(socket.SHUT_RDWR)

    with reading(says(told(batch(0, 2))), broken, says(told(batch(2, 3)))) as (consumer, broker, _):
        assert [record.offset for record in read(consumer, 5)] == [0, 1, 2, 3, 4]
        assert broker.connections == 2


def test_an_answer_to_another_request_is_not_taken() -> None:
    def foreign(peer: socket.socket, _: bytes) -> None:
        peer.sendall(framed(b"\0\0\0\x63", told(batch(0, 5))))

    with reading(foreign, says(told(batch(0, 1)))) as (consumer, broker, _):
        assert [record.offset for record in read(consumer, 1)] == [0]
        assert broker.connections == 2


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0" * 7, told(batch(0, 2))[:40], told()[:8] + b"\0\2\xff\xfe" + bytes(9), told().replace(b"rtdl", b"RTDL")],
)
def test_an_answer_that_is_no_fetch_response_costs_the_connection(answer: bytes) -> None:
    with reading(says(answer), says(told(batch(0, 1)))) as (consumer, broker, _):
        assert [record.offset for record in read(consumer, 1)] == [0]
        assert broker.connections == 2


def test_a_corrupt_batch_is_told_and_none_of_its_response_is_handed_out_twice() -> None:
    corrupt = bytearray(batch(2, 2))
    corrupt[-1] ^= 1
    with reading(says(told(batch(0, 2) + bytes(corrupt))), says(told(batch(0, 4)))) as (consumer, _, _):
        with pytest.raises(Unavailable, match=r"fp\.bus\.rtdl\.v1\[0\].*corrupt"):
            read(consumer, 1)
        assert [record.offset for record in read(consumer, 4)] == [0, 1, 2, 3]


def test_a_partition_that_moved_is_looked_for_again() -> None:
    with reading(says(told(error=NotLeaderForPartitionError)), says(told(batch(0, 1)))) as (consumer, _, offsets):
        assert [record.offset for record in read(consumer, 1)] == [0]
        assert offsets.asked == 2


def test_it_waits_for_a_leader_and_for_a_broker_that_answers() -> None:
    with reading(says(told(batch(0, 1)))) as (consumer, _, offsets):
        offsets.found = [None, {}, {TP: ("127.0.0.1", 1)}]
        assert [record.offset for record in read(consumer, 1)] == [0]
        assert offsets.asked == 4


def test_what_keeps_it_waiting_is_told_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fp_runtime.kafka_fetch.TELL_S", 0.3)
    with reading(says(told(batch(0, 1)))) as (consumer, _, offsets):
        offsets.found = [{}] * 8
        assert [record.offset for record in read(consumer, 1)] == [0]
    assert_told_once_in_a_while(caplog, f"{RTDL}[0] has no leader")


def test_a_broker_that_refuses_again_and_again_is_told_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fp_runtime.kafka_fetch.TELL_S", 0.3)
    refusals = [says(told(error=NotLeaderForPartitionError))] * 8
    with reading(*refusals, says(told(batch(0, 1)))) as (consumer, _, _):
        assert [record.offset for record in read(consumer, 1)] == [0]
    assert_told_once_in_a_while(caplog, f"{RTDL}[0] offset 0: NotLeaderForPartitionError")


def assert_told_once_in_a_while(caplog: pytest.LogCaptureFixture, why: str) -> None:
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(said) <= 3
    assert set(said) == {f"reading waits: {why}"}


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError, UnknownError])
def test_another_refusal_is_told(error: type[KafkaError]) -> None:
    with reading(says(told(error=error))) as (consumer, _, _), pytest.raises(Unavailable, match=error.__name__):
        read(consumer, 1)


def test_an_offset_outside_the_log_is_told_with_what_else_came_kept() -> None:
    body = FetchResponse_v4(0, [(RTDL, [(0, 1, 99, 99, [], b""), (1, 0, 99, 99, [], batch(0, 2))])]).encode()
    with reading(says(bytes(body))) as (consumer, broker, offsets):
        offsets.found = [{(RTDL, 0): broker.address, (RTDL, 1): broker.address}]
        consumer.assign({(RTDL, 0): 5, (RTDL, 1): 0})
        with pytest.raises(OffsetOutOfRange, match=r"\[0\] offset 5"):
            read(consumer, 1)
        assert [(record.partition, record.offset) for record in consumer.poll(500, 0)] == [(1, 0), (1, 1)]


def test_what_was_under_way_for_another_assignment_is_dropped() -> None:
    go_on = threading.Event()

    def late(peer: socket.socket, number: bytes) -> None:
        go_on.wait(10)
        says(told(batch(0, 3)))(peer, number)

    with reading(late, says(told(batch(1, 2)))) as (consumer, _, _):
        assert consumer.poll(500, 0.02) == []
        consumer.assign({TP: 1})
        go_on.set()
        assert [record.offset for record in read(consumer, 2)] == [1, 2]
