"""Numbering: which lines of a batch are admitted, under which sequence and order, and the records they become. Pure.

A claim is planned from the lane states and from what is known of identities; the store says whether it holds (the
unique identity decides). When it does not, the same lines are numbered again with more identities known.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fp_contracts.header import NONE_TS, Header, Kind, Mark, pack, pack_plain
from fp_contracts.reasons import LineClass, Quarantine
from fp_contracts.topics import ARRIVAL_ENTITIES, ARRIVAL_EVENTS, FLOW_ANCHOR, INGRESS, TRAFFIC
from fp_ig.lines import Admissible, Quarantined
from fp_runtime.bus import Delivery, Out
from fp_runtime.eventtime.lane import LaneOrder

RECEIPT_BYTES = 16
_new = tuple.__new__  # of a named tuple: a third of the cost of calling its class, for what is made once per line
NO_SEQS = (0,) * len(INGRESS)
KIND_TOPIC: Mapping[int, int] = {
    Kind.ARRIVAL_EVENT: INGRESS.index(ARRIVAL_EVENTS),
    Kind.ARRIVAL_ENTITIES: INGRESS.index(ARRIVAL_ENTITIES),
    Kind.FLOW_ANCHOR: INGRESS.index(FLOW_ANCHOR),
    Kind.AUTH_REQUEST: INGRESS.index(TRAFFIC),
    Kind.TRAFFIC_OTHER: INGRESS.index(TRAFFIC),
}


@dataclass(frozen=True, slots=True)
class Lane:
    """The durable state of a lane: last line numbered, lowest order_ts (µs) it may still give, last seq per topic."""

    number: int
    last_lane_seq: int = 0
    floor_us: int = NONE_TS
    last_seqs: tuple[int, ...] = NO_SEQS


class Known(NamedTuple):
    """The first claim of an identity."""

    payload_hash: bytes
    principal: int


Find = Callable[[bytes], Known | None]
"""The first claim of an identity, None where none is known."""


class Recent:
    """First claims lately made, so that most duplicates are seen before the store is asked. Bounded: the older half
    goes at once."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[bytes, Known] = {}
        self._old: dict[bytes, Known] = {}

    def find(self, identity: bytes) -> Known | None:
        """See Find."""
        return self._young.get(identity) or self._old.get(identity)

    def add(self, claimed: Mapping[bytes, Known]) -> None:
        """Remember claims that were committed."""
        self._young.update(claimed)
        if len(self._young) > self._half:
            self._young, self._old = {}, self._young


class Row(NamedTuple):
    """The first class of one line. seq 0, order and frontier NONE_TS, empty identity: does not apply."""

    lane: int
    lane_seq: int
    line_class: LineClass
    reason: Quarantine | None
    principal: int
    kind: int
    seq: int
    order_us: int
    frontier_us: int
    identity: bytes
    payload_hash: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """The new lines of one batch, next in their lane; behind them nothing below `frontier_us`.

    `first`: the first classes of the batch's lines that were known before.
    """

    lane: Lane
    lines: Sequence[Admissible | Quarantined]
    frontier_us: int
    principal: int
    first: Sequence[Row] = ()


@dataclass(slots=True)
class Numbered:
    """A part with its classes. `admitted` pairs each admitted row with its line; `aside` gives (row, sha256, bytes)."""

    before: Lane
    after: Lane
    first: Sequence[Row] = ()
    rows: list[Row] = field(default_factory=list)
    admitted: list[tuple[Row, Admissible]] = field(default_factory=list)
    aside: list[tuple[Row, bytes, bytes | None]] = field(default_factory=list)


def number(part: Part, find: Find, fresh: dict[bytes, Known]) -> Numbered:
    """Classes, sequences and order of a part's lines; identities admitted here are added to `fresh`.

    `find` knows first claims of earlier parts. The frontier rides on the last record admitted per topic.
    """
    lane, principal = part.lane, part.principal
    number, lane_seq, seqs = lane.number, lane.last_lane_seq, list(lane.last_seqs)
    order = LaneOrder(lane.floor_us)
    order_of = order.order_of
    done = Numbered(lane, lane, part.first)
    rows, admitted = done.rows, done.admitted
    last_of: dict[int, int] = {}
    for line in part.lines:
        lane_seq += 1
        if isinstance(line, Quarantined):
            row = _aside(number, lane_seq, line.reason, principal, b"", line.sha256)
            done.aside.append((row, line.sha256, line.raw))
            rows.append(row)
            continue
        _, identity, digest, kind, topic, ts_us, _, _ = line
        first = fresh.get(identity) or find(identity)
        if first is None:
            fresh[identity] = _new(Known, (digest, principal))
            seqs[topic] = seq = seqs[topic] + 1
            row = _new(
                Row, (number, lane_seq, LineClass.ADMITTED, None, principal, kind, seq, order_of(ts_us), NONE_TS,
                      identity, digest),
            )  # fmt: skip
            last_of[topic] = len(admitted)
            admitted.append((row, line))
        else:
            row = _again(number, lane_seq, line, principal, first)
            if row.reason:
                done.aside.append((row, hashlib.sha256(line.raw).digest(), line.raw))
        rows.append(row)
    order.declare(part.frontier_us)
    _carry_frontier(done, lane.last_lane_seq + 1, last_of, order.floor_us)
    done.after = replace(lane, last_lane_seq=lane_seq, floor_us=order.floor_us, last_seqs=tuple(seqs))
    return done


def _carry_frontier(done: Numbered, first_lane_seq: int, last_of: dict[int, int], frontier_us: int) -> None:
    for index in last_of.values():
        row, line = done.admitted[index]
        row = row._replace(frontier_us=frontier_us)
        done.admitted[index] = (row, line)
        done.rows[row.lane_seq - first_lane_seq] = row


def _again(lane: int, lane_seq: int, line: Admissible, principal: int, first: Known) -> Row:
    """The class of a line whose identity was claimed before (laws 1 and 2)."""
    if first.principal != principal:
        return _aside(lane, lane_seq, Quarantine.PRINCIPAL_MISMATCH, principal, line.identity, line.payload_hash)
    if first.payload_hash != line.payload_hash:
        return _aside(lane, lane_seq, Quarantine.PAYLOAD_HASH_MISMATCH, principal, line.identity, line.payload_hash)
    return _aside(lane, lane_seq, None, principal, line.identity, line.payload_hash)


def _aside(lane: int, lane_seq: int, reason: Quarantine | None, principal: int, identity: bytes, digest: bytes) -> Row:
    line_class = LineClass.QUARANTINED if reason else LineClass.DUPLICATE
    return Row(lane, lane_seq, line_class, reason, principal, 0, 0, NONE_TS, NONE_TS, identity, digest)


# --- what is published and answered ---


class Attempt(NamedTuple):
    """One record to publish: a claimed sequence, or a watermark (seq 0)."""

    lane: int
    topic: int
    seq: int
    out: Out


class Fact(NamedTuple):
    """Seq first_seq + i of a lane's topic lies at first_offset + i, 0 ≤ i < n. `how`: P published, O observed,
    R published again after an unknown."""

    lane: int
    topic: int
    first_seq: int
    first_offset: int
    n: int
    how: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every header of a writer carries."""

    run_tag: bytes
    writer: str


def attempt(stamp: Stamp, row: Row, key: bytes, raw: bytes, traceparent: bytes | None) -> Attempt:
    """The record of an admitted row, equal whenever it is built: exact bytes, header from the row alone."""
    topic = KIND_TOPIC[row.kind]
    header = pack_plain(
        row.kind, stamp.run_tag, stamp.writer.encode(), row.seq, row.order_us, row.payload_hash, row.frontier_us
    )
    return Attempt(row.lane, topic, row.seq, Out(INGRESS[topic], row.lane, key, raw, header, traceparent))


def attempts(stamp: Stamp, numbered: Numbered) -> list[Attempt]:
    """Records of what was admitted, in lane order, then a watermark to each of the lane's topics that got none."""
    tag, writer, lane = stamp.run_tag, stamp.writer.encode(), numbered.after.number
    made = []
    for (_, _, _, _, _, kind, seq, order_us, frontier_us, _, digest), line in numbered.admitted:
        raw, _, _, _, topic, _, key, traceparent = line
        header = pack_plain(kind, tag, writer, seq, order_us, digest, frontier_us)
        out = _new(Out, (INGRESS[topic], lane, key, raw, header, traceparent))
        made.append(_new(Attempt, (lane, topic, seq, out)))
    carried = {one.topic for one in made}
    return made + [watermark(stamp, numbered.after, topic) for topic in range(len(INGRESS)) if topic not in carried]


def watermark(stamp: Stamp, lane: Lane, topic: int) -> Attempt:
    """The lane's frontier as a watermark; it takes no sequence (dataflow.md §3)."""
    mark = Mark(stamp.writer, lane.floor_us, lane.last_seqs[topic])
    header = Header(Kind.WATERMARK, stamp.run_tag, stamp.writer, 0, lane.floor_us, marks=(mark,))
    return Attempt(lane.number, topic, 0, Out(INGRESS[topic], lane.number, b"", b"", pack(header)))


def facts_of(tried: Sequence[Attempt], deliveries: Sequence[Delivery], how: str = "P") -> list[Fact]:
    """Acknowledged sequences as ranges; watermarks and what has no offset are left out."""
    ranges: dict[tuple[int, int], list[list[int]]] = {}
    for (lane, topic, seq, _), delivery in zip(tried, deliveries, strict=True):
        offset = delivery[0]
        if seq == 0 or offset is None:
            continue
        mine = ranges.setdefault((lane, topic), [])
        last = mine[-1] if mine else None
        if last is not None and seq == last[0] + last[2] and offset == last[1] + last[2]:
            last[2] += 1
        else:
            mine.append([seq, offset, 1])
    return [Fact(lane, topic, seq, offset, n, how) for (lane, topic), mine in ranges.items() for seq, offset, n in mine]


def answer_of(row: Row) -> tuple[str, str]:
    """[class, receipt id or reason] as the producer gets it. The receipt id is of the identity: a duplicate's is the
    first one's."""
    return (row.line_class.value, row.reason.value if row.reason else row.identity[:RECEIPT_BYTES].hex())
