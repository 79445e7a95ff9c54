"""What is written into the servers' own configuration files."""

import hashlib
from pathlib import Path

from fp_operator.stack.java import Java
from fp_operator.stack.kafka import Distribution, server_properties
from fp_operator.stack.postgres import PG_HBA, bootstrap_sql, dsn_of, postgresql_conf
from fp_operator.stack.valkey import users_acl, valkey_conf


def pairs(text: str, separator: str) -> dict[str, str]:
    split = [line.partition(separator) for line in text.splitlines()]
    return {key.strip(): value.strip() for key, _, value in split}


def test_the_broker_listens_on_loopback_only_and_comes_back_fast() -> None:
    found = pairs(server_properties(Path("/state/kafka/data"), 1111, 2222), "=")
    assert found["listeners"] == "PLAINTEXT://127.0.0.1:1111,CONTROLLER://127.0.0.1:2222"
    assert found["controller.quorum.voters"] == "1@127.0.0.1:2222"
    assert found["log.dirs"] == "/state/kafka/data"
    assert found["broker.session.timeout.ms"] == "1500"
    assert found["auto.create.topics.enable"] == "false"
    assert (found["num.network.threads"], found["num.io.threads"]) == ("1", "1")


def test_the_broker_runs_small_and_its_class_path_is_in_the_order_of_the_jars() -> None:
    jars = (Path("/c/a.jar"), Path("/c/b.jar"))
    broker = Distribution(Java(Path("/j/bin/java"), "17.0.1"), jars, Path("/c"))
    command = broker.command("kafka.Kafka", "x.properties")
    assert {"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"} <= set(command)
    assert command[-4:] == ("-cp", "/c/a.jar:/c/b.jar", "kafka.Kafka", "x.properties")


def test_the_start_up_cache_belongs_to_one_java_and_one_class_path() -> None:
    def cache(version: str, jar: str) -> Path:
        return Distribution(Java(Path("/j"), version), (Path(jar),), Path("/c")).aot_cache

    assert cache("25.0.1", "/c/a.jar") == cache("25.0.1", "/c/a.jar")
    assert len({cache("25.0.1", "/c/a.jar"), cache("25.0.2", "/c/a.jar"), cache("25.0.1", "/c/b.jar")}) == 3


def test_postgresql_is_durable_loopback_only_and_asks_for_passwords() -> None:
    found = pairs(postgresql_conf(5555), "=")
    assert (found["listen_addresses"], found["port"]) == ("'127.0.0.1'", "5555")
    assert found["unix_socket_directories"] == "''"
    assert (found["shared_buffers"], found["max_wal_size"]) == ("256MB", "4GB")
    assert not {"fsync", "synchronous_commit", "full_page_writes"} & found.keys()
    assert PG_HBA.split() == ["host", "all", "all", "127.0.0.1/32", "scram-sha-256"]


def test_the_owner_is_no_superuser_and_has_one_statement_a_line() -> None:
    lines = bootstrap_sql("pw").splitlines()
    assert all(line.endswith(";") for line in lines)
    assert "NOSUPERUSER" in lines[0]
    assert dsn_of("r", "p/w", 5, "d") == "postgresql://r:p%2Fw@127.0.0.1:5/d"


def test_valkey_keeps_only_the_hash_of_the_password_and_no_anonymous_user() -> None:
    acl = users_acl("secret")
    assert acl.splitlines()[0] == "user default off"
    assert hashlib.sha256(b"secret").hexdigest() in acl
    assert "secret" not in acl
    conf = valkey_conf(Path("/with space/valkey"), 6666)
    assert 'dir "/with space/valkey"' in conf
    assert "bind 127.0.0.1\n" in conf
    assert "maxmemory-policy noeviction" in conf
