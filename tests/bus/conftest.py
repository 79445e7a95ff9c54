"""The buses under one suite: `env` is one in memory, then (marker `stack`) a real Kafka with each pair of clients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from fp_contracts.topics import AUDIT, CONTROL, RTDL, TOPICS
from fp_runtime import kafka
from fp_runtime.bus import Admin, Consumer, FetchProfile, Lookup, Producer, physical
from fp_runtime.kafka_rounds import open_rounds
from fp_runtime.memory import MemoryBus
from fp_runtime.settings import RuntimeSettings

# librdkafka both ways, which also serves MSK and control; and what the stages use elsewhere (ADR 14, ADR 21).
CLIENTS = {"kafka": (kafka.open_producer, FetchProfile.CONTROL), "rounds": (open_rounds, FetchProfile.LOW_LATENCY)}


class Stack(Protocol):
    """What these tests need of the session's servers."""

    kafka_bootstrap: str


@dataclass(frozen=True)
class Env:
    """One bus with empty topics AUDIT, CONTROL and RTDL."""

    consumer: Callable[[str], Consumer]
    producer: Callable[[], Producer]
    admin: Callable[[], Admin]
    trim: Callable[[str, int, int], None]
    lookup: Lookup


@pytest.fixture
def kafka_settings(stack: Stack, topic_prefix: str) -> RuntimeSettings:
    """Settings of a process on the real broker, under this test's own prefix, with the topics it uses made."""
    settings = RuntimeSettings(
        instance="test-0",
        kafka_bootstrap=stack.kafka_bootstrap,
        pg_dsn="unused",
        evidence_url="file:///unused",
        topic_prefix=topic_prefix,
        profile="kind",  # so many partitions as the in-memory bus has
    )
    admin = kafka.open_admin(settings)
    admin.create_topics([AUDIT, CONTROL, RTDL])
    admin.close()
    return settings


@pytest.fixture(params=["memory", *(pytest.param(name, marks=pytest.mark.stack) for name in CLIENTS)])
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    """The bus of this parameter; everything opened through it is closed at the end."""
    if request.param == "memory":
        made = _memory()
    else:
        make, fetch = CLIENTS[request.param]
        made = _kafka(request.getfixturevalue("kafka_settings"), make, fetch)
    opened: list[Consumer | Producer | Admin] = []

    def keep(client: Consumer | Producer | Admin) -> Consumer | Producer | Admin:
        opened.append(client)
        return client

    yield Env(
        consumer=lambda group: keep(made.consumer(group)),  # type: ignore[return-value, arg-type]
        producer=lambda: keep(made.producer()),  # type: ignore[return-value, arg-type]
        admin=lambda: keep(made.admin()),  # type: ignore[return-value, arg-type]
        trim=made.trim,
        lookup=made.lookup,
    )
    for client in opened:
        client.close()


def _memory() -> Env:
    bus = MemoryBus()
    bus.create(TOPICS)
    return Env(bus.consumer, bus.producer, bus.admin, bus.trim, bus.lookup)


def _kafka(settings: RuntimeSettings, make: Callable[[RuntimeSettings], Producer], fetch: FetchProfile) -> Env:
    def trim(topic: str, partition: int, before: int) -> None:
        client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
        futures = client.delete_records([TopicPartition(physical(settings.topic_prefix, topic), partition, before)])
        for future in futures.values():
            future.result()

    return Env(
        partial(kafka.open_consumer, settings, fetch=fetch),
        partial(make, settings),
        partial(kafka.open_admin, settings),
        trim,
        partial(kafka.lookup, settings),
    )
