"""The embedded stack as an operator meets it: started, asked, hurt, repaired, stopped, nothing left."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from fp_operator.stack import StackAddresses, Supervisor, down, start, status, up
from fp_operator.stack.kafka import probe_kafka
from fp_operator.stack.postgres import probe_postgres
from fp_operator.stack.server import NotReady
from fp_operator.stack.state import StateFolder
from fp_operator.stack.strays import strays
from fp_runtime.deadline import until
from fp_runtime.errors import UserError
from fp_runtime.telemetry import Metric
from fp_runtime.telemetry_read import open_telemetry

pytestmark = pytest.mark.stack

SERVERS = {"kafka", "postgres", "valkey"}
EMBEDDED = {"PATH": os.environ["PATH"]}
"""An environment without addresses, so that every server is our own."""


@contextmanager
def state_folder() -> Iterator[Path]:
    """A state folder which any account may enter; whatever runs there is ended."""
    with tempfile.TemporaryDirectory(prefix="fp-own-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        down(path)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The state folder of this module's stack; each test begins with `own_up`, which repairs what the last broke."""
    with state_folder() as path:
        yield path


def own_up(home: Path) -> StackAddresses:
    return up(home, environ=EMBEDDED, die_with_caller=True)


@dataclass(frozen=True)
class SmallStack:
    """A second stack that embeds Valkey only: quick to start, for what is the same for every server."""

    home: Path
    given: dict[str, str]

    def up(self) -> StackAddresses:
        return up(self.home, environ=self.given, die_with_caller=True)


@pytest.fixture
def small(home: Path) -> Iterator[SmallStack]:
    first = own_up(home)
    given = {"FP_KAFKA_BOOTSTRAP": first.kafka_bootstrap, "FP_PG_DSN": first.pg_dsn}
    with state_folder() as path:
        yield SmallStack(path, EMBEDDED | given)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def ports_of(addresses: StackAddresses) -> list[int]:
    kafka = int(addresses.kafka_bootstrap.rpartition(":")[2])
    return [kafka, *(port for url in (addresses.pg_dsn, addresses.redis_url) if (port := urlsplit(url).port))]


def answers(probe: object, address: str) -> bool:
    try:
        probe(address)  # type: ignore[operator]
    except NotReady:
        return False
    return True


def create_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result()


def produce(bootstrap: str, topic: str, value: bytes) -> int:
    """Offset of one acknowledged record."""
    offsets: list[int | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    producer.produce(topic, value, on_delivery=lambda error, record: offsets.append(-1 if error else record.offset()))
    assert producer.flush(20) == 0
    assert offsets[0] is not None
    return offsets[0]


def test_one_start_gives_three_servers_that_answer_and_a_second_start_changes_nothing(home: Path) -> None:
    steps: list[tuple[str, str]] = []
    first = up(home, environ=EMBEDDED, die_with_caller=True, on_step=lambda name, state, _: steps.append((name, state)))

    create_topic(first.kafka_bootstrap, "t")
    assert produce(first.kafka_bootstrap, "t", b"one") == 0
    with psycopg.connect(first.pg_dsn) as connection:
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
    with redis.Redis.from_url(first.redis_url) as client:
        assert client.set("k", "v") is True
    assert {name for name, state in steps if state == "ready"} == SERVERS

    before = {program.name: program.pid for program in status(home)}
    assert own_up(home) == first
    assert {program.name: program.pid for program in status(home)} == before
    assert before.keys() == SERVERS


def test_strangers_are_refused(home: Path) -> None:
    addresses = own_up(home)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(addresses.pg_dsn_as("fp_owner", "wrong"))
    anonymous = f"redis://127.0.0.1:{urlsplit(addresses.redis_url).port}/0"
    with redis.Redis.from_url(anonymous) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert (home / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_killed_servers_come_back_with_what_they_had_acknowledged(home: Path) -> None:
    addresses = own_up(home)
    create_topic(addresses.kafka_bootstrap, "kept")
    assert produce(addresses.kafka_bootstrap, "kept", b"before") == 0
    with psycopg.connect(addresses.pg_dsn) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    with redis.Redis.from_url(addresses.redis_url) as client:
        client.set("kept", "yes")

    supervisor = Supervisor(home)
    for name in SERVERS:
        killed = supervisor.pid(name)
        supervisor.signal(name, "KILL")
        until(lambda name=name, killed=killed: (pid := supervisor.pid(name)) and pid != killed, 60, f"a new {name}")  # type: ignore[misc]

    until(lambda: answers(probe_postgres, addresses.pg_dsn), 60, "PostgreSQL answers again")
    with psycopg.connect(addresses.pg_dsn) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]
    until(lambda: answers(probe_kafka, addresses.kafka_bootstrap), 60, "Kafka answers again")
    assert produce(addresses.kafka_bootstrap, "kept", b"after") == 1
    with redis.Redis.from_url(addresses.redis_url) as client:
        assert client.get("kept") == b"yes"


def test_down_leaves_no_process_and_no_port_and_the_data_are_there_at_the_next_start(home: Path) -> None:
    first = own_up(home)
    with psycopg.connect(first.pg_dsn) as connection:
        connection.execute("CREATE TABLE kept_by_down AS SELECT 7 AS n")
    assert all(listens(port) for port in ports_of(first))

    down(home)
    assert strays(home) == []
    assert not any(listens(port) for port in ports_of(first))
    assert status(home) == []
    down(home)  # once more is no error

    assert own_up(home) == first
    with psycopg.connect(first.pg_dsn) as connection:
        assert connection.execute("SELECT n FROM kept_by_down").fetchall() == [(7,)]


def test_a_killed_supervisor_takes_everything_with_it_and_the_next_start_repairs(home: Path) -> None:
    first = own_up(home)
    members = strays(home)
    assert {process.name() for process in members} >= {"java", "postgres", "valkey-server"}

    os.kill(int((home / "supervisor" / "supervisord.pid").read_text()), signal.SIGKILL)
    until(lambda: not strays(home), 20, "nothing of the stack is left")
    assert not any(listens(port) for port in ports_of(first))

    assert own_up(home) == first


def test_half_a_stack_is_made_whole(home: Path) -> None:
    first = own_up(home)
    supervisor = Supervisor(home)
    kept = supervisor.pid("postgres")
    supervisor.stop("valkey")

    assert own_up(home) == first
    assert {state.state for state in supervisor.states().values()} <= {"RUNNING", "STARTING"}
    assert supervisor.pid("postgres") == kept


def test_a_frozen_server_does_not_outlive_down(small: SmallStack) -> None:
    small.up()
    psutil.Process(Supervisor(small.home).pid("valkey")).suspend()  # it may not hear that its supervisor dies
    os.kill(int((small.home / "supervisor" / "supervisord.pid").read_text()), signal.SIGKILL)
    down(small.home)
    assert strays(small.home) == []


def test_a_port_lost_to_another_program_is_replaced(small: SmallStack) -> None:
    first = small.up()
    down(small.home)
    taken = urlsplit(first.redis_url).port
    with socket.create_server(("127.0.0.1", taken or 0)):
        second = small.up()
    assert urlsplit(second.redis_url).port != taken
    assert second.pg_dsn == first.pg_dsn


def test_a_port_lost_during_the_start_is_replaced(small: SmallStack, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        taken = thief.getsockname()[1]
        StateFolder(small.home).save_ports({"valkey": taken})
        looks: Iterator[bool] = iter([True])  # the first look is too early, the later ones see the thief
        monkeypatch.setattr(start, "is_free", lambda port: next(looks, False))
        addresses = small.up()
    assert urlsplit(addresses.redis_url).port != taken


def test_an_address_in_the_environment_is_used_and_must_answer(small: SmallStack) -> None:
    addresses = small.up()
    assert addresses.kafka_bootstrap == small.given["FP_KAFKA_BOOTSTRAP"]
    assert addresses.pg_dsn == small.given["FP_PG_DSN"]
    assert [program.name for program in status(small.home)] == ["valkey"]

    with pytest.raises(UserError, match="the valkey server given in FP_REDIS_URL does not answer"):
        up(small.home, environ=EMBEDDED | {"FP_REDIS_URL": "redis://127.0.0.1:1/0"})


def test_a_server_that_cannot_start_is_one_line_and_leaves_nothing(small: SmallStack) -> None:
    small.up()
    down(small.home)
    (small.home / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("rubbish\n")
    with pytest.raises(UserError, match=r"valkey did not start: .* Fix: see .*valkey.log") as raised:
        small.up()
    assert "\n" not in str(raised.value)
    assert status(small.home) == []
    assert strays(small.home) == []


def test_an_interrupted_start_leaves_nothing(small: SmallStack) -> None:
    def interrupt(name: str, state: str, seconds: float) -> None:
        if (name, state) == ("valkey", "starting"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        up(small.home, environ=small.given, on_step=interrupt)
    assert status(small.home) == []
    assert strays(small.home) == []


def test_data_of_another_version_are_refused() -> None:
    with state_folder() as path:
        (path / "postgres" / "data").mkdir(parents=True)
        (path / "postgres" / "data" / "PG_VERSION").write_text("9\n")
        with pytest.raises(UserError, match=r"cannot start PostgreSQL: the data in .* are of version 9"):
            own_up(path)
        assert strays(path) == []


def test_telemetry_is_kept_as_lines(small: SmallStack) -> None:
    addresses = up(small.home, environ=small.given, die_with_caller=True, telemetry=True)
    exporter = OTLPSpanExporter(endpoint=f"{addresses.otlp_endpoint}/v1/traces")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("test").start_span("a span of this test").end()
    provider.shutdown()
    lines = small.home / "telemetry" / "otlp.ndjson"
    until(lambda: "a span of this test" in lines.read_text(), 10, "the span is in the file")


JOB = """
import sys
from fp_runtime import jobrun
with jobrun.running("fp_ofs", b"request") as runtime:
    jobrun.show_progress(runtime.instance, "publish", 1, 3)
    jobrun.show_progress(runtime.instance, "publish", 3, 3)
    jobrun.show_quality(runtime.instance, {"rows": 90, "frauds": 5})
    print(runtime.instance)
"""


def test_what_a_job_sends_reads_back_from_the_sink(small: SmallStack) -> None:
    addresses = up(small.home, environ=small.given, die_with_caller=True, telemetry=True)
    assert addresses.telemetry_url is not None
    told = open_telemetry(addresses.telemetry_url, (Metric.JOB_PROGRESS, Metric.JOB_QUALITY))
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": str(addresses.otlp_endpoint)}
    done = subprocess.run([sys.executable, "-c", JOB], env=env, capture_output=True, text=True, check=True, timeout=60)
    name = done.stdout.strip()
    points = until(lambda: told.points({"job": name}) or None, 10, "the points are in the file")
    found = {(str(p.attributes.get("stage") or p.attributes["measure"]), p.value) for p in points}
    assert found == {("publish", 3), ("rows", 90), ("frauds", 5)}
    assert told.points({"job": "another"}) == []


def test_each_test_gets_a_migrated_database_of_its_own(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM ops.migration").fetchone() == (True,)
        connection.execute("CREATE TABLE mine (n int)")
