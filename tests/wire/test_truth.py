"""Law 6 on a real server: what the migrations protect stays protected, from the runtime roles and from the owner."""

from collections.abc import Callable

import psycopg
import pytest

from fp_runtime import quarantine
from fp_runtime.bus import Record
from fp_runtime.postgres import Connection, connect, truth_breaches
from fp_runtime.quarantine import Quarantined

pytestmark = pytest.mark.stack

CHANGES = [
    "UPDATE ops.quarantine SET reason = 'other'",
    "DELETE FROM ops.quarantine",
    "TRUNCATE ops.quarantine",
    "INSERT INTO ops.quarantine SELECT * FROM ops.quarantine ON CONFLICT (run, stage, topic, part, kafka_offset)"
    " DO UPDATE SET reason = 'other'",
    "MERGE INTO ops.quarantine q USING ops.quarantine o ON q.run = o.run WHEN MATCHED THEN DELETE",
]
ESCAPES = [
    "ALTER TABLE ops.quarantine DISABLE TRIGGER truth",
    "ALTER TABLE ops.quarantine DISABLE TRIGGER ALL",
    "DROP TRIGGER truth ON ops.quarantine",
    "DROP TABLE ops.quarantine",
    "CREATE OR REPLACE FUNCTION ops.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "SET session_replication_role = replica",
    "SELECT ops.mutable('ops.quarantine', 'fp_df')",
    "CREATE TABLE ops.mine (x int)",
    "CREATE TABLE public.mine (x int)",
]


@pytest.fixture
def row(df: Connection, run: str) -> str:
    record = Record("fp.bus.rtdl.v1", 0, 7, b"k", b"4111111111111111", b"", None, 0)
    with df.cursor() as cur:
        quarantine.add(cur, run, "df", [Quarantined(record, "PAN_REFUSED", keep_body=False)] * 2)
    return run


@pytest.mark.parametrize("change", CHANGES)
def test_a_runtime_role_cannot_change_truth(df: Connection, row: str, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        df.execute(change)
    assert quarantine.counts(df, row, "df") == {"PAN_REFUSED": 1}


@pytest.mark.parametrize("change", CHANGES)
def test_even_the_owner_meets_the_trigger(owner: Connection, row: str, change: str) -> None:
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append-only truth"):
        owner.execute(change)


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_runtime_role_cannot_take_the_protection_away(df: Connection, row: str, escape: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        df.execute(escape)


def test_a_runtime_role_has_nothing_to_grant(df: Connection, owner: Connection) -> None:
    df.execute("GRANT DELETE, TRUNCATE ON ops.quarantine TO fp_df")  # PostgreSQL only warns
    assert truth_breaches(owner) == []


def test_refused_bytes_are_not_kept_but_their_hash_is(owner: Connection, row: str) -> None:
    found = owner.execute(
        "SELECT body, body_sha256 = sha256('4111111111111111') FROM ops.quarantine WHERE run = %s", (row,)
    ).fetchall()
    assert found == [(None, True)]


def test_the_proving_roles_read_everything_and_write_no_truth(role_dsn: Callable[[str], str], row: str) -> None:
    with connect(role_dsn("fp_operator"), "wire") as conn:
        for (relation,) in conn.execute("SELECT relation FROM ops.truth_table").fetchall():
            conn.execute(f"SELECT count(*) FROM {relation}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("INSERT INTO ops.quarantine SELECT * FROM ops.quarantine")


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("ALTER TABLE ops.span DISABLE TRIGGER truth", "ops.span: trigger is missing or not always on"),
        ("ALTER TABLE ops.span ENABLE TRIGGER truth", "ops.span: trigger is missing or not always on"),
        ("DROP TRIGGER truth ON ops.span", "ops.span: trigger is missing or not always on"),
        ("GRANT DELETE ON ops.span TO fp_df", "ops.span: fp_df may DELETE"),
        ("GRANT UPDATE ON ops.span TO PUBLIC", "ops.span: PUBLIC may UPDATE"),
        ("DROP TABLE ops.span", "ops.span: table is gone"),
    ],
)
def test_a_breach_is_found(owner: Connection, damage: str, found: str) -> None:
    assert truth_breaches(owner) == []
    with owner.transaction(force_rollback=True):
        owner.execute(damage)
        assert truth_breaches(owner) == [found]
