"""Baseline of every other benchmark: consume→produce of the same bytes, bare client and our bus, in one run.

`python bench/bare_bus.py [--bootstrap HOST:PORT] [--events N]`; without an address it starts the embedded stack.
Prints one JSON line per figure. CPU figures are of the calling thread, the better of the rounds.
"""

import argparse
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from fp_contracts.topics import RTDL, TRAFFIC, pinned
from fp_runtime import kafka
from fp_runtime.bus import FetchProfile, Out, physical
from fp_runtime.kafka_client import consumer_options, producer_options
from fp_runtime.settings import RuntimeSettings

ROUNDS = 3
BATCH = 500
VALUE = json.dumps({"flow_id": "f" * 32, "amount_minor": 12_345, "filler": "abcdefghij" * 56}).encode()
HEADER = bytes(range(90))
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARTITIONS = pinned("local")[TRAFFIC].partitions
Figure = Mapping[str, str | int | float]


def bare_bus(bootstrap: str, events: int = 50_000) -> Iterator[Figure]:
    """Figures of a pass-through of `events` records: events/s and CPU µs per record, bare and through our bus."""
    settings = RuntimeSettings(
        instance="bench-0",
        kafka_bootstrap=bootstrap,
        pg_dsn="unused",
        evidence_url="file:///unused",
        topic_prefix=f"bench{uuid.uuid4().hex[:8]}.",
    )
    admin = kafka.open_admin(settings)
    admin.create_topics([TRAFFIC, RTDL])
    fill_us = min(_fill(settings, events) for _ in range(2))
    yield _figure("bus.publish_cpu", fill_us, "us/record", events)
    yield _figure("bus.consume_cpu", min(_drain(settings, events) for _ in range(ROUNDS)), "us/record", events)
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(_rate(events, lambda: _pass_bare(settings, events)))
        ours.append(_rate(events, lambda: _pass_ours(settings, events)))
    yield _figure("bare_bus.pass_through", max(bare), "events/s", events)
    yield _figure("bus.pass_through", max(ours), "events/s", events)
    yield _figure("bus.pass_through_to_bare", max(ours) / max(bare), "ratio", events)


def _figure(name: str, value: float, unit: str, n: int) -> Figure:
    return {"name": name, "value": round(value, 3), "unit": unit, "n": n}


def _rate(events: int, run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return events / (time.perf_counter() - started)


def _fill(settings: RuntimeSettings, events: int) -> float:
    producer = kafka.open_producer(settings)
    outs = [Out(TRAFFIC, n % PARTITIONS, b"m-%d" % (n % 50), VALUE, HEADER, TRACEPARENT) for n in range(BATCH)]
    started = time.thread_time()
    for _ in range(events // BATCH):
        assert all(delivery.error is None for delivery in producer.publish(outs))
    spent = time.thread_time() - started
    producer.close()
    return spent / events * 1e6


def _drain(settings: RuntimeSettings, events: int) -> float:
    consumer = kafka.open_consumer(settings, "bench", fetch=FetchProfile.BULK)
    consumer.assign({(TRAFFIC, partition): 0 for partition in range(PARTITIONS)})
    seen, started = 0, time.thread_time()
    while seen < events:
        seen += len(consumer.poll(BATCH, 0.005))
    spent = time.thread_time() - started
    consumer.close()
    return spent / seen * 1e6


def _pass_ours(settings: RuntimeSettings, events: int) -> None:
    consumer, producer = kafka.open_consumer(settings, "bench"), kafka.open_producer(settings)
    consumer.assign({(TRAFFIC, partition): 0 for partition in range(PARTITIONS)})
    seen = 0
    while seen < events:
        records = consumer.poll(BATCH, 0.005)
        producer.publish([Out(RTDL, r.partition, r.key or b"", r.value, r.header, r.traceparent) for r in records])
        seen += len(records)
    consumer.close()
    producer.close()


def _pass_bare(settings: RuntimeSettings, events: int) -> None:
    consumer = Consumer(consumer_options(settings, "bench", FetchProfile.LOW_LATENCY))
    producer = Producer(producer_options(settings, 1, 30.0))
    source, target = (physical(settings.topic_prefix, topic) for topic in (TRAFFIC, RTDL))
    consumer.assign([TopicPartition(source, partition, 0) for partition in range(PARTITIONS)])
    seen = 0
    while seen < events:
        first = consumer.poll(0.005)
        messages = [] if first is None else [first, *consumer.consume(BATCH - 1, 0)]
        for message in messages:
            key, value, headers = message.key(), message.value(), message.headers()
            producer.produce(target, value, key, message.partition() or 0, _ignore, headers=headers)
        producer.flush()
        seen += len(messages)
    consumer.close()


def _ignore(_error: Any, _message: Any) -> None:
    """The delivery report that both sides ask for."""


@contextmanager
def _broker(bootstrap: str | None) -> Iterator[str]:
    if bootstrap is not None:
        yield bootstrap
        return
    from fp_operator.stack import down, up  # only without an address: an address must work without the operator

    with tempfile.TemporaryDirectory(prefix="fp-bench-") as name:
        Path(name).chmod(0o755)
        try:
            yield up(Path(name), die_with_caller=True).kafka_bootstrap
        finally:
            down(Path(name))


def main() -> None:
    """Print every figure as one JSON line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bootstrap", help="Kafka address; none = start the embedded stack")
    options.add_argument("--events", type=int, default=50_000)
    chosen = options.parse_args()
    with _broker(chosen.bootstrap) as bootstrap:
        for figure in bare_bus(bootstrap, chosen.events):
            print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
