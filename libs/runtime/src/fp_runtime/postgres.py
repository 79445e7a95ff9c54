"""PostgreSQL: connections, transactions, migrations and roles.

Migrations are plain files `<package>/migrations/NNNN_name.sql`, applied by the code here and not by yoyo-migrations,
which keeps its lock as a row that a killed process leaves behind and that then stops every later start, and which does
not notice a file that was edited after it was applied. An advisory lock dies with its session.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from fp_runtime import pgarrays
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable, UserError

Connection = psycopg.Connection[TupleRow]
Cursor = psycopg.Cursor[TupleRow]

_MIGRATION_LOCK = 7378420126518404467
_CONNECT_WAIT_S = 15.0
# A stopped or killed process must not hold locks for ever: the server ends its transaction and the new owner goes on.
_SESSION = (
    "-c idle_in_transaction_session_timeout=10s -c client_connection_check_interval=2s"
    " -c lock_timeout=15s -c timezone=UTC"
)


def connect(dsn: str, name: str, wait_s: float = _CONNECT_WAIT_S) -> Connection:
    """An autocommit connection shown on the server as `name`; Unavailable after trying for `wait_s` seconds."""
    given = conninfo_to_dict(dsn)
    options = f"{_SESSION} {given.get('options') or ''}".strip()
    last = ""

    def attempt() -> Connection | None:
        nonlocal last
        try:
            conn = psycopg.connect(
                dsn, autocommit=True, application_name=name, options=options, connect_timeout=5,
                keepalives_idle=5, keepalives_interval=2, keepalives_count=3, tcp_user_timeout=10_000,
            )  # fmt: skip
            pgarrays.register(conn)
            return conn
        except psycopg.OperationalError as error:
            last = str(error).strip().replace("\n", " ")
            return None

    try:
        return until(attempt, wait_s, "a PostgreSQL connection", interval_s=0.1)
    except TimeoutError as error:
        raise Unavailable(f"PostgreSQL for {name}: {last}") from error


@contextmanager
def transaction(conn: Connection) -> Iterator[Cursor]:
    """A cursor inside one transaction; a lost server or a lost COMMIT reply is Unavailable, anything else passes."""
    try:
        with conn.transaction(), conn.cursor() as cur:
            yield cur
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(f"PostgreSQL: {str(error).strip()}") from error


def migrate(dsn: str, packages: Sequence[str]) -> list[str]:
    """Apply what is missing of each package's migrations, fp_runtime's first; the names applied now, in order.

    Each file is one transaction. Safe to run twice, by several processes at once, and after a kill.
    UserError when a file that was applied has changed since, or when a file refuses what the database holds
    (object_not_in_prerequisite_state, with the fix as its hint).
    """
    with connect(dsn, "fp-migrate") as conn:
        conn.execute("SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        conn.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
        conn.execute("SET client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS ops")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS ops.migration (name text PRIMARY KEY, sha256 text NOT NULL,"
            " at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        rows = conn.execute("SELECT name, sha256 FROM ops.migration").fetchall()
        done: dict[str, str] = dict(rows)
        return [name for name, text in _files(packages) if _apply(conn, name, text, done.get(name))]


def _apply(conn: Connection, name: str, text: bytes, known: str | None) -> bool:
    digest = hashlib.sha256(text).hexdigest()
    if known == digest:
        return False
    if known is not None:
        raise UserError(f"migration {name}", "its text changed after it was applied", "add a new migration file")
    try:
        with conn.transaction():
            conn.execute(text)
            conn.execute("INSERT INTO ops.migration (name, sha256) VALUES (%s, %s)", (name, digest))
    except psycopg.errors.ObjectNotInPrerequisiteState as refused:
        told = refused.diag
        raise UserError(f"migration {name}", told.message_primary or "", told.message_hint or "") from refused
    return True


def _files(packages: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for package in dict.fromkeys(("fp_runtime", *packages)):
        folder = files(package) / "migrations"
        scripts = [item for item in folder.iterdir() if item.name.endswith(".sql")] if folder.is_dir() else []
        for script in sorted(scripts, key=lambda item: item.name):
            yield f"{package}/{script.name}", script.read_bytes()


def ensure_roles(dsn: str, passwords: Mapping[str, str]) -> None:
    """Make each role a plain LOGIN role with this password (kept by the server as a SCRAM verifier only)."""
    with connect(dsn, "fp-roles") as conn:
        for role, password in passwords.items():
            verifier = conn.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
            _retried(conn, role, verifier)


def _retried(conn: Connection, role: str, verifier: str) -> None:
    """Roles belong to the cluster, so two databases may change one at once: the loser tries again."""

    def attempt() -> bool:
        known = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        verb = "ALTER ROLE {} " if known else "CREATE ROLE {} "
        try:
            conn.execute(sql.SQL(verb + "LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation, psycopg.errors.InternalError_):
            return False
        return True

    until(attempt, _CONNECT_WAIT_S, f"role {role}")


def truth_breaches(conn: Connection) -> list[str]:
    """Each way in which a truth table is not protected as declared; empty = law 6 holds in this database."""
    return [line for (line,) in conn.execute("SELECT ops.truth_breaches()").fetchall()]
