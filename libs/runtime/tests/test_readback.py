"""Reading back takes exactly [start, end as of the call) of every partition."""

from fp_contracts import topics
from fp_runtime.bus import Out
from fp_runtime.memory import MemoryBus
from fp_runtime.readback import read_back


def _out(part: int, n: int) -> Out:
    return Out(topics.AUDIT, part, b"k", str(n).encode(), b"h")


def test_from_start_to_end_as_of_the_call() -> None:
    bus = MemoryBus()
    bus.create([topics.AUDIT])
    producer, consumer = bus.producer(), bus.consumer("g")
    producer.publish([_out(part, n) for n in range(5) for part in (0, 1)])
    reading = read_back(consumer, {(topics.AUDIT, 0): 2, (topics.AUDIT, 1): 0, (topics.AUDIT, 2): 0})
    first = next(reading)
    producer.publish([_out(0, 99), _out(1, 99)])
    found = [first, *reading]
    assert sorted((record.partition, record.value) for record in found) == sorted(
        [(0, str(n).encode()) for n in range(2, 5)] + [(1, str(n).encode()) for n in range(5)]
    )


def test_up_to_given_ends_and_no_further() -> None:
    bus = MemoryBus()
    bus.create([topics.AUDIT])
    bus.producer().publish([_out(part, n) for n in range(5) for part in (0, 1)])
    starts, ends = {(topics.AUDIT, 0): 1, (topics.AUDIT, 1): 3}, {(topics.AUDIT, 0): 3, (topics.AUDIT, 1): 3}
    found = list(read_back(bus.consumer("g"), starts, ends))
    assert [(record.partition, record.offset) for record in found] == [(0, 1), (0, 2)]


def test_nothing_to_read_ends_at_once() -> None:
    bus = MemoryBus()
    bus.create([topics.AUDIT])
    assert list(read_back(bus.consumer("g"), {(topics.AUDIT, 0): 0})) == []
