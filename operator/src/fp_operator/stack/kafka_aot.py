"""The JVM's start-up cache for the broker (JDK 25): made by one training run, 10–20 s, then a start saves 1.5 s.

`up` uses it when it is there and never makes it: it pays for who starts brokers often (fault campaigns, developers).
Make it with `python -m fp_operator.stack.kafka_aot`.
"""

import logging
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stubs do not export NewTopic
    AdminClient,
    NewTopic,
)

from fp_operator.stack.kafka import Distribution, Kafka, distribution
from fp_operator.stack.server import NotReady
from fp_operator.stack.state import choose_ports
from fp_runtime.deadline import until

_READY_S = 60
_DUMP_S = 180


def make_start_cache() -> Path | None:
    """The cache file, made when missing; None when this Java cannot make one."""
    dist = distribution()
    if not dist.java.has_aot_cache:
        return None
    if not dist.aot_cache.exists():
        with tempfile.TemporaryDirectory(dir=dist.folder) as scratch:
            _train(dist, Path(scratch)).replace(dist.aot_cache)
    return dist.aot_cache


def _train(dist: Distribution, scratch: Path) -> Path:
    """Run a broker through a first produce and a clean stop; the JVM writes the cache as it ends."""
    output = scratch / "kafka.aot"
    ports = choose_ports(("kafka", "controller"))
    broker = Kafka(scratch / "kafka", ports["kafka"], ports["controller"])
    java, *rest = broker.prepare().argv
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen([java, f"-XX:AOTCacheOutput={output}", *rest], stdout=log, stderr=log)
    try:
        until(lambda: _answers(broker), _READY_S, "the training broker answers")
        _exercise(broker.bootstrap)
        process.terminate()
        process.wait(_DUMP_S)
    finally:
        process.kill()
        process.wait()
    return output


def _answers(broker: Kafka) -> bool:
    try:
        broker.probe()
    except NotReady:
        return False
    return True


def _exercise(bootstrap: str) -> None:
    options: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0, "logger": logging.getLogger(__name__)}
    admin = AdminClient(options)
    for done in admin.create_topics([NewTopic("training", 3)]).values():
        done.result()
    producer = Producer({**options, "enable.idempotence": True, "compression.type": "lz4"})
    for number in range(1_000):
        producer.produce("training", os.urandom(200), key=str(number))
    producer.flush(30)


if __name__ == "__main__":
    make_start_cache()
