"""The outbox on a real server: what has no fact is published, in order, until it has one."""

from collections.abc import Callable, Sequence
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
    rows = [queued(2), queued(1), queued(1, topic=AUDIT, partition=2), queued(3)]
    store(df, run, rows)
    assert outbox.unpublished(df, run, "df-0") == [rows[2], rows[1], rows[0], rows[3]]
    assert outbox.unpublished(df, run, "df-0", limit=1) == [rows[2]]
    assert outbox.unpublished(df, run, "df-1") == []
    assert outbox.unpublished(df, "another run", "df-0") == []


def test_a_sequence_given_twice_is_refused_with_its_whole_transaction(df: Connection, run: str) -> None:
    store(df, run, [queued(1)])
    with pytest.raises(psycopg.errors.UniqueViolation):
        store(df, run, [queued(2), queued(1)])
    assert outbox.unpublished(df, run, "df-0") == [queued(1)]


def test_unpublished_is_what_no_fact_covers(df: Connection, run: str) -> None:
    """Random facts, doubled and out of order, against a set."""
    for seed in range(12):
        random = Random(seed)
        one = f"{run}-{seed}"
        rows = [queued(seq, partition=p) for p in range(3) for seq in range(1, random.randint(2, 60))]
        store(df, one, rows)
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
        assert outbox.unpublished(df, one, "df-0") == [row for row in rows if row not in covered]


def test_an_earlier_row_that_commits_later_is_not_passed_over(df: Connection, zombie: Connection, run: str) -> None:
    """What `seq > last published` would lose."""
    log = Log()
    with transaction(zombie) as cur:
        outbox.add(cur, run, [queued(1)])
        store(df, run, [queued(2)])
        assert outbox.drain(df, log, run, ["df-0"]) == 1
    assert outbox.drain(df, log, run, ["df-0"]) == 1
    assert [out.value for out in log.records] == [b"df-0 2", b"df-0 1"]


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
