"""Numbering: dense sequences, order, first classes, frontiers; and the records that follow from rows."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fp_contracts.header import NONE_TS, Kind, unpack
from fp_contracts.reasons import LineClass, Quarantine
from fp_contracts.topics import INGRESS
from fp_ig.claims import Fact, Known, Lane, Part, Recent, Stamp, attempts, facts_of, number
from fp_ig.domain import quarantined
from fp_ig.lines import Admissible, Quarantined
from fp_runtime.bus import Delivery, PublishError

STAMP = Stamp(b"12345678", "ig-0")
T0 = 1_000_000
KINDS = (Kind.ARRIVAL_EVENT, Kind.ARRIVAL_ENTITIES, Kind.FLOW_ANCHOR, Kind.AUTH_REQUEST)


def admissible(n: int, topic: int = 3, ts_us: int = T0, content: int = 0) -> Admissible:
    identity, digest = n.to_bytes(32, "big"), content.to_bytes(32, "big")
    return Admissible(b"{%d}" % n, identity, digest, KINDS[topic], topic, ts_us, b"m", None)


def nobody(_identity: bytes) -> None:
    """No identity was claimed before."""


def classes(numbered: Any) -> list[tuple[LineClass, Quarantine | None, int]]:
    return [(row.line_class, row.reason, row.seq) for row in numbered.rows]


def test_only_admitted_lines_take_sequences_and_order() -> None:
    lines: list[Admissible | Quarantined] = [
        admissible(1, ts_us=50), quarantined(b"x", Quarantine.NOT_JSON), admissible(1), admissible(2, ts_us=40),
        admissible(1, content=9), admissible(3, topic=0, ts_us=60),
    ]  # fmt: skip
    done = number(Part(Lane(2, 10, NONE_TS, (0, 0, 0, 7)), lines, 55, 1), nobody, {})
    assert classes(done) == [
        (LineClass.ADMITTED, None, 8), (LineClass.QUARANTINED, Quarantine.NOT_JSON, 0), (LineClass.DUPLICATE, None, 0),
        (LineClass.ADMITTED, None, 9), (LineClass.QUARANTINED, Quarantine.PAYLOAD_HASH_MISMATCH, 0),
        (LineClass.ADMITTED, None, 1),
    ]  # fmt: skip
    assert [row.lane_seq for row in done.rows] == [11, 12, 13, 14, 15, 16]
    assert [row.order_us for row, _ in done.admitted] == [50, 50, 60], "late takes the running maximum"
    assert done.after == Lane(2, 16, 60, (1, 0, 0, 9))


def test_the_frontier_rides_on_the_last_admitted_record_of_each_topic_and_watermarks_go_to_the_rest() -> None:
    lines = [admissible(1), admissible(2), admissible(2), admissible(3, topic=0)]
    done = number(Part(Lane(2), lines, T0 + 5, 1), nobody, {})
    frontiers = [row.frontier_us for row in done.rows]
    assert frontiers == [NONE_TS, T0 + 5, NONE_TS, T0 + 5], "never on a line that was not admitted"
    tried = attempts(STAMP, done)
    headers = [unpack(one.out.header) for one in tried]
    assert [(header.kind, one.topic) for header, one in zip(headers, tried, strict=True)] == [
        (Kind.AUTH_REQUEST, 3), (Kind.AUTH_REQUEST, 3), (Kind.ARRIVAL_EVENT, 0), (Kind.WATERMARK, 1),
        (Kind.WATERMARK, 2),
    ]  # fmt: skip
    assert [header.seq for header in headers] == [1, 2, 1, 0, 0]
    assert {mark.frontier_us for header in headers for mark in header.marks} == {T0 + 5}
    assert all(one.out.topic == INGRESS[one.topic] and one.out.partition == 2 for one in tried)


def test_an_empty_round_declares_the_frontier_and_moves_nothing_else() -> None:
    lane = Lane(1, 4, 10, (1, 1, 1, 1))
    done = number(Part(lane, [], 30, 1), nobody, {})
    assert done.after == Lane(1, 4, 30, (1, 1, 1, 1))
    assert [one.seq for one in attempts(STAMP, done)] == [0, 0, 0, 0]
    late = number(Part(done.after, [admissible(1, ts_us=20)], 30, 1), nobody, {})
    assert late.rows[0].order_us == 30, "a declared frontier is a promise"
    assert number(Part(done.after, [], 20, 1), nobody, {}).after.floor_us == 30


def test_the_first_claim_decides() -> None:
    known = {admissible(1).identity: Known(admissible(1).payload_hash, principal=1)}
    mine, other = (number(Part(Lane(0), [admissible(1)], T0, who), known.get, {}).rows[0] for who in (1, 2))
    assert (mine.line_class, mine.reason) == (LineClass.DUPLICATE, None)
    assert (other.line_class, other.reason) == (LineClass.QUARANTINED, Quarantine.PRINCIPAL_MISMATCH)


def test_an_identity_is_claimed_once_across_the_parts_of_a_claim() -> None:
    fresh: dict[bytes, Known] = {}
    first, second = (number(Part(Lane(lane), [admissible(1)], T0, 1), nobody, fresh) for lane in (0, 1))
    assert (first.rows[0].line_class, second.rows[0].line_class) == (LineClass.ADMITTED, LineClass.DUPLICATE)


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
            done = number(Part(lane, batch, NONE_TS, 1), known.get, fresh)
            known |= fresh
            lane, at = done.after, at + len(batch)
            found += [row._replace(frontier_us=NONE_TS) for row in done.rows]
        return found

    whole, split = rows(lambda at: lines[at:]), rows(lambda at: lines[at : at + size])
    assert whole == split
    for topic in range(4):
        seqs = [row.seq for row in whole if row.seq and row.kind == KINDS[topic]]
        assert seqs == list(range(1, len(seqs) + 1))
    orders = [row.order_us for row in whole if row.seq]
    assert orders == sorted(orders)


def test_facts_are_ranges_and_leave_out_what_has_no_offset() -> None:
    done = number(Part(Lane(0), [admissible(n) for n in range(1, 7)], T0, 1), nobody, {})
    tried = attempts(STAMP, done)
    unknown = Delivery(None, PublishError.UNKNOWN)
    deliveries = [Delivery(5), Delivery(6), unknown, Delivery(9), Delivery(10), Delivery(20), *[Delivery(0)] * 3]
    assert facts_of(tried, deliveries) == [
        Fact(0, 3, 1, 5, 2, "P"), Fact(0, 3, 4, 9, 2, "P"), Fact(0, 3, 6, 20, 1, "P"),
    ]  # fmt: skip


def test_recent_claims_are_bounded_and_the_newest_half_stays() -> None:
    recent = Recent(4)
    claim = Known(b"h", 1)
    for n in range(6):
        recent.add({bytes([n]): claim})
    assert [recent.find(bytes([n])) is not None for n in range(6)] == [False] * 3 + [True] * 3
