"""The outbox on a real server: what has no fact is published, in order, until it has one."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from random import Random

import psycopg
import pytest

from fp_runtime import outbox
from fp_runtime.bus import Delivery, Out, PublishError
from fp_runtime.errors import Unavailable
from fp_runtime.outbox import Published, Queued
from fp_runtime.postgres import Connection, transaction

pytestmark = pytest.mark.stack

RTDL, AUDIT = "fp.bus.rtdl.v1", "fp.bus.audit.v1"


def queued(seq: int, source: str = "df-0", topic: str = RTDL, partition: int = 0) -> Queued:
    body = b"%s %d" % (source.encode(), seq)
    return Queued(source, seq, Out(topic, partition, b"key", body, b"\x01\x00header", b"00-aa" if seq % 2 else None))


class Log:
    """A topic log as the outbox asks for it; `fate` says what happens to the i-th record that is sent."""

    def __init__(self, fate: Callable[[int], PublishError | None] = lambda _: None) -> None:
        self.records: list[Out] = []
        self._fate = fate
        self._sent = 0

    def publish(self, outs: Sequence[Out], timeout_s: float | None = None) -> list[Delivery]:
        return [self._one(out) for out in outs]

    def _one(self, out: Out) -> Delivery:
        error = self._fate(self._sent)
        self._sent += 1
        if error is not PublishError.FAILED:
            self.records.append(out)
        return Delivery(None, error, "planned") if error else Delivery(len(self.records) - 1)


def store(conn: Connection, run: str, rows: list[Queued]) -> None:
    with transaction(conn) as cur:
        outbox.add(cur, run, rows)


def test_rows_come_back_byte_for_byte_in_order(df: Connection, run: str) -> None:
    rows = [queued(2), queued(1), queued(1, topic=AUDIT, partition=2), queued(3)]  # with a traceparent and without
    store(df, run, rows)
    assert outbox.unpublished(df, run, "df-0") == [rows[2], rows[1], rows[0], rows[3]]
    assert outbox.unpublished(df, run, "df-0", limit=1) == [rows[2]]
    assert outbox.unpublished(df, run, "df-1") == []
    assert outbox.unpublished(df, "another run", "df-0") == []


@pytest.mark.parametrize("again", [[1], [2], [3], [1, 2, 3], [2, 3], [3, 4], [2, 3, 4, 5], [4, 3], [4, 4]])
def test_a_sequence_given_twice_is_refused_with_its_whole_transaction(
    df: Connection, run: str, again: list[int]
) -> None:
    rows = [queued(1), queued(2), queued(3)]
    store(df, run, rows[:1])
    store(df, run, rows[1:])
    with pytest.raises(psycopg.errors.IntegrityError):
        store(df, run, [queued(1, topic=AUDIT), *(queued(seq) for seq in again)])
    assert outbox.unpublished(df, run, "df-0") == rows


@pytest.mark.parametrize("later", [[5], [5, 6], [4, 6], [8, 7, 6, 5]])
def test_a_sequence_left_out_is_refused_with_its_whole_transaction(df: Connection, run: str, later: list[int]) -> None:
    rows = [queued(1), queued(2), queued(3)]
    store(df, run, rows)
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="outbox_follows"):
        store(df, run, [queued(1, topic=AUDIT), *(queued(seq) for seq in later)])
    assert outbox.unpublished(df, run, "df-0") == rows


def test_several_packs_of_a_chain_may_come_in_one_statement(df: Connection, run: str) -> None:
    store(df, run, [queued(1)])
    store(df, run, [queued(seq) for seq in (5, 4, 6, 2, 3)])
    assert outbox.unpublished(df, run, "df-0") == [queued(seq) for seq in range(1, 7)]


def test_a_chain_begins_with_one(df: Connection, run: str) -> None:
    for seq, error in ((2, psycopg.errors.ForeignKeyViolation), (0, psycopg.errors.CheckViolation)):
        with pytest.raises(error):
            store(df, run, [queued(seq)])


def test_the_end_of_another_chain_is_none_to_go_on_from(df: Connection, run: str) -> None:
    store(df, run, [queued(1)])
    others = (queued(2, source="df-1"), queued(2, topic=AUDIT), queued(2, partition=1))
    for other in others:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            store(df, run, [other])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        store(df, f"{run}-2", [queued(2)])


def test_a_transaction_is_one_row_per_chain(df: Connection, run: str) -> None:
    for at in (0, 10):
        store(df, run, [queued(at + seq, topic=topic) for seq in range(1, 11) for topic in (RTDL, AUDIT)])
    found = df.execute(
        "SELECT topic, first_seq, last_seq FROM ops.outbox WHERE run = %s ORDER BY topic DESC, first_seq", (run,)
    ).fetchall()
    assert found == [(topic, first, first + 9) for topic in (RTDL, AUDIT) for first in (1, 11)]


def test_records_are_read_by_chain_and_each_by_its_place(
    df: Connection, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PACKS_AT_ONCE", 2)
    sources = ("al-0", "df-0", "df-1")
    rows = [queued(seq, source, partition=part) for source in sources for part in range(2) for seq in range(1, 20)]
    for first, last in ((1, 1), (2, 9), (10, 14), (15, 19)):
        store(df, run, [row for row in rows if first <= row.seq <= last])
    store(df, run, [queued(1, topic=AUDIT)])
    assert list(outbox.records(df, run, "df-", RTDL)) == [row for row in rows if row.source != "al-0"]
    assert list(outbox.records(df, run, "d_", RTDL)) == []
    for row in rows:
        assert outbox.record(df, run, row.source, RTDL, row.out.partition, row.seq) == row
    assert outbox.record(df, run, "df-0", RTDL, 0, 20) is None
    assert outbox.record(df, run, "df-0", AUDIT, 1, 1) is None


def test_unpublished_is_what_no_fact_covers(df: Connection, run: str) -> None:
    """Random packs, and facts doubled and out of order, against a set; a limit takes the first of it."""
    for seed in range(12):
        random = Random(seed)
        one = f"{run}-{seed}"
        rows = [queued(seq, partition=p) for p in range(3) for seq in range(1, random.randint(2, 60))]
        cuts = [0, *sorted(random.sample(range(1, 60), 5)), 60]
        for before, upto in pairwise(cuts):
            store(df, one, [row for row in rows if before < row.seq <= upto])
        covered = random.sample(rows, random.randint(0, len(rows)))
        facts = [Published(r.source, r.out.topic, r.out.partition, r.seq, 100 + r.seq + r.seq // 7) for r in covered]
        random.shuffle(facts)
        cut = random.randint(0, len(facts))
        for part in (facts[:cut], facts[cut:], facts[: cut // 2]):
            with transaction(df) as cur:
                outbox.record_facts(cur, one, part)
        again = [fact._replace(offset=fact.offset + 1000) for fact in facts[:3]]
        with transaction(df) as cur:
            outbox.record_facts(cur, one, again)
        left = [row for row in rows if row not in covered]
        assert outbox.unpublished(df, one, "df-0") == left
        for limit in (1, 2, 7, random.randint(1, 180), 1_000):
            assert outbox.unpublished(df, one, "df-0", limit) == left[:limit]


def test_a_limit_reads_the_packs_that_it_needs(df: Connection, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(0, 50, 5):
        store(df, run, [queued(at + seq) for seq in range(1, 6)])
    with transaction(df) as cur:
        outbox.record_facts(cur, run, [Published("df-0", RTDL, 0, seq, seq) for seq in (1, 2, 3, 8)])
    unpacked, read = outbox.unpacked, []
    monkeypatch.setattr(outbox, "unpacked", lambda body: read.append(body) or unpacked(body))
    for limit, packs in ((1, 1), (2, 1), (3, 2), (6, 2), (7, 3)):
        read.clear()
        found = outbox.unpublished(df, run, "df-0", limit)
        assert [row.seq for row in found] == [4, 5, 6, 7, 9, 10, 11][:limit]
        assert len(read) == packs


def test_what_comes_later_cannot_be_committed_first(df: Connection, zombie: Connection, run: str) -> None:
    """So nothing is published before what goes before it, and nothing is passed over."""
    log = Log()
    with transaction(zombie) as cur:
        outbox.add(cur, run, [queued(1)])
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            store(df, run, [queued(2)])
        assert outbox.drain(df, log, run, ["df-0"]) == 0
    store(df, run, [queued(2)])
    assert outbox.drain(df, log, run, ["df-0"]) == 2
    assert [out.value for out in log.records] == [b"df-0 1", b"df-0 2"]


def test_of_two_that_go_on_at_once_one_is_refused(df: Connection, zombie: Connection, run: str) -> None:
    store(df, run, [queued(1)])
    with ThreadPoolExecutor(1) as pool:
        with transaction(df) as cur:
            outbox.add(cur, run, [queued(2), queued(3)])
            other = pool.submit(store, zombie, run, [queued(2)])
            with pytest.raises(TimeoutError):  # it waits for how this one ends
                other.result(0.2)
        with pytest.raises(psycopg.errors.UniqueViolation):
            other.result(10.0)
    assert outbox.unpublished(df, run, "df-0") == [queued(1), queued(2), queued(3)]


def test_what_has_a_fact_in_the_middle_of_a_pack_is_not_published_again(df: Connection, run: str) -> None:
    store(df, run, [queued(seq) for seq in range(1, 5)])
    store(df, run, [queued(seq) for seq in range(5, 11)])
    with transaction(df) as cur:
        outbox.record_facts(cur, run, [Published("df-0", RTDL, 0, seq, 100 + seq) for seq in (2, 3, 4, 5, 8)])
    log = Log()
    assert outbox.drain(df, log, run, ["df-0"]) == 5
    assert [out.value for out in log.records] == [b"df-0 %d" % seq for seq in (1, 6, 7, 9, 10)]
    assert outbox.drain(df, log, run, ["df-0"]) == 0


def test_a_lost_reply_is_published_again_with_the_same_bytes(df: Connection, run: str) -> None:
    rows = [queued(seq) for seq in range(1, 6)]
    store(df, run, rows)
    log = Log(lambda sent: PublishError.UNKNOWN if sent in (1, 2) else None)
    with pytest.raises(Unavailable, match=r"2 records not acknowledged \(UNKNOWN planned\)"):
        outbox.drain(df, log, run, ["df-0"])
    assert outbox.unpublished(df, run, "df-0") == rows[1:3]
    assert outbox.drain(df, log, run, ["df-0"]) == 2
    assert log.records == [row.out for row in rows + rows[1:3]]
    assert outbox.drain(df, log, run, ["df-0"]) == 0


def test_a_crash_between_publish_and_fact_repeats_and_loses_nothing(df: Connection, run: str) -> None:
    rows = [queued(seq) for seq in range(1, 4)]
    store(df, run, rows)
    log = Log()
    log.publish([row.out for row in rows])  # and here the process dies
    assert outbox.drain(df, log, run, ["df-0"]) == 3
    assert [out.value for out in log.records] == [row.out.value for row in rows] * 2


def test_drain_takes_every_source_in_portions(df: Connection, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DRAIN_BATCH", 4)
    store(df, run, [queued(seq, source) for source in ("df-0", "df-1") for seq in range(1, 11)])
    log = Log()
    assert outbox.drain(df, log, run, ["df-0", "df-1"]) == 20
    assert [out.value for out in log.records[:10]] == [b"df-0 %d" % seq for seq in range(1, 11)]
    facts = df.execute("SELECT count(*) FROM ops.outbox_fact WHERE run = %s", (run,)).fetchone()
    assert facts == (6,)
