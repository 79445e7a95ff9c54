"""Numbering: which lines of a batch are admitted, under which sequence and order, and what they are answered. Pure.

A claim is planned from the lane states and from what is known of identities; the store says whether it holds (the
unique identity decides). When it does not, the same lines are numbered again with more identities known.
"""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from fp_contracts.header import NONE_TS, Kind
from fp_contracts.reasons import LineClass, Quarantine
from fp_contracts.topics import ARRIVAL_ENTITIES, ARRIVAL_EVENTS, FLOW_ANCHOR, INGRESS, TRAFFIC
from fp_ig.lines import Admissible, Quarantined
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


class Recent:
    """First claims lately made, so that most duplicates are seen before the store is asked. Bounded: the older half
    goes at once."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[bytes, Known] = {}
        self._old: dict[bytes, Known] = {}

    def among(self, identities: Set[bytes]) -> dict[bytes, Known]:
        """The first claims of those of these identities that have one here."""
        old, young = self._old, self._young
        return {one: claims[one] for claims in (old, young) for one in claims.keys() & identities}

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

    def identities(self) -> set[bytes]:
        """Those of its lines; of a line set aside its hash, which is nobody's."""
        return {line[1] for line in self.lines}


@dataclass(slots=True)
class Admitted:
    """What a part admits to one topic, as columns: line i has sequence first_seq + i, the last one the frontier."""

    topic: int
    first_seq: int
    lines: list[Admissible] = field(default_factory=list)
    lane_seqs: list[int] = field(default_factory=list)
    orders_us: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Numbered:
    """A part with its classes. `raws`: the exact bytes of what is admitted, in lane order; the other lines have a row
    each, and those whose bytes are kept apart also (row, sha256, bytes)."""

    before: Lane
    after: Lane
    principal: int
    first: Sequence[Row] = ()
    identities: list[bytes] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    admitted: list[Admitted] = field(default_factory=list)
    others: list[Row] = field(default_factory=list)
    aside: list[tuple[Row, bytes, bytes | None]] = field(default_factory=list)

    def set_aside(self, row: Row, sha256: bytes, raw: bytes | None) -> None:
        """Add the row of a line that is not admitted; a quarantined one keeps its bytes."""
        self.others.append(row)
        if row.reason:
            self.aside.append((row, sha256, raw))

    def classes(self) -> list[tuple[str, str]]:
        """What every line of the batch is answered, in line order."""
        word, size = LineClass.ADMITTED.value, RECEIPT_BYTES
        told = [(word, identity[:size].hex()) for identity in self.identities]
        for row in self.others:
            told[row.lane_seq - self.before.last_lane_seq - 1] = answer_of(row)
        return [answer_of(row) for row in self.first] + told


def number(part: Part, known: Mapping[bytes, Known], fresh: dict[bytes, Known]) -> Numbered:
    """Classes, sequences and order of a part's lines; identities admitted here are added to `fresh`.

    `known`: first claims of earlier parts, as far as identities of this one have any. Columns, since an object per
    line and use of it would cost more than the rules.
    """
    lane, principal = part.lane, part.principal
    order = LaneOrder(lane.floor_us)
    done = Numbered(lane, lane, principal, part.first, [line[1] for line in part.lines])
    by_topic = [Admitted(topic, seq + 1) for topic, seq in enumerate(lane.last_seqs)]
    order_of, keep = order.order_of, done.raws.append
    for lane_seq, line in enumerate(part.lines, lane.last_lane_seq + 1):
        if isinstance(line, Quarantined):
            row = _aside(lane.number, lane_seq, line.reason, principal, b"", line.sha256)
            done.set_aside(row, line.sha256, line.raw)
            continue
        raw, identity, digest, _, topic, ts_us, _, _ = line
        if identity in known or identity in fresh:
            row = _again(lane.number, lane_seq, line, principal, fresh.get(identity) or known[identity])
            done.set_aside(row, hashlib.sha256(raw).digest() if row.reason else b"", raw)
            continue
        fresh[identity] = _new(Known, (digest, principal))
        columns = by_topic[topic]
        columns.lines.append(line)
        columns.lane_seqs.append(lane_seq)
        columns.orders_us.append(order_of(ts_us))
        keep(raw)
    order.declare(part.frontier_us)
    seqs = tuple(seq + len(columns.lines) for seq, columns in zip(lane.last_seqs, by_topic, strict=True))
    done.admitted = [columns for columns in by_topic if columns.lines]
    done.after = Lane(lane.number, lane.last_lane_seq + len(part.lines), order.floor_us, seqs)
    return done


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


def answer_of(row: Row) -> tuple[str, str]:
    """[class, receipt id or reason] as the producer gets it. The receipt id is of the identity: a duplicate's is the
    first one's."""
    return (row.line_class.value, row.reason.value if row.reason else row.identity[:RECEIPT_BYTES].hex())
