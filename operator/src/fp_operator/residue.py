"""The residual scan: what of a namespace is still there, each thing by kind and name."""

from typing import Final, NamedTuple

import psycopg
import redis

from fp_contracts.scratch import Scratch
from fp_operator import mesh
from fp_operator.namespace import Namespace
from fp_operator.stack import StackAddresses, Supervisor
from fp_operator.stack.strays import strays
from fp_runtime.errors import Unavailable
from fp_runtime.kafka import open_admin
from fp_runtime.kafka_admin import KafkaAdmin
from fp_runtime.postgres import connect
from fp_runtime.settings import RuntimeSettings

_TIMEOUT_S = 10.0
PROFILE: Final = "local"
"""Of a scratch namespace: it lies on the servers that the operator started."""


class Residual(NamedTuple):
    """One thing that is there; kinds as in fp_contracts.scratch."""

    kind: str
    name: str


def scan(space: Namespace, addresses: StackAddresses | None, tended: bool = False) -> tuple[Residual, ...]:
    """Everything of the namespace that is there; `tended`: what its own supervisor runs is no residue.

    Topics, database, keys and the folder belong to a scratch namespace only: they need `addresses`. Unavailable.
    """
    found = [Residual("process", name) for name in processes(space, tended)]
    found += [Residual("port", name) for name, port in sorted(space.ports.items()) if mesh.answers(port)]
    if space.scratch is not None and addresses is not None:
        found += _data(space.scratch, addresses)
        found += [Residual("folder", str(space.state_dir))] if space.state_dir.exists() else []
    return tuple(found)


def processes(space: Namespace, tended: bool = False) -> list[str]:
    """Marked processes, "pid name"; `tended`: without the supervisor and the trees of what it runs."""
    supervisor = Supervisor(space.state_dir)
    kept = {state.pid for state in supervisor.states().values()} if tended and supervisor.alive() else None
    found = []
    for process in strays(space.state_dir):
        family = {process.pid, *(parent.pid for parent in process.parents())}
        is_daemon = any("supervisord" in part for part in process.cmdline())
        if kept is None or not (family & kept or is_daemon):
            found.append(f"{process.pid} {process.name()}")
    return found


def _data(scratch: Scratch, addresses: StackAddresses) -> list[Residual]:
    admin = topics_of(scratch, addresses)
    try:
        found = [Residual("topic", name) for name in admin.under_prefix()]
    finally:
        admin.close()
    found += [Residual("database", name) for name in databases_of(scratch, addresses)]
    return found + [Residual("key", name) for name in keys_of(scratch, addresses)]


def topics_of(scratch: Scratch, addresses: StackAddresses) -> KafkaAdmin:
    """An admin of the namespace's topics."""
    return open_admin(
        RuntimeSettings(
            instance="operator-0", kafka_bootstrap=addresses.kafka_bootstrap, pg_dsn=addresses.pg_dsn,
            evidence_url=addresses.evidence_url, topic_prefix=scratch.topic_prefix, profile=PROFILE,
        )
    )  # fmt: skip


def databases_of(scratch: Scratch, addresses: StackAddresses) -> list[str]:
    """Databases whose name begins as the namespace's does."""
    with connect(addresses.pg_dsn, "fp-residue") as conn:
        try:
            rows = conn.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY datname", (scratch.database,)
            ).fetchall()
        except psycopg.OperationalError as error:
            raise Unavailable(f"PostgreSQL: {str(error).strip()}") from error
    return [str(name) for (name,) in rows]


def keys_of(scratch: Scratch, addresses: StackAddresses) -> list[str]:
    """Keys of the namespace in the low-latency store."""
    try:
        with online(addresses) as client:
            return sorted(key.decode() for key in client.scan_iter(match=f"{scratch.key_prefix}*", count=1_000))
    except redis.RedisError as error:
        raise Unavailable(f"low-latency store: {error}") from error


def online(addresses: StackAddresses) -> redis.Redis:
    """A client of the low-latency store; close it."""
    return redis.Redis.from_url(
        addresses.redis_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
    )  # fmt: skip
