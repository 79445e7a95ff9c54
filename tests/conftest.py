"""Real servers for the tests that need them: one stack a session, names of its own for each test."""

import gc
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from fp_operator.stack import StackAddresses, Supervisor, down, up
from fp_operator.stack.addresses import STORES, given_addresses, store_url
from fp_runtime.postgres import migrate

PACKAGES = ("fp_sr", "fp_wsp", "fp_ig", "fp_rtdl", "fp_df", "fp_cm_ls", "fp_verdict", "fp_ofs_trigger")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--stack` chooses what stands behind the fixture `stack`."""
    parser.addoption(
        "--stack",
        choices=("embedded", "containers", "external"),
        default="embedded",
        help="servers behind the tests: our own processes (but those given as FP_… addresses), containers, "
        "or all given as FP_… addresses",
    )


@pytest.fixture(scope="session")
def stack_dir() -> Iterator[Path]:
    """The state folder of the session, which any account may enter; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="fp-stack-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, stack_dir: Path) -> Iterator[StackAddresses]:
    """Addresses of ready servers, shared by the whole session: keep to your own topics, databases and keys."""
    start: dict[str, Callable[[Path], Iterator[StackAddresses]]] = {
        "embedded": _embedded,
        "containers": _containers,
        "external": _external,
    }
    yield from start[request.config.getoption("--stack")](stack_dir)


@pytest.fixture(scope="session")
def supervisor(stack: StackAddresses, stack_dir: Path) -> Supervisor:
    """The supervisor of the session's embedded servers; run services by `update(owner, programs)`."""
    found = Supervisor(stack_dir)
    if not found.alive():
        pytest.skip("the servers are not embedded, so nothing supervises them")
    return found


@pytest.fixture
def topic_prefix() -> str:
    """A prefix no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture(scope="session")
def migrated(stack: StackAddresses) -> Iterator[str]:
    """Name of a database with every migration applied: the template that `database` copies."""
    with _new_database(stack) as name:
        migrate(stack.pg_dsn_for(name), [package for package in PACKAGES if find_spec(package)])
        yield name


@pytest.fixture
def database(stack: StackAddresses, migrated: str) -> Iterator[str]:
    """Owner's connection string of a fresh, migrated database; dropped after the test."""
    with _new_database(stack, template=migrated) as name:
        yield stack.pg_dsn_for(name)


@pytest.fixture(scope="module")
def module_database(stack: StackAddresses, migrated: str) -> Iterator[str]:
    """As `database`, for all tests of a module."""
    with _new_database(stack, template=migrated) as name:
        yield stack.pg_dsn_for(name)


@contextmanager
def _new_database(stack: StackAddresses, template: str = "template0") -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex[:12]}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(stack.pg_dsn, autocommit=True) as connection:
        connection.execute(create)
    try:
        yield name
    finally:
        with psycopg.connect(stack.pg_dsn, autocommit=True) as connection:
            connection.execute(drop)


def _embedded(state_dir: Path) -> Iterator[StackAddresses]:
    try:
        yield up(state_dir, die_with_caller=True)
    finally:
        down(state_dir)


def _external(state_dir: Path) -> Iterator[StackAddresses]:
    missing = {"kafka_bootstrap", "pg_dsn", "redis_url"} - given_addresses().keys()
    if missing:
        pytest.skip(f"--stack=external without {', '.join(f'FP_{name.upper()}' for name in sorted(missing))}")
    yield up(state_dir)


def _containers(state_dir: Path) -> Iterator[StackAddresses]:
    """The same servers from container images; skipped with the reason where no engine runs."""
    if reason := _why_no_engine():
        pytest.skip(f"--stack=containers: no container engine runs ({reason})")
    from testcontainers.community.kafka import KafkaContainer
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    with ExitStack() as running:
        kafka = running.enter_context(KafkaContainer("confluentinc/cp-kafka:8.0.0").with_kraft())
        postgres = running.enter_context(PostgresContainer("postgres:18", driver=None))
        valkey = running.enter_context(RedisContainer("valkey/valkey:8"))
        servers = {
            "FP_KAFKA_BOOTSTRAP": kafka.get_bootstrap_server(),
            "FP_PG_DSN": postgres.get_connection_url(),
            "FP_REDIS_URL": f"redis://{valkey.get_container_host_ip()}:{valkey.get_exposed_port(6379)}/0",
        }
        stores = {f"FP_{store.upper()}_URL": store_url(state_dir, store) for store in STORES}
        for store in STORES:
            (state_dir / store).mkdir()
        yield up(state_dir, environ=servers | stores)


def _why_no_engine() -> str | None:
    """None when a container engine answers. The client leaks its socket when none does, and warnings are errors."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            docker.from_env().close()
            reason = None
        except DockerException as error:
            reason = str(error)
        gc.collect()
    return reason
