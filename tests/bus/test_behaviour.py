"""What every bus must do: the same assertions on memory and on Kafka."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from fp_contracts.topics import AUDIT, CONTROL, RTDL, TOPICS
from fp_runtime.bus import Consumer, OffsetOutOfRange, Out, PublishError, PublishFailed, Record, raw_limit
from fp_runtime.deadline import until

Env = Any  # the fixture of conftest.py, which importlib mode does not let us import
TP = (RTDL, 0)


def out(value: bytes, partition: int = 0, topic: str = RTDL) -> Out:
    return Out(topic, partition, b"key", value, b"header")


def numbered(count: int, partition: int = 0) -> list[Out]:
    return [out(b"%d" % number, partition) for number in range(count)]


def read(consumer: Consumer, count: int, max_records: int = 500) -> list[Record]:
    """Exactly `count` records; fails when they do not come or when there are more."""
    records: list[Record] = []

    def enough() -> bool:
        records.extend(consumer.poll(max_records, 0.2))
        return len(records) >= count

    until(enough, 20, f"{count} records", interval_s=0)
    records.extend(consumer.poll(max_records, 0.1))
    assert len(records) == count
    return records


def values(records: Sequence[Record]) -> list[bytes]:
    return [record.value for record in records]


def test_publish_answers_in_the_order_of_the_records_with_dense_offsets_per_partition(env: Env) -> None:
    outs = [out(b"%d" % number, number % 3) for number in range(30)]
    deliveries = env.producer().publish(outs)
    assert [delivery.offset for delivery in deliveries] == [number // 3 for number in range(30)]
    assert all(delivery.error is None for delivery in deliveries)


def test_records_come_in_the_order_written_per_partition(env: Env) -> None:
    producer = env.producer()
    for start in range(0, 300, 50):
        producer.publish([out(b"%d" % number, number % 3) for number in range(start, start + 50)])
    consumer = env.consumer("g")
    consumer.assign({(RTDL, partition): 0 for partition in range(3)})
    records = read(consumer, 300)
    for partition in range(3):
        mine = [record for record in records if record.partition == partition]
        assert [record.offset for record in mine] == list(range(100))
        assert values(mine) == [b"%d" % number for number in range(partition, 300, 3)]


def test_bytes_arrive_exactly_as_sent(env: Env) -> None:
    every = bytes(range(256))
    outs = [Out(RTDL, 2, every, every * 3, every, b"00-trace-01"), Out(RTDL, 2, b"", b"", b"")]
    env.producer().publish(outs)
    consumer = env.consumer("g")
    consumer.assign({(RTDL, 2): 0})
    full, empty = read(consumer, 2)
    assert full[:7] == (RTDL, 2, 0, every, every * 3, every, b"00-trace-01")
    assert empty[:7] == (RTDL, 2, 1, b"", b"", b"", None)


def test_offsets_are_exclusive_next(env: Env) -> None:
    producer, consumer = env.producer(), env.consumer("g")
    assert consumer.ends([TP, (RTDL, 1)]) == {TP: 0, (RTDL, 1): 0}
    last = producer.publish(numbered(5))[-1].offset
    assert consumer.ends([TP, (RTDL, 1)]) == {TP: last + 1, (RTDL, 1): 0}
    assert consumer.begins([TP]) == {TP: 0}
    consumer.assign({TP: last + 1})
    assert consumer.poll(10, 0.1) == []
    producer.publish([out(b"new")])
    assert values(read(consumer, 1)) == [b"new"]


def test_reading_resumes_at_the_assigned_offset_and_assign_replaces(env: Env) -> None:
    env.producer().publish(numbered(10) + numbered(3, partition=1))
    consumer = env.consumer("g")
    consumer.assign({TP: 7})
    assert values(read(consumer, 3)) == [b"7", b"8", b"9"]
    consumer.assign({(RTDL, 1): 1})
    assert [(record.partition, record.value) for record in read(consumer, 2)] == [(1, b"1"), (1, b"2")]
    consumer.assign({TP: 9})
    assert values(read(consumer, 1)) == [b"9"]


def test_a_negative_start_is_refused(env: Env) -> None:
    with pytest.raises(ValueError, match="negative start offset"):
        env.consumer("g").assign({TP: -1})


@pytest.mark.parametrize("start", [1, 11])
def test_a_start_outside_the_log_raises_and_names_the_place(env: Env, start: int) -> None:
    env.producer().publish(numbered(10))
    env.trim(RTDL, 0, 4)
    consumer = env.consumer("g")
    assert (consumer.begins([TP]), consumer.ends([TP])) == ({TP: 4}, {TP: 10})
    consumer.assign({TP: start})

    def poll() -> None:
        assert consumer.poll(10, 0.2) == []

    with pytest.raises(OffsetOutOfRange, match=r"fp\.bus\.rtdl\.v1\[0\]"):
        until(poll, 20, "the error of a start outside the log")


def test_poll_never_returns_more_than_asked(env: Env) -> None:
    env.producer().publish(numbered(20) + numbered(20, partition=1))
    consumer = env.consumer("g")
    consumer.assign({TP: 0, (RTDL, 1): 0})
    until(lambda: len(consumer.poll(1, 0.2)) == 1, 20, "the first record")
    seen = 1
    while seen < 40:
        records = consumer.poll(7, 1.0)
        assert 0 < len(records) <= 7
        seen += len(records)
    assert seen == 40


def test_a_large_batch_arrives_whole(env: Env) -> None:
    outs = [Out(RTDL, number % 6, b"%d" % number, b"x" * 700, b"h" * 80) for number in range(20_000)]
    deliveries = env.producer().publish(outs)
    assert all(delivery.error is None for delivery in deliveries)
    consumer = env.consumer("g")
    consumer.assign({(RTDL, partition): 0 for partition in range(6)})
    records = read(consumer, 20_000)
    assert sorted(int(record.key or b"") for record in records) == list(range(20_000))


def test_definite_failures_are_told_apart_and_stop_nobody_else(env: Env) -> None:
    limit = TOPICS[RTDL].max_message_bytes
    deliveries = env.producer().publish([out(b"a"), out(b"y" * limit), out(b"no", partition=77), out(b"b")])
    assert [delivery.error for delivery in deliveries] == [None, PublishError.FAILED, PublishError.FAILED, None]
    assert [delivery.offset for delivery in deliveries] == [0, None, None, 1]
    assert all(delivery.reason for delivery in deliveries if delivery.error)
    consumer = env.consumer("g")
    consumer.assign({TP: 0})
    assert values(read(consumer, 2)) == [b"a", b"b"]


def test_the_largest_record_passes_even_if_it_does_not_compress(env: Env) -> None:
    value = random.Random(1).randbytes(raw_limit(RTDL) - len(b"key") - len(b"header"))
    deliveries = env.producer().publish([out(value), out(value + b"x")])
    assert [delivery.error for delivery in deliveries] == [None, PublishError.FAILED]
    consumer = env.consumer("g")
    consumer.assign({TP: 0})
    assert values(read(consumer, 1)) == [value]


def test_publishing_nothing_is_no_error(env: Env) -> None:
    assert env.producer().publish([]) == []


def test_send_reports_every_record_by_the_time_of_flush(env: Env) -> None:
    producer = env.producer()
    seen: list[tuple[int | None, str | None]] = []
    for number in range(3):
        producer.send(out(b"%d" % number), lambda offset, error: seen.append((offset, error)))
    producer.send(out(b"large" * TOPICS[RTDL].max_message_bytes), lambda offset, error: seen.append((offset, error)))
    producer.send(out(b"quiet"))
    producer.flush(10)
    assert sorted(seen, key=str) == [(0, None), (1, None), (2, None), (None, "FAILED")]


def test_flush_raises_once_for_failed_records_without_a_callback(env: Env) -> None:
    producer = env.producer()
    producer.send(out(b"no", partition=77))
    with pytest.raises(PublishFailed):
        producer.flush(10)
    producer.flush(10)


def test_a_commit_is_visible_to_a_lag_reader_and_is_not_progress(env: Env) -> None:
    env.producer().publish(numbered(10))
    consumer, admin = env.consumer("g-lag"), env.admin()
    assert admin.committed("g-lag") == {}
    consumer.assign({TP: 0, (RTDL, 1): 0})
    consumer.commit({TP: 4})

    def visible() -> bool:
        consumer.poll(1, 0.05)
        return bool(admin.committed("g-lag") == {TP: 4})

    until(visible, 20, "the committed offset")
    again = env.consumer("g-lag")
    again.assign({TP: 1})
    assert read(again, 9)[0].offset == 1


def test_a_commit_of_a_partition_that_is_not_assigned_is_refused(env: Env) -> None:
    consumer = env.consumer("g")
    consumer.assign({(RTDL, 1): 0})
    consumer.assign({TP: 0})
    with pytest.raises(ValueError, match="not assigned"):
        consumer.commit({(RTDL, 1): 3})


def test_two_consumers_of_one_group_are_independent(env: Env) -> None:
    env.producer().publish(numbered(5))
    first, second = env.consumer("g"), env.consumer("g")
    first.assign({TP: 0})
    second.assign({TP: 2})
    assert values(read(first, 5)) == [b"0", b"1", b"2", b"3", b"4"]
    assert values(read(second, 3)) == [b"2", b"3", b"4"]


def test_a_paused_partition_is_silent_and_goes_on_without_a_gap(env: Env) -> None:
    env.producer().publish(numbered(100) + numbered(100, partition=1))
    consumer = env.consumer("g")
    consumer.assign({TP: 0, (RTDL, 1): 0})
    seen = until(lambda: consumer.poll(10, 0.2) or None, 20, "the first records")
    consumer.pause([TP])
    paused = [record for _ in range(40) for record in consumer.poll(10, 0.02)]
    assert {record.partition for record in paused} <= {1}
    consumer.resume([TP])
    seen += paused + read(consumer, 200 - len(seen) - len(paused))
    for partition in (0, 1):
        assert [record.offset for record in seen if record.partition == partition] == list(range(100))


def test_an_assignment_starts_anew_whatever_was_paused_before(env: Env) -> None:
    consumer = env.consumer("g")
    env.producer().publish(numbered(3))
    consumer.assign({TP: 0})
    assert len(read(consumer, 3)) == 3
    consumer.pause([TP])
    consumer.assign({TP: 3})
    env.producer().publish(numbered(2))
    assert [record.offset for record in read(consumer, 2)] == [3, 4]


def test_several_topics_in_one_assignment_keep_their_logical_names(env: Env) -> None:
    env.producer().publish([out(b"a", topic=AUDIT), out(b"c", topic=CONTROL)])
    consumer = env.consumer("g")
    consumer.assign({(AUDIT, 0): 0, (CONTROL, 0): 0})
    assert {(record.topic, record.value) for record in read(consumer, 2)} == {(AUDIT, b"a"), (CONTROL, b"c")}


def test_lookup_finds_the_first_match_up_to_the_end(env: Env) -> None:
    env.producer().publish(numbered(2_000))
    found = env.lookup(RTDL, 0, 100, lambda record: record.value.endswith(b"7"))
    assert (found.offset, found.value) == (107, b"107")
    assert env.lookup(RTDL, 0, 100, lambda record: record.value == b"99") is None
    assert env.lookup(RTDL, 0, 1_999, lambda record: record.value == b"1999").offset == 1_999
    assert env.lookup(RTDL, 0, 2_000, lambda record: True) is None
    assert env.lookup(RTDL, 1, 0, lambda record: True) is None


def test_lookup_from_outside_the_log_is_never_an_absence(env: Env) -> None:
    env.producer().publish(numbered(10))
    env.trim(RTDL, 0, 5)
    for start in (2, 11):
        with pytest.raises(OffsetOutOfRange):
            env.lookup(RTDL, 0, start, lambda record: True)


def test_topics_are_created_once_and_described_as_in_the_registry(env: Env) -> None:
    admin = env.admin()
    admin.create_topics()
    admin.create_topics([RTDL])
    states = admin.describe()
    assert set(states) == set(TOPICS)
    for name, topic in TOPICS.items():
        assert states[name] == (topic.partitions, topic.retention_ms, topic.max_message_bytes)
