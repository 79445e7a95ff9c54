"""Migrations on a real server: once each, in order, by many at once, after a kill."""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fp_runtime import lease, meter
from fp_runtime.deadline import until
from fp_runtime.errors import Unavailable, UserError
from fp_runtime.postgres import connect, ensure_roles, migrate, transaction, truth_breaches
from fp_runtime.progress import Advance, Progress
from fp_runtime.together import Step
from fp_runtime.truthstage import TruthStage, Write

pytestmark = pytest.mark.stack


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes `wire_package/migrations/<name>` of an importable package."""
    folder = tmp_path / "wire_package" / "migrations"
    folder.mkdir(parents=True)
    (tmp_path / "wire_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wire_package", raising=False)

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text)

    return write


def test_each_is_applied_once_by_whoever_comes_first(empty_dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: migrate(empty_dsn, ["fp_runtime"]), range(4)))
    first, *others = sorted(applied, key=len, reverse=True)
    assert first == sorted(first)
    assert first[0] == "fp_runtime/0001_grants.sql"
    assert others == [[], [], []]
    assert migrate(empty_dsn, ["fp_runtime"]) == []


def test_a_failed_file_leaves_nothing_and_is_tried_again(empty_dsn: str, package: Callable[[str, str], None]) -> None:
    package("0001_a.sql", "CREATE SCHEMA wire; CREATE TABLE wire.a (x int);")
    package("0002_b.sql", "CREATE TABLE wire.b (x int); SELECT 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_dsn, ["wire_package"])
    package("0002_b.sql", "CREATE TABLE wire.b (x int);")
    assert migrate(empty_dsn, ["wire_package"]) == ["wire_package/0002_b.sql"]


def test_an_applied_file_that_changed_is_refused(empty_dsn: str, package: Callable[[str, str], None]) -> None:
    package("0001_a.sql", "CREATE SCHEMA wire;")
    migrate(empty_dsn, ["wire_package"])
    package("0001_a.sql", "CREATE SCHEMA wire; CREATE TABLE wire.a (x int);")
    with pytest.raises(UserError, match=r"wire_package/0001_a\.sql.*changed"):
        migrate(empty_dsn, ["wire_package"])


def test_a_file_may_refuse_what_the_database_holds_and_say_the_fix(
    empty_dsn: str, package: Callable[[str, str], None]
) -> None:
    refusal = "RAISE 'rows of old' USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'take a new one'"
    package("0001_a.sql", f"CREATE SCHEMA wire; DO $$ BEGIN {refusal}; END $$;")
    with pytest.raises(UserError, match=r"migration wire_package/0001_a\.sql: rows of old\. Fix: take a new one"):
        migrate(empty_dsn, ["wire_package"])
    package("0001_a.sql", "CREATE SCHEMA wire;")
    assert migrate(empty_dsn, ["wire_package"]) == ["wire_package/0001_a.sql"]


def test_a_database_with_records_of_before_the_packs_is_refused_and_one_without_serves(empty_dsn: str) -> None:
    """ADR 20: the older files alone make the table as it was."""
    folder = files("fp_runtime") / "migrations"
    older = ["0001_grants.sql", "0002_stores.sql", "0003_meter.sql", "0050_gate.sql"]
    with connect(empty_dsn, "wire-older") as conn:
        conn.execute("CREATE SCHEMA ops; CREATE TABLE ops.migration (name text PRIMARY KEY, sha256 text NOT NULL,"
                     " at timestamptz NOT NULL DEFAULT clock_timestamp())")  # fmt: skip
        for name in older:
            text = (folder / name).read_bytes()
            conn.execute(text)
            digest = hashlib.sha256(text).hexdigest()
            conn.execute("INSERT INTO ops.migration (name, sha256) VALUES (%s, %s)", (f"fp_runtime/{name}", digest))
        with conn.transaction(force_rollback=True):
            conn.execute("INSERT INTO ops.outbox VALUES ('r', 'df:0', 't', 0, 1, '', '', NULL, 'body')")
            script = (folder / "0004_outbox_packs.sql").read_bytes()
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="read no more"):
                conn.execute(script)
        assert migrate(empty_dsn, []) == ["fp_runtime/0004_outbox_packs.sql", "fp_runtime/0051_member.sql"]
        assert truth_breaches(conn) == []


def test_a_kill_in_the_middle_blocks_nobody(
    empty_dsn: str, package: Callable[[str, str], None], tmp_path: Path
) -> None:
    package("0001_a.sql", "CREATE SCHEMA wire; SELECT pg_sleep(600);")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "from fp_runtime.postgres import migrate; migrate(sys.argv[1], ['wire_package'])"
    process = subprocess.Popen([sys.executable, "-c", code, empty_dsn])
    with connect(empty_dsn, "wire") as conn:
        busy = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'fp-migrate' AND query LIKE '%pg_sleep(600)%'"
        until(lambda: conn.execute(busy).fetchone(), 30, "the migration sleeps")
    process.send_signal(signal.SIGKILL)
    process.wait()
    package("0001_a.sql", "CREATE SCHEMA wire;")
    assert migrate(empty_dsn, ["wire_package"]) == ["wire_package/0001_a.sql"]


def test_a_service_that_joins_later_owns_commits_and_closes_as_the_first_ones(
    empty_dsn: str, package: Callable[[str, str], None]
) -> None:
    role = "fp_wire_newcomer"
    package(
        "0001_own.sql",
        f"SELECT ops.member('{role}'); CREATE SCHEMA newcomer; CREATE TABLE newcomer.fact (n int);"
        f" SELECT ops.truth('newcomer.fact', '{role}');",
    )
    migrate(empty_dsn, ["wire_package"])
    ensure_roles(empty_dsn, {role: "secret"})
    with connect(make_conninfo(empty_dsn, user=role, password="secret"), "wire") as conn:
        stage = TruthStage(conn, "run", "newcomer", "newcomer-0")
        stage.own([0])
        row = Step("INSERT INTO newcomer.fact VALUES (%s) RETURNING 1", (7,))
        stage.commit(Write([Advance(0, 0, 1, b"doc")], [row], [], []), [])
        assert stage.load(0) == Progress(1, b"doc")
        assert lease.acquire(conn, "gate", "newcomer-0", 5)
        with transaction(conn) as cur:
            assert meter.book(cur, "run", "P5", 1, earliest_open=True).spend_microusd == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("UPDATE ops.outbox SET last_seq = 2")
    with connect(empty_dsn, "wire") as conn:
        assert truth_breaches(conn) == []


def test_roles_log_in_with_the_last_password(owner_dsn: str) -> None:
    dsn = make_conninfo(owner_dsn, user="fp_wsp", password="second")
    for password in ("first", "second"):
        ensure_roles(owner_dsn, {"fp_wsp": password})
    with connect(dsn, "wire") as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("fp_wsp",)
    with pytest.raises(Unavailable) as caught:
        connect(make_conninfo(dsn, password="first"), "wire", wait_s=0)
    assert "first" not in str(caught.value)


def test_roles_of_one_server_can_be_set_from_many_places_at_once(owner_dsn: str, empty_dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda dsn: ensure_roles(dsn, {"fp_sr": "x", "fp_ig": "x"}), [owner_dsn, empty_dsn] * 3))


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"PostgreSQL for wire: .*refused"):
        connect("postgresql://u:p@127.0.0.1:1/x", "wire", wait_s=0)


def test_a_connection_that_the_server_ends_is_unavailable(owner_dsn: str) -> None:
    with connect(owner_dsn, "wire") as conn, connect(owner_dsn, "wire-2") as other:
        other.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
        with pytest.raises(Unavailable, match="PostgreSQL"), transaction(conn) as cur:
            cur.execute("SELECT 1")
