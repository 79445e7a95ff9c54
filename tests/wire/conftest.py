"""One migrated database for the session with the runtime roles able to log in; each test has a run of its own."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from fp_operator.stack import StackAddresses
from fp_runtime.postgres import Connection, connect, ensure_roles, migrate

PASSWORD = "wire-test"
ROLES = ("fp_df", "fp_rtdl", "fp_verdict", "fp_operator")


@pytest.fixture(scope="session")
def owner_dsn(stack: StackAddresses) -> Iterator[str]:
    """The owner's connection string of the session's database."""
    with _fresh(stack) as dsn:
        migrate(dsn, ["fp_runtime"])
        ensure_roles(dsn, dict.fromkeys(ROLES, PASSWORD))
        yield dsn


@pytest.fixture
def empty_dsn(stack: StackAddresses) -> Iterator[str]:
    """The owner's connection string of a database in which nothing was migrated."""
    with _fresh(stack) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def role_dsn(owner_dsn: str) -> Callable[[str], str]:
    """A runtime role's connection string of the session's database."""
    return lambda role: make_conninfo(owner_dsn, user=role, password=PASSWORD)


@pytest.fixture
def run() -> str:
    """A run that no other test uses."""
    return f"platform_20260101T000000Z-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def owner(owner_dsn: str) -> Iterator[Connection]:
    with connect(owner_dsn, "wire-owner") as conn:
        yield conn


@pytest.fixture
def df(role_dsn: Callable[[str], str]) -> Iterator[Connection]:
    with connect(role_dsn("fp_df"), "wire-df-0") as conn:
        yield conn


@pytest.fixture
def zombie(role_dsn: Callable[[str], str]) -> Iterator[Connection]:
    """A second process that takes itself for the same member."""
    with connect(role_dsn("fp_df"), "wire-df-0-old") as conn:
        yield conn


@pytest.fixture
def operator(role_dsn: Callable[[str], str]) -> Iterator[Connection]:
    with connect(role_dsn("fp_operator"), "wire-operator") as conn:
        yield conn


@contextmanager
def _fresh(stack: StackAddresses) -> Iterator[str]:
    name = f"wire_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stack.pg_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield stack.pg_dsn_for(name)
    finally:
        with psycopg.connect(stack.pg_dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
