"""Several statements as one: all of them happen, in one round trip, or none does."""

import psycopg
import pytest

from fp_runtime import outbox, ownership, progress, together
from fp_runtime.bus import Out
from fp_runtime.errors import Fenced
from fp_runtime.outbox import Published, Queued
from fp_runtime.postgres import Connection, transaction
from fp_runtime.progress import Advance

pytestmark = pytest.mark.stack


def queued(*seqs: int) -> list[Queued]:
    """Records of which some have a traceparent and some do not."""
    return [
        Queued("df:0", seq, Out("fp.bus.rtdl.v1", 0, b"key", b"body %d" % seq, b"head", b"00-t" if seq % 2 else None))
        for seq in seqs
    ]  # fmt: skip


def stored(conn: Connection, run: str) -> int:
    return len(list(outbox.records(conn, run, "df:", "fp.bus.rtdl.v1")))


def test_each_step_says_how_many_rows_it_had_and_what_it_wrote_is_what_was_given(df: Connection, run: str) -> None:
    epochs = {f"{run}|df|{part}": ownership.raise_epoch(df, f"{run}|df|{part}", "df-0") for part in range(2)}
    with transaction(df) as cur:
        found = together.execute(
            cur,
            [ownership.held(epochs), progress.moved(run, "df", [Advance(0, 0, 3, b"doc")]),
             *outbox.stored(run, queued(1, 2, 3)), *outbox.recorded(run, [Published("df:0", "t", 0, 1, 7)])],
        )  # fmt: skip
        assert found == [2, 0, 1, 1]  # three records are one row
        progress.settle(cur, run, "df", [Advance(0, 0, 3, b"doc")], found[1])
    assert outbox.unpublished(df, run, "df:0") == queued(1, 2, 3)
    assert progress.load(df, run, "df", 0) == progress.Progress(3, b"doc")


def test_what_was_lost_undoes_all_of_it(df: Connection, zombie: Connection, run: str) -> None:
    scope = f"{run}|df|0"
    epochs = {scope: ownership.raise_epoch(zombie, scope, "df-0")}
    ownership.raise_epoch(df, scope, "df-0")

    def commit() -> None:
        with transaction(zombie) as cur:
            held_n, *_ = together.execute(cur, [ownership.held(epochs), *outbox.stored(run, queued(1))])
            ownership.check(cur, epochs, held_n)

    with pytest.raises(Fenced, match=r"df\|0"):
        commit()
    assert stored(df, run) == 0


@pytest.mark.parametrize("again", [(1,), (2, 3)])
def test_a_sequence_given_twice_undoes_all_of_it(df: Connection, run: str, again: tuple[int, ...]) -> None:
    with transaction(df) as cur:
        together.execute(cur, outbox.stored(run, queued(1, 2)))
    with pytest.raises(psycopg.errors.IntegrityError), transaction(df) as cur:
        together.execute(
            cur, [progress.moved(run, "df", [Advance(0, 0, 1, b"")]), *outbox.stored(run, queued(*again))]
        )  # fmt: skip
    assert stored(df, run) == 2


def test_a_sequence_left_out_undoes_all_of_it(df: Connection, run: str) -> None:
    with transaction(df) as cur:
        together.execute(cur, outbox.stored(run, queued(1, 2)))
    with pytest.raises(psycopg.errors.ForeignKeyViolation), transaction(df) as cur:
        together.execute(
            cur, [progress.moved(run, "df", [Advance(0, 0, 1, b"")]), *outbox.stored(run, queued(4, 5))]
        )  # fmt: skip
    assert stored(df, run) == 2
    assert progress.load(df, run, "df", 0) is None


def test_no_rows_are_no_step(run: str) -> None:
    assert (outbox.stored(run, []), outbox.recorded(run, [])) == ([], [])
