"""The label desk over a store in memory: numbers, resends, frontiers, and a crash between commit and publish."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from fp_cm_ls.labeldesk import Content, LabelBatch, LabelDesk, LaneBroken, LaneState, LineRow
from fp_cm_ls.plan import RunPlan
from fp_contracts import topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.downstream import LabelAssertion
from fp_contracts.header import Header, Kind, unpack
from fp_runtime.bus import Producer
from fp_runtime.errors import Unavailable
from fp_runtime.failpoint import FailpointRaised, arm, disarm
from fp_runtime.memory import Fault, MemoryBus
from fp_runtime.outbox import Queued

LABEL_PARTS = topics.TOPICS[topics.LABELS].partitions


class Store:
    """labeldesk.Store without a database: what was committed survives the desk."""

    def __init__(self, parts: int) -> None:
        self.state = LaneState.beginning(parts)
        self.rows: dict[int, LineRow] = {}
        self.said: dict[str, Content] = {}
        self.outbox: list[Queued] = []
        self.published: set[tuple[int, int]] = set()

    def own(self) -> None:
        """See labeldesk.Store."""

    def load(self) -> LaneState:
        return self.state

    def lines(self, first: int, last: int) -> list[LineRow]:
        return [self.rows[seq] for seq in range(first, last + 1) if seq in self.rows]

    def known(self, assertion_ids: Sequence[str]) -> dict[str, Content]:
        return {name: self.said[name] for name in assertion_ids if name in self.said}

    def commit(self, batch: LabelBatch) -> None:
        assert batch.before == self.state
        assert not self.rows.keys() & {row.lane_seq for row in batch.lines}
        self.rows |= {row.lane_seq: row for row in batch.lines}
        self.said |= {row.assertion.assertion_id: Content.of(row.assertion) for row in batch.rows}
        self.outbox += batch.queued
        self.state = batch.after

    def publish_all(self, producer: Producer) -> None:
        for row in self.outbox:
            place = (row.out.partition, row.seq)
            if place not in self.published:
                if producer.publish([row.out])[0].offset is None:
                    raise Unavailable("not acknowledged")
                self.published.add(place)


class Bench:
    """One desk, its store and its bus; `restart` is a new process."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan, self.store, self.bus = plan, Store(plan.label_parts), MemoryBus()
        self.bus.create([topics.LABELS])
        self.desk = LabelDesk(plan, self.store, self.bus.producer())

    def restart(self) -> None:
        disarm()
        self.desk = LabelDesk(self.plan, self.store, self.bus.producer())

    def take(self, first: int, assertions: Sequence[LabelAssertion], frontier_us: int = 0) -> list[str]:
        lines = [trusted_bytes(item.model_dump(mode="json")) for item in assertions]
        return [name for name, _ in self.desk.take(first, lines, frontier_us, "wsp")]

    def headers(self, kind: Kind) -> list[tuple[int, Header]]:
        consumer = self.bus.consumer("test")
        places = [(topics.LABELS, part) for part in range(LABEL_PARTS)]
        consumer.assign(dict.fromkeys(places, 0))
        found = [(record.partition, unpack(record.header)) for record in consumer.poll(10_000, 0.0)]
        return [(part, header) for part, header in found if header.kind is kind]

    def labels(self) -> list[tuple[int, int]]:
        """Distinct (partition, seq) of labels on the bus."""
        return sorted({(part, header.seq) for part, header in self.headers(Kind.LABEL_ASSERTION)})


@pytest.fixture
def bench(plan: RunPlan) -> Bench:
    return Bench(plan)


@pytest.fixture
def some(assertion: Callable[..., LabelAssertion]) -> list[LabelAssertion]:
    return [assertion(f"e{n}", merchant=f"m{n}", observed_us=9 + n) for n in range(12)]


def _dense(places: list[tuple[int, int]], total: int) -> bool:
    by_part: dict[int, list[int]] = {}
    for part, seq in places:
        by_part.setdefault(part, []).append(seq)
    return len(places) == total and all(seqs == list(range(1, len(seqs) + 1)) for seqs in by_part.values())


def test_a_resend_gets_its_first_classes_back(bench: Bench, some: list[LabelAssertion]) -> None:
    assert bench.take(1, [*some, some[0]]) == ["ACCEPTED"] * 12 + ["DUPLICATE"]
    assert bench.take(1, [*some, some[0]]) == ["ACCEPTED"] * 12 + ["DUPLICATE"]
    assert _dense(bench.labels(), 12)


def test_a_split_resend_keeps_the_numbers(bench: Bench, some: list[LabelAssertion]) -> None:
    bench.take(1, some[:5])
    assert bench.take(3, some[2:9]) == ["ACCEPTED"] * 7
    assert bench.take(1, some[:2]) == ["ACCEPTED"] * 2
    assert bench.desk.state.last_lane_seq == 9
    assert _dense(bench.labels(), 9)


def test_a_gap_takes_nothing(bench: Bench, some: list[LabelAssertion]) -> None:
    bench.take(1, some[:2])
    with pytest.raises(LaneBroken) as broken:
        bench.take(4, some[3:])
    assert broken.value.code == "LANE_SEQ_GAP"
    assert len(bench.store.rows) == 2


def test_other_bytes_under_a_known_number_are_refused(bench: Bench, some: list[LabelAssertion]) -> None:
    bench.take(1, some[:3])
    with pytest.raises(LaneBroken) as broken:
        bench.take(2, some[4:8])
    assert broken.value.code == "LANE_SEQ_CONFLICT"
    assert bench.desk.state.last_lane_seq == 3


def test_another_word_under_a_known_id_is_no_duplicate(bench: Bench, assertion: Callable[..., LabelAssertion]) -> None:
    assert bench.take(1, [assertion(), assertion(), assertion(effective_us=4)]) == ["ACCEPTED", "DUPLICATE", "REJECTED"]
    assert bench.take(4, [assertion(), assertion(effective_us=4)]) == ["DUPLICATE", "REJECTED"]
    assert bench.store.rows[3].detail == "ASSERTION_CONFLICT"


def test_frontiers_rise_on_every_partition_and_never_fall(bench: Bench, some: list[LabelAssertion]) -> None:
    for first, frontier_us in ((1, 15), (5, 12), (9, 40)):
        bench.take(first, some[first - 1 : first + 3], frontier_us)
    assert bench.take(0, [], 30) == []
    for part in range(LABEL_PARTS):
        seen = [header for at, header in bench.headers(Kind.WATERMARK) if at == part]
        frontiers = [header.marks[0].frontier_us for header in seen]
        assert frontiers == [25, 25, 50, 50]
        assert seen[-1].marks[0].last_seq == bench.desk.state.seqs[part]


def test_a_label_takes_its_place_at_or_above_the_frontier(bench: Bench, some: list[LabelAssertion]) -> None:
    bench.take(1, some[:6], 100)
    bench.take(7, some[6:], 100)
    orders: dict[int, list[int]] = {}
    for part, header in bench.headers(Kind.LABEL_ASSERTION):
        orders.setdefault(part, []).append(header.order_us)
    assert all(found == sorted(found) for found in orders.values())
    assert sorted(order for found in orders.values() for order in found)[6:] == [110] * 6


@pytest.mark.parametrize("failpoint", ["cm_ls.before_commit", "cm_ls.after_commit", "cm_ls.after_publish"])
def test_a_crash_anywhere_publishes_each_label_once(bench: Bench, some: list[LabelAssertion], failpoint: str) -> None:
    bench.take(1, some[:4], 20)
    arm(f"{failpoint}:raise:1")
    with pytest.raises(FailpointRaised):
        bench.take(5, some[4:], 40)
    bench.restart()
    assert bench.take(5, some[4:], 40) == ["ACCEPTED"] * 8
    assert _dense(bench.labels(), 12)
    assert len(bench.headers(Kind.LABEL_ASSERTION)) == 12
    last = {part: header.marks[0].frontier_us for part, header in bench.headers(Kind.WATERMARK)}
    assert last == dict.fromkeys(range(LABEL_PARTS), 50)


@pytest.mark.parametrize("fault", [Fault.LOST_ACK, Fault.LOST_REQUEST])
def test_a_lost_reply_of_the_bus_is_published_again(bench: Bench, some: list[LabelAssertion], fault: Fault) -> None:
    bench.bus.plan(fault, 3)
    with pytest.raises(Unavailable):
        bench.take(1, some, 20)
    bench.restart()
    assert bench.take(1, some, 20) == ["ACCEPTED"] * 12
    assert _dense(bench.labels(), 12)


def test_an_unacknowledged_watermark_answers_nothing(bench: Bench) -> None:
    bench.bus.plan(Fault.LOST_REQUEST, 2)
    with pytest.raises(Unavailable):
        bench.take(0, [], 20)
    assert bench.take(0, [], 20) == []
    assert len(bench.headers(Kind.WATERMARK)) == 5


def test_a_start_publishes_what_a_crash_kept_back(bench: Bench, some: list[LabelAssertion]) -> None:
    arm("cm_ls.after_commit:raise:1")
    with pytest.raises(FailpointRaised):
        bench.take(1, some, 20)
    assert bench.labels() == []
    bench.restart()
    assert _dense(bench.labels(), 12)


def test_where_there_are_two_lanes_all_labels_lie_on_one_partition(
    plan: RunPlan, assertion: Callable[..., LabelAssertion]
) -> None:
    bench = Bench(replace(plan, label_parts=1))
    bench.take(1, [assertion(f"e{n}", merchant=f"m{n}") for n in range(8)])
    assert bench.labels() == [(0, seq) for seq in range(1, 9)]
    assert {part for part, _ in bench.headers(Kind.WATERMARK)} == {0}
