"""The faults that only the memory bus can plan, and that it is deterministic."""

import threading

import pytest

from fp_contracts.topics import RTDL, TOPICS
from fp_runtime.bus import Delivery, Out, PublishError, PublishUnknown
from fp_runtime.memory import Aborted, Fault, MemoryBus

TP = (RTDL, 0)


def _bus() -> MemoryBus:
    bus = MemoryBus()
    bus.create(TOPICS)
    return bus


def _outs(*values: bytes) -> list[Out]:
    return [Out(RTDL, 0, b"k", value, b"h") for value in values]


def _values(bus: MemoryBus) -> list[bytes]:
    return [record.value for record in bus.read(TP, 0, 100)]


def test_a_lost_ack_is_unknown_and_the_record_is_there() -> None:
    bus = _bus()
    bus.plan(Fault.LOST_ACK, nth=2)
    deliveries = bus.producer().publish(_outs(b"a", b"b", b"c"))
    assert [delivery.error for delivery in deliveries] == [None, PublishError.UNKNOWN, None]
    assert [delivery.offset for delivery in deliveries] == [0, None, 2]
    found = bus.lookup(RTDL, 0, 0, lambda record: record.value == b"b")
    assert found is not None
    assert found.offset == 1


def test_a_lost_request_is_unknown_and_the_record_is_not_there() -> None:
    bus = _bus()
    bus.plan(Fault.LOST_REQUEST)
    assert bus.producer().publish(_outs(b"a"))[0].error is PublishError.UNKNOWN
    assert bus.lookup(RTDL, 0, 0, lambda record: True) is None


def test_a_definite_failure_is_failed_and_the_record_is_not_there() -> None:
    bus = _bus()
    bus.plan(Fault.FAILED, nth=1)
    assert [d.error for d in bus.producer().publish(_outs(b"a", b"b"))] == [PublishError.FAILED, None]
    assert _values(bus) == [b"b"]


def test_an_abort_leaves_what_was_written_before_and_happens_once() -> None:
    bus = _bus()
    producer = bus.producer()
    producer.publish(_outs(b"a"))
    bus.plan(Fault.ABORT, nth=2)
    with pytest.raises(Aborted):
        producer.publish(_outs(b"b", b"c", b"d"))
    assert _values(bus) == [b"a", b"b"]
    assert bus.producer().publish(_outs(b"c", b"d")) == [Delivery(2), Delivery(3)]


def test_flush_raises_unknown_for_a_lost_ack_without_a_callback() -> None:
    bus = _bus()
    producer = bus.producer()
    bus.plan(Fault.LOST_ACK)
    producer.send(_outs(b"a")[0])
    with pytest.raises(PublishUnknown, match="1 records"):
        producer.flush(1)
    producer.flush(1)


def test_reports_of_send_wait_for_a_later_call() -> None:
    producer = _bus().producer()
    seen: list[int | None] = []
    producer.send(_outs(b"a")[0], lambda offset, _error: seen.append(offset))
    assert seen == []
    producer.flush(1)
    assert seen == [0]


def test_a_waiting_poll_is_woken_by_a_write() -> None:
    bus = _bus()
    consumer = bus.consumer("g")
    consumer.assign({TP: 0})
    writer = threading.Timer(0.05, lambda: bus.producer().publish(_outs(b"a")))
    writer.start()
    assert [record.value for record in consumer.poll(10, 10.0)] == [b"a"]
    writer.join()


def test_the_same_calls_give_the_same_records() -> None:
    def run() -> list[tuple[int, int, bytes]]:
        bus = _bus()
        bus.producer().publish([Out(RTDL, n % 6, b"k", b"%d" % n, b"h") for n in range(60)])
        consumer = bus.consumer("g")
        consumer.assign({(RTDL, partition): 0 for partition in range(6)})
        return [(r.partition, r.offset, r.value) for _ in range(20) for r in consumer.poll(4, 0)]

    first = run()
    assert len(first) == 60
    assert first == run()


def test_no_partition_starves_under_a_small_poll() -> None:
    bus = _bus()
    bus.producer().publish([Out(RTDL, n % 6, b"k", b"", b"h") for n in range(600)])
    consumer = bus.consumer("g")
    consumer.assign({(RTDL, partition): 0 for partition in range(6)})
    assert {record.partition for _ in range(6) for record in consumer.poll(1, 0)} == set(range(6))
