"""A scratch namespace made for real: a process, topics, a database, keys; and residuals planted into an empty one."""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
from psycopg import sql

from fp_contracts import topics
from fp_contracts.scratch import Scratch
from fp_operator import mesh
from fp_operator.namespace import Namespace
from fp_operator.programs import actuator
from fp_operator.residue import PROFILE, Residual, online, topics_of
from fp_operator.stack import StackAddresses, Supervisor
from fp_operator.stack.tether import MARK
from fp_runtime.bus import physical
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable
from fp_runtime.online import OnlineReader, OnlineWriter, bucket_key
from fp_runtime.postgres import connect, migrate

TOPICS = (topics.CONTROL, topics.AUDIT)
PROCESS = "actuator"
_KIND, _ENTRIES = "accounts", {"a1": b"1", "a2": b"2"}
_WAIT_S = 60.0


def make(space: Namespace, scratch: Scratch, addresses: StackAddresses) -> list[Residual]:
    """Make everything and return it by name. Unavailable, TimeoutError or UserError when something could not be."""
    made = [_process(space)]
    with closing(topics_of(scratch, addresses)) as admin:
        admin.create_topics(TOPICS)
    made += [Residual("topic", physical(scratch.topic_prefix, name)) for name in TOPICS]
    database(addresses, scratch.database)
    migrate(addresses.pg_dsn_for(scratch.database), [])
    made.append(Residual("database", scratch.database))
    with closing(OnlineWriter(addresses.redis_url)) as writer:
        writer.put(scratch.run, _KIND, _ENTRIES)
        if not writer.flush(_WAIT_S):
            raise Unavailable("low-latency store: entries could not be written")
    keys = {bucket_key(scratch.run, _KIND, entity) for entity in _ENTRIES}
    return [*made, *(Residual("key", key) for key in sorted(keys))]


def works(space: Namespace, scratch: Scratch, addresses: StackAddresses) -> dict[str, bool]:
    """Each part used as a run would: the process answers, topics have partitions, tables are there, entries read."""
    with closing(topics_of(scratch, addresses)) as admin:
        described = admin.describe()
    with connect(addresses.pg_dsn_for(scratch.database), "fp-rehearsal") as conn:
        tables = conn.execute("SELECT to_regclass('ops.meter') IS NOT NULL").fetchone()
    with closing(OnlineReader(addresses.redis_url)) as reader:
        entries = reader.read_all(scratch.run, _KIND)
    return {
        "process": mesh.answers(space.ports[PROCESS]),
        "topic": {name: state.partitions for name, state in described.items()}
        == {name: topics.pinned(PROFILE)[name].partitions for name in TOPICS},
        "database": bool(tables and tables[0]),
        "key": entries == _ENTRIES,
    }


def _process(space: Namespace) -> Residual:
    """A service of its own under a supervisor of its own, which ends with this process."""
    program = actuator(space.state_dir, space.ports[PROCESS], "rehearsal")
    supervisor = Supervisor(space.state_dir)
    supervisor.launch(mesh.OWNER, [program], die_with_caller=True)
    supervisor.start(PROCESS)
    until(lambda: mesh.answers(space.ports[PROCESS]), _WAIT_S, "the scratch actuator answers", interval_s=0.1)
    pid = supervisor.pid(PROCESS)
    if pid is None:
        raise Unavailable("the scratch actuator ended")
    return Residual("process", f"{pid} {psutil.Process(pid).name()}")


def database(addresses: StackAddresses, name: str) -> None:
    """An empty database. The owner must be allowed to make one."""
    with connect(addresses.pg_dsn, "fp-rehearsal") as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))


@contextmanager
def planted(space: Namespace, scratch: Scratch, addresses: StackAddresses) -> Iterator[list[Residual]]:
    """One residual of each kind, in a namespace where nothing is; the process is reaped at the end."""
    space.state_dir.mkdir(mode=0o700, exist_ok=True)
    port, name = space.ports[PROCESS], f"{scratch.database}_planted"
    stray = _stray(space.state_dir, port)
    try:
        with closing(topics_of(scratch, addresses)) as admin:
            admin.create_topics([topics.AUDIT])
        database(addresses, name)
        key = f"{scratch.key_prefix}planted"
        with online(addresses) as client:
            client.set(key, b"1")
        until(lambda: _listens(port), _WAIT_S, "the planted process listens", interval_s=0.1)
        yield [
            Residual("process", f"{stray.pid} {psutil.Process(stray.pid).name()}"), Residual("port", PROCESS),
            Residual("topic", physical(scratch.topic_prefix, topics.AUDIT)), Residual("database", name),
            Residual("key", key), Residual("folder", str(space.state_dir)),
        ]  # fmt: skip
    finally:
        stray.kill()
        stray.wait(_WAIT_S)


def _stray(state_dir: Path, port: int) -> subprocess.Popen[bytes]:
    """A process that bears the namespace's mark and that nobody supervises."""
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(state_dir)]
    return subprocess.Popen(
        argv, env={**os.environ, MARK: str(state_dir)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True
