"""The records of what was claimed, and what is known of their publishing. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from fp_contracts.header import Header, Kind, Mark, pack, pack_plain
from fp_contracts.topics import INGRESS
from fp_ig.claims import KIND_TOPIC, Admitted, Lane, Numbered, Row
from fp_runtime.bus import Delivery, Out

_new = tuple.__new__  # of a named tuple: a third of the cost of calling its class, for what is made once per line


class Attempt(NamedTuple):
    """One record to publish: a claimed sequence, or a watermark (seq 0)."""

    lane: int
    topic: int
    seq: int
    out: Out


class Sent(NamedTuple):
    """Records for one lane of a topic: sequences first_seq, first_seq + 1, …, or one watermark (0)."""

    lane: int
    topic: int
    first_seq: int
    outs: list[Out]

    def attempts(self) -> list[Attempt]:
        """The same one by one."""
        return [Attempt(self.lane, self.topic, seq, out) for seq, out in enumerate(self.outs, self.first_seq)]


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


def sent(stamp: Stamp, numbered: Numbered) -> list[Sent]:
    """Records of what was admitted, topic by topic, and a watermark to each of the lane's topics that got none."""
    lane = numbered.after
    made = [
        Sent(lane.number, columns.topic, columns.first_seq, _outs(stamp, lane, columns))
        for columns in numbered.admitted
    ]
    carried = {one.topic for one in made}
    silent = [topic for topic in range(len(INGRESS)) if topic not in carried]
    return made + [Sent(lane.number, topic, 0, [watermark(stamp, lane, topic)]) for topic in silent]


def _outs(stamp: Stamp, lane: Lane, columns: Admitted) -> list[Out]:
    """The records of one topic; the frontier behind the part rides on the last one."""
    tag, writer, topic, number = stamp.run_tag, stamp.writer.encode(), INGRESS[columns.topic], lane.number
    numbered = zip(count(columns.first_seq), columns.orders_us, columns.lines, strict=False)
    outs = [
        _new(Out, (topic, number, key, raw, pack_plain(kind, tag, writer, seq, order_us, digest), traceparent))
        for seq, order_us, (raw, _, digest, kind, _, _, key, traceparent) in numbered
    ]
    last, seq = columns.lines[-1], columns.first_seq + len(outs) - 1
    header = pack_plain(last.kind, tag, writer, seq, columns.orders_us[-1], last.payload_hash, lane.floor_us)
    outs[-1] = outs[-1]._replace(header=header)
    return outs


def watermark(stamp: Stamp, lane: Lane, topic: int) -> Out:
    """The lane's frontier as a watermark; it takes no sequence (dataflow.md §3)."""
    mark = Mark(stamp.writer, lane.floor_us, lane.last_seqs[topic])
    header = Header(Kind.WATERMARK, stamp.run_tag, stamp.writer, 0, lane.floor_us, marks=(mark,))
    return Out(INGRESS[topic], lane.number, b"", b"", pack(header))


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


def settled(sent: Sequence[Sent], deliveries: Sequence[Delivery]) -> tuple[list[Fact], list[Attempt]]:
    """The facts of what was acknowledged, and what was not."""
    facts: list[Fact] = []
    missing: list[Attempt] = []
    at = 0
    for one in sent:
        lane, topic, first_seq, outs = one
        mine = deliveries[at : at + len(outs)]
        at += len(outs)
        offsets = [delivery[0] for delivery in mine]
        first = offsets[0]
        if first is not None and offsets == list(range(first, first + len(outs))):
            facts += [Fact(lane, topic, first_seq, first, len(outs), "P")] if first_seq else []
        else:
            tried = one.attempts()
            facts += facts_of(tried, mine)
            missing += [made for made, offset in zip(tried, offsets, strict=True) if offset is None]
    return facts, missing
