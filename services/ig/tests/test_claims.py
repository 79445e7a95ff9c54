"""Numbering: dense sequences, order, first classes, frontiers; and the records that follow from rows."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.header import NONE_TS, Kind, unpack
from fp_contracts.reasons import LineClass, Quarantine
from fp_contracts.topics import INGRESS
from fp_ig.claims import Known, Lane, Numbered, Part, Recent, number
from fp_ig.domain import quarantined
from fp_ig.lines import Admissible, Quarantined
from fp_ig.records import Attempt, Fact, Stamp, attempt, sent, settled
from fp_runtime.bus import Delivery, PublishError

from .conftest import rows_of

STAMP = Stamp(b"12345678", "ig-0")
T0 = 1_000_000
KINDS = (Kind.ARRIVAL_EVENT, Kind.ARRIVAL_ENTITIES, Kind.FLOW_ANCHOR, Kind.AUTH_REQUEST)


def admissible(n: int, topic: int = 3, ts_us: int = T0, content: int = 0) -> Admissible:
    identity, digest = n.to_bytes(32, "big"), content.to_bytes(32, "big")
    return Admissible(b"{%d}" % n, identity, digest, KINDS[topic], topic, ts_us, b"m", None)


def classes(numbered: Numbered) -> list[tuple[LineClass, Quarantine | None, int]]:
    return [(row.line_class, row.reason, row.seq) for row in rows_of(numbered)]


def tried(numbered: Numbered) -> list[Attempt]:
    return [one for many in sent(STAMP, numbered) for one in many.attempts()]


def test_only_admitted_lines_take_sequences_and_order() -> None:
    lines: list[Admissible | Quarantined] = [
        admissible(1, ts_us=50), quarantined(b"x", Quarantine.NOT_JSON), admissible(1), admissible(2, ts_us=40),
        admissible(1, content=9), admissible(3, topic=0, ts_us=60),
    ]  # fmt: skip
    done = number(Part(Lane(2, 10, NONE_TS, (0, 0, 0, 7)), lines, 55, 1), {}, {})
    assert classes(done) == [
        (LineClass.ADMITTED, None, 8), (LineClass.QUARANTINED, Quarantine.NOT_JSON, 0), (LineClass.DUPLICATE, None, 0),
        (LineClass.ADMITTED, None, 9), (LineClass.QUARANTINED, Quarantine.PAYLOAD_HASH_MISMATCH, 0),
        (LineClass.ADMITTED, None, 1),
    ]  # fmt: skip
    rows = rows_of(done)
    assert [row.lane_seq for row in rows] == [11, 12, 13, 14, 15, 16]
    assert [row.order_us for row in rows if row.seq] == [50, 50, 60], "late takes the running maximum"
    assert done.raws == [b"{1}", b"{2}", b"{3}"], "in lane order, as their rows are read back"
    assert done.after == Lane(2, 16, 60, (1, 0, 0, 9))


def test_the_frontier_rides_on_the_last_admitted_record_of_each_topic_and_watermarks_go_to_the_rest() -> None:
    lines = [admissible(1), admissible(2), admissible(2), admissible(3, topic=0)]
    done = number(Part(Lane(2), lines, T0 + 5, 1), {}, {})
    frontiers = [row.frontier_us for row in rows_of(done)]
    assert frontiers == [NONE_TS, T0 + 5, NONE_TS, T0 + 5], "never on a line that was not admitted"
    records = tried(done)
    headers = [unpack(one.out.header) for one in records]
    assert [(header.kind, one.topic) for header, one in zip(headers, records, strict=True)] == [
        (Kind.ARRIVAL_EVENT, 0), (Kind.AUTH_REQUEST, 3), (Kind.AUTH_REQUEST, 3), (Kind.WATERMARK, 1),
        (Kind.WATERMARK, 2),
    ]  # fmt: skip
    assert [header.seq for header in headers] == [one.seq for one in records] == [1, 1, 2, 0, 0]
    assert {mark.frontier_us for header in headers for mark in header.marks} == {T0 + 5}
    assert all(one.out.topic == INGRESS[one.topic] and one.out.partition == 2 for one in records)


def test_an_empty_round_declares_the_frontier_and_moves_nothing_else() -> None:
    lane = Lane(1, 4, 10, (1, 1, 1, 1))
    done = number(Part(lane, [], 30, 1), {}, {})
    assert done.after == Lane(1, 4, 30, (1, 1, 1, 1))
    assert [one.seq for one in tried(done)] == [0, 0, 0, 0]
    late = number(Part(done.after, [admissible(1, ts_us=20)], 30, 1), {}, {})
    assert rows_of(late)[0].order_us == 30, "a declared frontier is a promise"
    assert number(Part(done.after, [], 20, 1), {}, {}).after.floor_us == 30


def test_the_first_claim_decides() -> None:
    known = {admissible(1).identity: Known(admissible(1).payload_hash, principal=1)}
    mine, other = (number(Part(Lane(0), [admissible(1)], T0, who), known, {}).others[0] for who in (1, 2))
    assert (mine.line_class, mine.reason) == (LineClass.DUPLICATE, None)
    assert (other.line_class, other.reason) == (LineClass.QUARANTINED, Quarantine.PRINCIPAL_MISMATCH)


def test_an_identity_is_claimed_once_across_the_parts_of_a_claim() -> None:
    fresh: dict[bytes, Known] = {}
    first, second = (number(Part(Lane(lane), [admissible(1)], T0, 1), {}, fresh) for lane in (0, 1))
    assert classes(first) == [(LineClass.ADMITTED, None, 1)]
    assert classes(second) == [(LineClass.DUPLICATE, None, 0)]


LINES = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(0, 99), st.integers(0, 1)), max_size=30)


@given(LINES, st.integers(1, 7))
def test_batching_changes_neither_classes_nor_sequences_nor_order(
    given: list[tuple[int, int, int, int]], size: int
) -> None:
    lines = [admissible(n, topic, ts_us, content) for n, topic, ts_us, content in given]

    def rows(step: Callable[[int], list[Admissible]]) -> list[Any]:
        known: dict[bytes, Known] = {}
        lane, found, at = Lane(0), [], 0
        while at < len(lines):
            batch = step(at)
            fresh: dict[bytes, Known] = {}
            done = number(Part(lane, batch, NONE_TS, 1), known, fresh)
            known |= fresh
            lane, at = done.after, at + len(batch)
            found += [row._replace(frontier_us=NONE_TS) for row in rows_of(done)]
        return found

    whole, split = rows(lambda at: lines[at:]), rows(lambda at: lines[at : at + size])
    assert whole == split
    for topic in range(4):
        seqs = [row.seq for row in whole if row.seq and row.kind == KINDS[topic]]
        assert seqs == list(range(1, len(seqs) + 1))
    orders = [row.order_us for row in whole if row.seq]
    assert orders == sorted(orders)


@given(LINES)
def test_records_are_those_that_their_rows_give_again(given: list[tuple[int, int, int, int]]) -> None:
    lines = [admissible(n, topic, ts_us, content) for n, topic, ts_us, content in given]
    done = number(Part(Lane(4, 7, 30, (1, 2, 3, 4)), lines, 50, 1), {}, {})
    again = [
        attempt(STAMP, row, b"m", raw, None)
        for row, raw in zip((row for row in rows_of(done) if row.seq), done.raws, strict=True)
    ]
    assert sorted(one for one in tried(done) if one.seq) == sorted(again)


@given(LINES)
def test_every_line_is_answered_in_its_place(given: list[tuple[int, int, int, int]]) -> None:
    lines: list[Admissible | Quarantined] = [
        admissible(n, topic, ts_us, content) if topic else quarantined(b"x", Quarantine.NOT_JSON)
        for n, topic, ts_us, content in given
    ]
    done = number(Part(Lane(0, 9), lines, 50, 1), {}, {})
    expected = [(row.line_class.value, row.reason or row.identity[:16].hex()) for row in rows_of(done)]
    assert done.classes() == expected


def test_facts_are_ranges_and_leave_out_what_has_no_offset() -> None:
    records = sent(STAMP, number(Part(Lane(0), [admissible(n) for n in range(1, 7)], T0, 1), {}, {}))
    unknown = Delivery(None, PublishError.UNKNOWN)
    watermarks = [Delivery(0), unknown, Delivery(0)]
    facts, missing = settled(
        records, [Delivery(5), Delivery(6), unknown, Delivery(9), Delivery(10), Delivery(20), *watermarks]
    )
    assert facts == [Fact(0, 3, 1, 5, 2, "P"), Fact(0, 3, 4, 9, 2, "P"), Fact(0, 3, 6, 20, 1, "P")]
    assert [(one.topic, one.seq) for one in missing] == [(3, 3), (1, 0)]
    assert missing[0].out.value == b"{3}"


def test_records_acknowledged_in_one_row_are_one_fact() -> None:
    records = sent(STAMP, number(Part(Lane(0, last_seqs=(0, 0, 0, 3)), [admissible(1), admissible(2)], T0, 1), {}, {}))
    acknowledged = [Delivery(5), Delivery(6), *[Delivery(0)] * 3]
    assert settled(records, acknowledged) == ([Fact(0, 3, 4, 5, 2, "P")], [])


def test_recent_claims_are_bounded_and_the_newest_half_stays() -> None:
    recent = Recent(4)
    claim = Known(b"h", 1)
    for n in range(6):
        recent.add({bytes([n]): claim})
    assert set(recent.among({bytes([n]) for n in range(9)})) == {bytes([n]) for n in (3, 4, 5)}
