"""A stage's poll comes at most once per gathering time, unless the poll before was full."""

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
    """Hands out what waits; nothing else of the client is used by `poll`."""

    def __init__(self, waiting: int) -> None:
        self.waiting = [Message(offset) for offset in range(waiting)]

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


def consumer(client: Client, slept: list[float], now_s: list[float]) -> KafkaConsumer:
    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now_s[0] += seconds

    made = KafkaConsumer(cast(Any, client), "", FatalWatch(), GATHER_S, lambda: now_s[0], sleep)
    made.assign({("t", 0): 0})
    return made


def test_a_poll_soon_after_one_that_did_not_fill_up_waits_for_the_rest_of_the_time(slept: list[float]) -> None:
    now_s = [0.0]
    reader = consumer(Client(3), slept, now_s)
    assert len(reader.poll(2, 0)) == 2
    assert len(reader.poll(2, 0)) == 1  # the first was full: no wait
    assert slept == []
    now_s[0] = 0.005
    reader.poll(2, 0)
    assert slept == [pytest.approx(GATHER_S - 0.005)]


def test_a_late_poll_and_one_after_an_empty_one_do_not_wait(slept: list[float]) -> None:
    now_s = [0.0]
    reader = consumer(Client(1), slept, now_s)
    assert len(reader.poll(2, 0)) == 1
    now_s[0] = GATHER_S
    assert reader.poll(2, 0) == []
    assert reader.poll(2, 0) == []
    assert slept == []
