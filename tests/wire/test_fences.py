"""Owner epochs, progress and leases on a real server: a zombie changes nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from fp_runtime import lease, ownership, progress, spans
from fp_runtime.deadline import until
from fp_runtime.errors import Fenced
from fp_runtime.postgres import Connection, connect, transaction
from fp_runtime.progress import Advance, Progress
from fp_runtime.spans import Span

pytestmark = pytest.mark.stack


def test_a_new_owner_fences_the_old_one(df: Connection, zombie: Connection, run: str) -> None:
    scope = f"{run}|df|3"
    old = ownership.raise_epoch(zombie, scope, "df-0")
    new = ownership.raise_epoch(df, scope, "df-0")
    assert (old, new) == (1, 2)
    with pytest.raises(Fenced), transaction(zombie) as cur:
        ownership.guard(cur, scope, old)
    with transaction(df) as cur:
        ownership.guard(cur, scope, new)


def test_a_guarded_transaction_ends_before_the_next_owner_begins(
    df: Connection, zombie: Connection, run: str, role_dsn: Callable[[str], str]
) -> None:
    """The new owner waits for a guarded commit, so that it reads everything its predecessor wrote."""
    scope = f"{run}|df|3"
    epoch = ownership.raise_epoch(zombie, scope, "df-0")
    with connect(role_dsn("fp_df"), "wire-look") as look, ThreadPoolExecutor(1) as pool:
        with transaction(zombie) as cur:
            ownership.guard(cur, scope, epoch)
            raised = pool.submit(ownership.raise_epoch, df, scope, "df-0")
            waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            until(lambda: look.execute(waiting, (df.info.backend_pid,)).fetchone(), 10, "the new owner waits")
            progress.advance(cur, run, "df", 3, 0, 5, b"old")
        assert raised.result(10) == epoch + 1
    assert progress.load(df, run, "df", 3) == Progress(5, b"old")


def test_progress_moves_only_from_where_it_stands(df: Connection, zombie: Connection, run: str) -> None:
    with transaction(df) as cur:
        progress.advance(cur, run, "df", 0, 0, 5, b"five")
    for expected in (0, 4):
        with pytest.raises(Fenced), transaction(zombie) as cur:
            progress.advance(cur, run, "df", 0, expected, 9, b"zombie")
    with transaction(df) as cur:
        progress.advance(cur, run, "df", 0, 5, 5, b"only offsets moved")
    with pytest.raises(ValueError, match="go back"), transaction(df) as cur:
        progress.advance(cur, run, "df", 0, 5, 4, b"")
    assert progress.load_all(df, run, "df") == {0: Progress(5, b"only offsets moved")}
    assert progress.load(df, run, "df", 1) is None


def test_many_scopes_are_guarded_at_once_and_one_lost_one_fences_all(
    df: Connection, zombie: Connection, run: str
) -> None:
    scopes = [f"{run}|df|{part}" for part in range(6)]
    epochs = {scope: ownership.raise_epoch(zombie, scope, "df-0") for scope in scopes}
    with transaction(zombie) as cur:
        ownership.guard_all(cur, epochs)
    ownership.raise_epoch(df, scopes[3], "df-0")
    with pytest.raises(Fenced, match=r"df\|3"), transaction(zombie) as cur:
        ownership.guard_all(cur, epochs)
    with pytest.raises(Fenced), transaction(zombie) as cur:
        ownership.guard_all(cur, {f"{run}|df|9": 1})


def test_a_guard_of_many_sees_the_owner_that_is_just_coming(
    df: Connection, zombie: Connection, run: str, role_dsn: Callable[[str], str]
) -> None:
    """It waits for the new owner's row and then compares with what came, not with what it saw before."""
    scopes = [f"{run}|df|{part}" for part in range(3)]
    epochs = {scope: ownership.raise_epoch(zombie, scope, "df-0") for scope in scopes}

    def guard() -> None:
        with transaction(zombie) as cur:
            ownership.guard_all(cur, epochs)

    with connect(role_dsn("fp_df"), "wire-look") as look, ThreadPoolExecutor(1) as pool:
        with transaction(df):
            ownership.raise_epoch(df, scopes[1], "df-0")
            guarded = pool.submit(guard)
            waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            until(lambda: look.execute(waiting, (zombie.info.backend_pid,)).fetchone(), 10, "the old owner waits")
        with pytest.raises(Fenced):
            guarded.result(10)


def test_progress_of_many_partitions_moves_at_once_or_not_at_all(df: Connection, zombie: Connection, run: str) -> None:
    with transaction(df) as cur:
        progress.advance_all(cur, run, "df", [Advance(part, 0, part, b"%d" % part) for part in range(4)])
    with transaction(df) as cur:  # one that goes on, one whose offsets moved, one without a row, and one from 0
        steps = [Advance(1, 1, 9, b"nine"), Advance(2, 2, 2, b"two"), Advance(5, 0, 1, b"new"), Advance(0, 0, 3, b"on")]
        progress.advance_all(cur, run, "df", steps)
    expected = {
        0: Progress(3, b"on"), 1: Progress(9, b"nine"), 2: Progress(2, b"two"), 3: Progress(3, b"3"),
        5: Progress(1, b"new"),
    }  # fmt: skip
    assert progress.load_all(df, run, "df") == expected
    for lost in (Advance(1, 1, 10, b"zombie"), Advance(5, 0, 7, b"zombie"), Advance(4, 3, 4, b"no row")):
        with pytest.raises(Fenced, match=rf"df {lost.partition} "), transaction(zombie) as cur:
            progress.advance_all(cur, run, "df", [Advance(3, 3, 4, b"zombie"), lost])
    with pytest.raises(ValueError, match="go back"), transaction(df) as cur:
        progress.advance_all(cur, run, "df", [Advance(3, 3, 4, b""), Advance(1, 9, 8, b"")])
    with transaction(df) as cur:
        progress.advance_all(cur, run, "df", [])
    assert progress.load_all(df, run, "df") == expected


def test_of_eight_that_advance_at_once_one_does(run: str, role_dsn: Callable[[str], str]) -> None:
    def advance(n: int) -> bool:
        with connect(role_dsn("fp_df"), f"wire-{n}") as conn:
            try:
                with transaction(conn) as cur:
                    progress.advance(cur, run, "df", 0, 0, n, b"%d" % n)
            except Fenced:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(advance, range(1, 9))) == 1


def test_effects_of_a_fenced_transaction_are_rolled_back(df: Connection, zombie: Connection, run: str) -> None:
    with transaction(df) as cur:
        progress.advance(cur, run, "df", 0, 0, 5, b"")

    def commit() -> None:
        with transaction(zombie) as cur:
            spans.record(cur, run, "df", [Span("t", 0, 0, 5, {"decision": 5})])
            progress.advance(cur, run, "df", 0, 0, 5, b"")

    with pytest.raises(Fenced):
        commit()
    assert spans.load(df, run, "df") == []


def test_spans_come_back_as_they_were_and_never_start_twice(df: Connection, run: str) -> None:
    written = [Span("t", 0, 0, 5, {"decision": 4, "watermark": 1}), Span("t", 1, 3, 4)]
    with transaction(df) as cur:
        spans.record(cur, run, "df", written)
    assert spans.load(df, run, "df") == written
    with pytest.raises(psycopg.errors.UniqueViolation), transaction(df) as cur:
        spans.record(cur, run, "df", [Span("t", 0, 0, 9)])


def test_a_lease_has_one_holder_until_it_runs_out(df: Connection, zombie: Connection, run: str) -> None:
    name = f"{run}|sr"
    assert lease.acquire(df, name, "sr-0:a", 60)
    assert not lease.acquire(zombie, name, "sr-0:b", 60)
    assert lease.acquire(df, name, "sr-0:a", 0.2)
    until(lambda: lease.acquire(zombie, name, "sr-0:b", 60), 10, "the lease runs out")
    assert lease.holder_of(df, name) == "sr-0:b"
    with pytest.raises(Fenced), transaction(df) as cur:
        lease.guard(cur, name, "sr-0:a")
    with transaction(zombie) as cur:
        lease.guard(cur, name, "sr-0:b")


def test_a_lease_given_up_is_free_at_once(df: Connection, zombie: Connection, run: str) -> None:
    name = f"{run}|sr"
    lease.acquire(df, name, "a", 60)
    lease.release(zombie, name, "b")
    assert lease.holder_of(df, name) == "a"
    lease.release(df, name, "a")
    assert lease.holder_of(df, name) is None
    assert lease.acquire(zombie, name, "b", 60)


def test_of_eight_that_ask_for_a_lease_one_has_it(run: str, role_dsn: Callable[[str], str]) -> None:
    def ask(n: int) -> bool:
        with connect(role_dsn("fp_df"), f"wire-{n}") as conn:
            return lease.acquire(conn, run, f"holder-{n}", 60)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1
