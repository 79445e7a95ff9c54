"""Apache Kafka as one embedded broker (KRaft combined mode): files, command line, readiness."""

import contextlib
import hashlib
import logging
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fp_operator.stack.java import Java, find_java
from fp_operator.stack.kafka_jars import KAFKA_VERSION, cache_root, fetch_jars, lock_text, parse_lock
from fp_operator.stack.program import Program
from fp_operator.stack.server import NotReady
from fp_runtime.errors import UserError

_CLUSTER_ID = "ZnAtZW1iZWRkZWQtc3RhY2"  # any 22 characters of url-safe base64
_PROBE_TIMEOUT_S = 2.0
_JVM = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xmx256m",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)


def server_properties(data: Path, port: int, controller_port: int) -> str:
    """The broker's settings: small, quick to start, quick to come back after a kill (measured, see the ADR)."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "2",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "broker.session.timeout.ms": "1500",
        "broker.heartbeat.interval.ms": "300",
        "log.cleaner.dedupe.buffer.size": "2097152",
        "num.network.threads": "1",
        "num.io.threads": "1",
        "background.threads": "2",
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


@dataclass(frozen=True, slots=True)
class Distribution:
    """The broker's program files in the cache, shared by all stacks of this user."""

    java: Java
    jars: tuple[Path, ...]
    folder: Path

    @property
    def class_path(self) -> str:
        return ":".join(str(jar) for jar in self.jars)

    @property
    def aot_cache(self) -> Path:
        """Start-up cache of the JVM; valid for one Java and one list of jars."""
        key = hashlib.sha256(f"{self.java.version}\n{self.class_path}\n{lock_text()}".encode()).hexdigest()[:12]
        return self.folder / f"kafka-{key}.aot"

    @property
    def template(self) -> Path:
        """A formatted, empty data folder; valid for one version of Kafka."""
        return self.folder / f"template-{hashlib.sha256(lock_text().encode()).hexdigest()[:12]}"

    def command(self, main: str, *arguments: str, flags: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The command line of one of Kafka's main classes, with the start-up cache when it has been made."""
        aot = (f"-XX:AOTCache={self.aot_cache}",) if self.java.has_aot_cache and self.aot_cache.exists() else ()
        return (str(self.java.path), *_JVM, *aot, *flags, "-cp", self.class_path, main, *arguments)


def distribution() -> Distribution:
    """Find Java, fetch what is missing of the jars, and format the template once."""
    java = find_java()
    folder = cache_root() / f"kafka-{KAFKA_VERSION}"
    made = Distribution(java, fetch_jars(folder / "jars", parse_lock(lock_text())), folder)
    if not made.template.exists():
        _format(made)
    return made


def _format(dist: Distribution) -> None:
    with tempfile.TemporaryDirectory(dir=dist.folder) as scratch:
        data, properties = Path(scratch) / "data", Path(scratch) / "server.properties"
        properties.write_text(server_properties(data, 1, 2))
        command = dist.command("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(properties))
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise UserError("cannot format Kafka's data folder", lines[-1], f"remove {dist.folder} and try again")
        with contextlib.suppress(OSError):  # another process was quicker: its template is as good
            data.rename(dist.template)


@dataclass(frozen=True, slots=True)
class Kafka:
    """One broker with its controller, data below `folder`."""

    folder: Path
    port: int
    controller_port: int
    name: str = "kafka"

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, self.controller_port)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> Program:
        """Copy the formatted template unless there are data, write the settings."""
        dist = distribution()
        data, scratch = self.folder / "data", self.folder / "tmp"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not data.exists():
            half = self.folder / "data.part"
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(dist.template, half)
            half.rename(data)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        properties = self.folder / "server.properties"
        properties.write_text(server_properties(data, *self.ports))
        argv = dist.command("kafka.Kafka", str(properties), flags=(f"-Djava.io.tmpdir={scratch}",))
        return Program(self.name, argv, cwd=self.folder, priority=100, start_retries=3, stop_seconds=20)

    def probe(self) -> None:
        probe_kafka(self.bootstrap)


def probe_kafka(bootstrap: str, timeout_s: float = _PROBE_TIMEOUT_S) -> None:
    """Ask for the cluster's brokers: an unfenced one shows only when it can lead partitions."""
    options: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "logger": logging.getLogger("fp_operator.stack.kafka"),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 200,
    }
    try:
        brokers = AdminClient(options).list_topics(timeout=timeout_s).brokers
    except KafkaException as error:
        raise NotReady(error.args[0].str()) from error
    if not brokers:
        raise NotReady("no broker is unfenced yet")
