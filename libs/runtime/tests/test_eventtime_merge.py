"""The merge of one partition, its cursors over a restart, deadlines in the order."""

import random
from collections.abc import Mapping

import pytest

from fp_contracts.header import NONE_TS, Header, Kind, Mark
from fp_runtime.eventtime.merge import (
    Cursor,
    Deadlines,
    Head,
    InputKey,
    PartitionMerge,
    interleave,
    output_frontier,
)

A, B = InputKey("a", "s"), InputKey("b", "s")
RANK = {"a": 1, "b": 2}


def merge(cursors: Mapping[InputKey, Cursor] | None = None) -> PartitionMerge:
    return PartitionMerge((A, B), cursors)


def offer(into: PartitionMerge, topic: str, seq: int, order_us: int, frontier_us: int = NONE_TS) -> None:
    header = Header(Kind.AUTH_REQUEST, b"run-tag!", "s", seq, order_us, b"%32d" % seq, frontier_us)
    into.offer(header, RANK[topic], f"{topic}{seq}", topic, seq - 1, None)


def mark(into: PartitionMerge, topic: str, frontier_us: int, last_seq: int, offset: int) -> None:
    header = Header(Kind.WATERMARK, b"run-tag!", "s", 0, frontier_us, marks=(Mark("s", frontier_us, last_seq),))
    into.mark(header, topic, offset)


def names(heads: list[Head]) -> list[str]:
    return [head.event_id for head in heads]


def test_no_input_is_judged_silent() -> None:
    one = merge()
    offer(one, "a", 1, 10)
    assert one.take() == []
    mark(one, "b", 11, 0, 0)
    assert one.take() == []
    mark(one, "a", 12, 1, 1)
    assert names(one.take()) == ["a1"]
    assert one.horizon_us == 11


def test_records_at_the_bound_wait_for_a_tie() -> None:
    one = merge()
    offer(one, "b", 1, 10, frontier_us=20)
    offer(one, "a", 1, 10)
    assert one.take() == []
    offer(one, "a", 2, 10)
    offer(one, "a", 3, 11)
    assert names(one.take()) == ["a1", "a2", "b1"]


def test_a_bounded_take_keeps_the_horizon_at_the_next_head() -> None:
    one = merge()
    for seq in (1, 2, 3):
        offer(one, "a", seq, seq * 10)
    mark(one, "b", 100, 0, 0)
    mark(one, "a", 100, 3, 3)
    assert names(one.take(2)) == ["a1", "a2"]
    assert (one.horizon_us, one.waiting()) == (30, 1)
    assert one.cursors()[A] == Cursor(2, 30)
    assert one.resume_offsets({"a": 0, "b": 0}) == {"a": 2, "b": 1}
    assert names(one.take(2)) == ["a3"]
    assert one.horizon_us == 100


def test_a_frontier_above_the_bound_survives_a_restart() -> None:
    """The closing watermark of an empty input is read once; forgetting it would hold the partition for ever."""
    one = merge()
    mark(one, "b", 100, 0, 0)
    offer(one, "a", 1, 10)
    again = merge(one.cursors())
    assert one.resume_offsets({"a": 0, "b": 0}) == {"a": 0, "b": 1}
    offer(again, "a", 1, 10, frontier_us=50)
    assert names(again.take()) == ["a1"]


def test_a_promise_over_a_gap_is_read_again_after_a_restart() -> None:
    one = merge()
    offer(one, "a", 1, 10)
    mark(one, "a", 90, 2, 1)
    assert one.open_gaps() == {A: 1}
    assert one.resume_offsets({"a": 0, "b": 5}) == {"a": 0, "b": 5}
    mark(one, "b", 50, 0, 5)
    assert one.take() == []
    offer(one, "b", 1, 60)
    assert one.resume_offsets({"a": 0, "b": 5})["a"] == 0


def test_a_foreign_source_is_an_error_for_records_and_passed_by_for_marks() -> None:
    one = merge()
    with pytest.raises(KeyError):
        one.offer(Header(Kind.AUTH_REQUEST, b"run-tag!", "x", 1, 1), 1, "e", "a", 0, None)
    one.mark(Header(Kind.WATERMARK, b"run-tag!", "x", 0, 1, marks=(Mark("x", 9, 0),)), "a", 3)
    one.passed("b", 8)
    assert one.resume_offsets({"a": 0, "b": 0}) == {"a": 4, "b": 9}


def log_of(rng: random.Random) -> list[tuple[str, int, int]]:
    """(topic, seq, order_us) with many ties; seq 0 = a watermark after everything before it."""
    orders = {"a": 0, "b": 0}
    seqs = {"a": 0, "b": 0}
    log = []
    for _ in range(40):
        topic = rng.choice("ab")
        orders[topic] += rng.choice((0, 0, 1, 3))
        if rng.random() < 0.3:
            log.append((topic, 0, orders[topic]))
        else:
            seqs[topic] += 1
            log.append((topic, seqs[topic], orders[topic]))
    return [*log, ("a", 0, 1000), ("b", 0, 1000)]


def feed(one: PartitionMerge, topic: str, seq: int, order_us: int, offset: int, last: int) -> None:
    if seq == 0:
        mark(one, topic, order_us, last, offset)
        return
    header = Header(Kind.AUTH_REQUEST, b"run-tag!", "s", seq, order_us, b"%32d" % seq)
    one.offer(header, RANK[topic], f"{topic}{seq}", topic, offset, None)


@pytest.mark.parametrize("seed", range(60))
def test_any_reading_with_restarts_gives_the_sorted_order(seed: int) -> None:
    rng = random.Random(seed)
    log = log_of(rng)
    logs = {topic: [entry for entry in log if entry[0] == topic] for topic in "ab"}
    wanted = sorted((order, RANK[topic], seq) for topic, seq, order in log if seq)
    read = {"a": 0, "b": 0}
    one, got = merge(), list[tuple[int, int, int]]()
    while len(got) < len(wanted):
        topic = rng.choice("ab")
        for offset in range(read[topic], min(len(logs[topic]), read[topic] + rng.randint(1, 6))):
            _, seq, order = logs[topic][offset]
            last = max((earlier[1] for earlier in logs[topic][:offset]), default=0)
            feed(one, topic, seq, order, offset, last)
            read[topic] = offset + 1
        got += [(head.order_us, head.rank, head.seq) for head in one.take(rng.choice((None, 1, 3)))]
        if rng.random() < 0.2:
            read = one.resume_offsets({"a": 0, "b": 0} if not any(read.values()) else read)
            one = merge(one.cursors())
    assert got == wanted


def head_at(order_us: int, rank: int = 1) -> Head:
    return Head(order_us, rank, "s", 1, "a", 0, f"h{order_us}", None)


def order_of(heads: list[Head], deadlines: Deadlines, horizon_us: int) -> list[str]:
    return [head.event_id if head else str(name) for _, head, name in interleave(heads, deadlines, horizon_us)]


def test_deadlines_take_their_place_after_records_of_the_same_time() -> None:
    deadlines = Deadlines({"late": 10, "never": 30})
    assert order_of([head_at(10), head_at(11)], deadlines, 30) == ["h10", "late", "h11"]
    assert deadlines.pending() == {"never": 30}


def test_a_deadline_set_by_a_head_takes_its_place_even_in_its_past() -> None:
    deadlines = Deadlines()
    seen = []
    for at_us, head, name in interleave([head_at(10), head_at(20)], deadlines, 21):
        seen.append((at_us, name))
        if head is not None:
            deadlines.add(head.order_us - 5, f"of {head.order_us}")
    assert seen == [(10, None), (5, "of 10"), (20, None), (15, "of 20")]


def test_a_cancelled_or_moved_deadline_does_not_fire() -> None:
    deadlines = Deadlines()
    deadlines.add(5, "a")
    deadlines.cancel("a")
    deadlines.cancel("unknown")
    deadlines.add(20, "a")
    assert deadlines.due((10, 0)) is None
    assert deadlines.earliest() == 20
    assert deadlines.due((21, 0)) == (20, "a")
    assert deadlines.earliest() is None


def test_the_output_frontier_is_the_least_of_what_may_still_come() -> None:
    assert output_frontier(5, 20, Deadlines()) == 20
    assert output_frontier(5, 20, Deadlines({"a": 12})) == 12
    assert output_frontier(15, 20, Deadlines({"a": 12})) == 15
