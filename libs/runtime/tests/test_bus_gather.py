"""A stage's poll waits for the rest of a wave behind its first record, unless it is full."""

from typing import Any, cast

import pytest

from fp_runtime.kafka import KafkaConsumer
from fp_runtime.kafka_client import FatalWatch

GATHER_S = 0.02


class Message:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def headers(self) -> None:
        return None

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b""

    def value(self) -> bytes:
        return b""

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Client:
    """Hands out what waits; `later` arrives while somebody sleeps. Nothing else of the client is used by `poll`."""

    def __init__(self, waiting: int, later: int = 0) -> None:
        self.waiting = [Message(offset) for offset in range(waiting)]
        self.later = [Message(offset) for offset in range(waiting, waiting + later)]

    def poll(self, _timeout_s: float) -> Message | None:
        return self.waiting.pop(0) if self.waiting else None

    def consume(self, n: int, _timeout_s: float) -> list[Message]:
        taken, self.waiting = self.waiting[:n], self.waiting[n:]
        return taken

    def assign(self, _partitions: object) -> None:
        return None

    def resume(self, _partitions: object) -> None:
        return None


@pytest.fixture
def slept() -> list[float]:
    return []


def consumer(client: Client, slept: list[float], gather_s: float = GATHER_S) -> KafkaConsumer:
    def sleep(seconds: float) -> None:
        slept.append(seconds)
        client.waiting += client.later
        client.later = []

    made = KafkaConsumer(cast(Any, client), "", FatalWatch(), gather_s, sleep)
    made.assign({("t", 0): 0})
    return made


def offsets(reader: KafkaConsumer, most: int) -> list[int]:
    return [record.offset for record in reader.poll(most, 0)]


def test_a_poll_waits_once_behind_its_first_record_and_takes_what_came_meanwhile(slept: list[float]) -> None:
    reader = consumer(Client(2, later=3), slept)
    assert offsets(reader, 10) == [0, 1, 2, 3, 4]
    assert slept == [GATHER_S]


def test_a_full_poll_and_an_empty_one_do_not_wait(slept: list[float]) -> None:
    reader = consumer(Client(3), slept)
    assert offsets(reader, 3) == [0, 1, 2]
    assert offsets(reader, 3) == []
    assert slept == []


def test_no_more_than_asked_comes_of_both_halves_together(slept: list[float]) -> None:
    reader = consumer(Client(2, later=5), slept)
    assert offsets(reader, 4) == [0, 1, 2, 3]
    assert offsets(reader, 4) == [4, 5, 6]


def test_without_a_gathering_time_nobody_waits(slept: list[float]) -> None:
    assert offsets(consumer(Client(1, later=1), slept, 0.0), 4) == [0]
    assert slept == []
