"""One ingress partition of the basis in the order of the stream: the same merge as rtdl's, from the archive."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fp_contracts import topics
from fp_contracts.dataset import BasisRange
from fp_contracts.header import NONE_TS, Header, HeaderError, Kind, unpack
from fp_contracts.ingress import INGRESS_TYPES, RANK_LABEL
from fp_contracts.partition import partition_of
from fp_ofs.archive import Row
from fp_ofs.errors import BASIS, Blocked
from fp_ofs.records import Broken, Label, decode
from fp_runtime.eventtime.merge import Head, InputKey, PartitionMerge
from fp_runtime.eventtime.sequence import LineBroken, Seen

RANKS = {topics.LABELS: RANK_LABEL, **{kind.topic: kind.rank for kind in INGRESS_TYPES.values()}}
READ = (*topics.INGRESS, topics.LABELS)

Reader = Callable[[str, int], Iterable[Row]]


@dataclass(slots=True)
class Lane:
    """What a partition released, in order, below `bound_us`, the end of the last window. Times in µs.

    `labels` are the assertions of its own merchants, released or not; `label_frontier_us` is the lowest order_ts that
    the label lane may still send.
    """

    part: int
    heads: list[Head] = field(default_factory=list)
    bound_us: int = NONE_TS
    labels: list[Label] = field(default_factory=list)
    label_frontier_us: int = NONE_TS
    records: int = 0
    broken: int = 0
    foreign: int = 0
    duplicates: int = 0
    beyond: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """How many partitions the ingress topics, the labels and rtdl have in a basis."""

    lanes: int
    label_parts: int
    rtdl_parts: int

    def place_of(self, topic: str, part: int) -> int:
        """The partition of a topic that an ingress partition reads."""
        return part % self.label_parts if topic == topics.LABELS else part


def shape_of(basis: Iterable[BasisRange]) -> Shape:
    """The shape of a whole basis, which names every partition of every topic that is read.

    Blocked B12.1 when it cannot be whole: numbers missing, ingress topics and rtdl of different numbers, or labels
    whose number does not divide the lanes.
    """
    named: dict[str, set[int]] = {topic: set() for topic in (*READ, topics.RTDL)}
    for part in basis:
        named.setdefault(part.topic, set()).add(part.partition)
    lanes, label_parts = len(named[topics.TRAFFIC]), len(named[topics.LABELS])
    wanted = dict.fromkeys((*topics.INGRESS, topics.RTDL), lanes) | {topics.LABELS: label_parts}
    broken = [topic for topic, count in wanted.items() if not count or named[topic] != set(range(count))]
    if broken or lanes % label_parts:
        told = ", ".join(f"{topic} {sorted(named[topic])}" for topic in wanted)
        raise Blocked(BASIS, f"the replay basis is not of one run's lanes: {told}")
    return Shape(lanes, label_parts, len(named[topics.RTDL]))


def read_lane(read: Reader, part: int, tag: bytes, end_us: int, shape: Shape) -> Lane:
    """Merge the five topics of an ingress partition up to the end of the last window (µs).

    Blocked B12.1 when a sequence is open or contradicts itself, or when the basis ends before the window does.
    """
    lane = Lane(part)
    rows = {topic: _unpacked(read(topic, shape.place_of(topic, part)), tag, lane) for topic in READ}
    merge = PartitionMerge(_inputs(rows))
    try:
        for topic, found in rows.items():
            for header, row in found:
                _take(lane, merge, topic, header, row, shape.lanes)
    except LineBroken as error:
        raise Blocked(BASIS, f"lane {part}: {error}") from error
    gaps = {f"{key.topic} {key.source}": count for key, count in merge.open_gaps().items()}
    if gaps:
        raise Blocked(BASIS, f"lane {part} has open sequence gaps: {gaps}")
    if merge.bound() < end_us:
        raise Blocked(BASIS, f"lane {part} is closed up to {merge.bound()} only, and the window ends at {end_us}")
    lane.heads = merge.take(below_us=end_us)
    lane.bound_us = end_us
    lane.beyond = merge.waiting()
    lane.label_frontier_us = _frontier(rows[topics.LABELS])
    return lane


def _frontier(found: Iterable[tuple[Header, Row]]) -> int:
    """The lowest order_ts that may still come on a topic without gaps: the least of what its sources promised.

    Not that of a merge's cursors, which a label that is read and not yet in effect holds back.
    """
    promised: dict[str, int] = {}
    for header, _ in found:
        spoken = [(mark.source, mark.frontier_us) for mark in header.marks]
        if header.kind in topics.KINDS[topics.LABELS]:
            spoken.append((header.source, max(header.order_us, header.frontier_us)))
        for source, frontier_us in spoken:
            promised[source] = max(promised.get(source, NONE_TS), frontier_us)
    return min(promised.values())


def _unpacked(rows: Iterable[Row], tag: bytes, lane: Lane) -> list[tuple[Header, Row]]:
    found = []
    for row in rows:
        lane.records += 1
        try:
            header = unpack(row.header)
        except HeaderError:
            lane.broken += 1
            continue
        if header.run_tag != tag:
            lane.foreign += 1
        else:
            found.append((header, row))
    return found


def _inputs(rows: dict[str, list[tuple[Header, Row]]]) -> list[InputKey]:
    """Every source that speaks on a topic, by a record or by a mark; a silent topic is no basis."""
    inputs = []
    for topic, found in rows.items():
        sources = {header.source for header, _ in found if header.kind in topics.KINDS[topic]}
        sources |= {mark.source for header, _ in found for mark in header.marks}
        if not sources:
            raise Blocked(BASIS, f"nobody speaks on {topic} in the replay basis: neither records nor watermarks")
        inputs += [InputKey(topic, source) for source in sorted(sources)]
    return inputs


def _take(lane: Lane, merge: PartitionMerge, topic: str, header: Header, row: Row, lanes: int) -> None:
    if header.kind is Kind.WATERMARK:
        merge.mark(header, topic, row.offset)
        return
    if header.kind not in topics.KINDS[topic]:
        merge.passed(topic, row.offset)
        return
    value = None
    try:
        value = decode(header.kind, row.value)
    except Broken:
        lane.broken += 1  # it keeps its place in the sequence
    if type(value) is Label and partition_of(value.merchant_id, lanes) != lane.part:
        value = None
    if merge.offer(header, RANKS[topic], "", topic, row.offset, value) is Seen.DUPLICATE:
        lane.duplicates += 1
    elif type(value) is Label:
        lane.labels.append(value)
