"""One owned ingress partition: records in, snapshots out, and what a checkpoint keeps. No I/O."""

from collections import Counter
from collections.abc import Mapping

from fp_contracts.header import NONE_TS, Header, HeaderError, Kind, unpack
from fp_contracts.partition import partition_of
from fp_contracts.reasons import Quarantine
from fp_contracts.topics import KINDS
from fp_features import MerchantState
from fp_rtdl.checkpoint import Checkpoint, Position, Restored
from fp_rtdl.decode import RANKS, Label, decode
from fp_rtdl.domain import PartitionJoin
from fp_rtdl.plan import RunPlan
from fp_rtdl.snapshot import SnapshotWriter
from fp_runtime.bus import Out, Record
from fp_runtime.errors import Poison
from fp_runtime.eventtime.merge import PartitionMerge
from fp_runtime.eventtime.sequence import Seen
from fp_runtime.quarantine import PoisonLimit, Quarantined
from fp_runtime.spans import Span

# What a span counts beside the kinds of the header, as the byte that stands for it in the tally.
_ABSENT, _DUPLICATE, _OTHER_RUN, _POISON = 0, 253, 254, 255
_NAMES = {kind.value: kind.name for kind in Kind} | {
    _ABSENT: "ABSENT", _DUPLICATE: "DUPLICATE", _OTHER_RUN: "OTHER_RUN", _POISON: "QUARANTINED",
}  # fmt: skip


class Lane:
    """Merge, join and output of one partition. `take` records, then `advance`; a failure ends the process."""

    def __init__(self, plan: RunPlan, part: int, restored: Restored | None = None) -> None:
        self.part = part
        lanes = plan.lanes

        def is_own(merchant: str) -> bool:
            return partition_of(merchant, lanes) == part

        self._is_own = is_own
        self.join = PartitionJoin(plan.rules, is_own)
        self.marked_us = NONE_TS
        self._places = plan.places(part)
        self._tag = plan.tag
        self._writer = SnapshotWriter(plan.pins, part, plan.targets)
        self._limit = PoisonLimit()
        self._good = 0
        self._resume = plan.start_offsets(part)
        cursors = None
        if restored is not None:
            cursors = restored.position.cursors
            self._restore(restored)
        self._merge = PartitionMerge(plan.inputs(part), cursors)
        self._saved_n = self.join.n
        self._labels_read = self.join.counts["labels"]
        self._bound_us = NONE_TS
        self._tally = {topic: bytearray() for topic in self._resume}
        self._quarantined: list[Quarantined] = []
        self._dirty = False

    def _restore(self, restored: Restored) -> None:
        position = restored.position
        self._resume = dict(position.resume)
        self._writer.seqs = list(position.seqs)
        self.join.n = position.n
        self.join.clock_us = position.clock_us
        self.join.counts = Counter(position.counts)
        self.join.merchants = {name: MerchantState.from_bytes(raw) for name, raw in restored.merchants.items()}
        self.join.restore(restored.context, position.waiting)

    @property
    def source(self) -> str:
        """The name of this partition as a source of snapshots."""
        return self._writer.source

    def starts(self) -> Mapping[str, int]:
        """Topic -> the offset from which this partition reads."""
        return self._resume

    def place(self, topic: str) -> int:
        """The partition of a topic that this lane reads."""
        return self._places[topic]

    def take(self, record: Record) -> None:
        """Take one record in. LaneStopped when too many are broken, HashConflict when a sequence comes twice."""
        topic, _, offset, _, value, raw, trace, _ = record
        tally = self._tally[topic]
        expected = self._resume[topic] + len(tally)
        if offset != expected:
            if offset < expected:
                return  # a sibling lane of the same label partition starts earlier
            tally.extend(bytes(offset - expected))
        self._dirty = True
        try:
            tally.append(self._sort(topic, offset, value, raw, trace))
            self._good += 1
        except Poison as poison:
            tally.append(_POISON)
            self._quarantined.append(Quarantined(record, poison.reason))
            self._merge.passed(topic, offset)
            self._limit.good(self._good)
            self._good = 0
            self._limit.poison()

    def _sort(self, topic: str, offset: int, body: bytes, raw: bytes, trace: bytes | None) -> int:
        """Offer a record to the merge; what it counts as. Raises Poison."""
        try:
            header = unpack(raw)
        except HeaderError as error:
            raise Poison(Quarantine.UNDECODABLE, str(error)) from error
        kind, tag = header[:2]
        if tag != self._tag:
            self._merge.passed(topic, offset)
            return _OTHER_RUN
        if kind in KINDS[topic]:
            return self._offer(header, topic, offset, body, trace)
        if kind is Kind.WATERMARK:
            self._merge.mark(header, topic, offset)
        elif kind is Kind.CANARY:
            self._merge.passed(topic, offset)
        else:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"{kind.name} on {topic}")
        return kind

    def _offer(self, header: Header, topic: str, offset: int, body: bytes, trace: bytes | None) -> int:
        """Only the first copy of a sequence is worked on; a broken body still takes its place in the sequence."""
        value, broken, kind = None, None, header.kind
        try:
            value = decode(kind, body, offset, trace)
        except Poison as poison:
            broken = poison
        try:
            seen = self._merge.offer(header, RANKS[topic], "", topic, offset, value)
        except KeyError as error:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"source {header.source} is no input of this lane") from error
        if broken is not None:
            raise broken
        if seen is Seen.DUPLICATE:
            return _DUPLICATE
        if type(value) is Label and self._is_own(value.merchant_id):
            self._labels_read += 1
        return kind

    def advance(self) -> list[Out]:
        """Release what no input can precede any more: the snapshots that complete, in order."""
        bound_us = self._merge.bound()
        if bound_us == self._bound_us:
            return []
        self._bound_us = bound_us
        write = self._writer.write
        return [write(snapshot) for snapshot in self.join.merge(self._merge.take(), bound_us)]

    def frontier(self) -> int:
        """The lowest order_ts (µs) that this partition may still give out; NONE_TS before anything is known."""
        return NONE_TS if self._bound_us == NONE_TS else self.join.frontier(self._bound_us)

    def last_seq(self, target: int) -> int:
        """The last sequence given out to a target partition."""
        return self._writer.seqs[target]

    def waiting(self) -> int:
        """Records read and not yet released."""
        return self._merge.waiting()

    def read(self) -> dict[str, int]:
        """Topic -> the next offset to read."""
        return {topic: start + len(self._tally[topic]) for topic, start in self._resume.items()}

    def checkpoint(self) -> Checkpoint | None:
        """What is to be saved since the last call; None when nothing was read. What it gives out is forgotten here."""
        if not self._dirty:
            return None
        self._dirty = False
        join, read = self.join, self.read()
        spans = self._advance_resume()
        position = Position(
            n=join.n,
            clock_us=join.clock_us,
            bound_us=self._bound_us,
            frontier_us=self.frontier(),
            cursors=self._merge.cursors(),
            resume=dict(self._resume),
            read=read,
            seqs=tuple(self._writer.seqs),
            waiting=join.waiting(),
            pending_labels=self._labels_read - join.counts["labels"],
            open_gaps=sum(self._merge.open_gaps().values()),
            counts=dict(join.counts),
        )
        checkpoint = Checkpoint(
            part=self.part,
            expected_n=self._saved_n,
            position=position,
            merchants={name: join.merchants[name].to_bytes() for name in sorted(join.changed)},
            context=join.context.fresh_after(join.clock_us),
            spans=spans,
            quarantined=tuple(self._quarantined),
            rebinds=tuple(join.rebinds),
        )
        self._saved_n = join.n
        for kept in (join.changed, join.context.fresh, join.rebinds, self._quarantined):
            kept.clear()
        return checkpoint

    def _advance_resume(self) -> tuple[Span, ...]:
        """Move the resume offsets to the lowest unreleased records; the spans passed, with their counts by kind."""
        spans = []
        for topic, upto in self._merge.resume_offsets(self._resume).items():
            start, tally = self._resume[topic], self._tally[topic]
            if upto > start:
                counts = Counter(_NAMES[code] for code in tally[: upto - start])
                spans.append(Span(topic, self._places[topic], start, upto, counts))
                del tally[: upto - start]
                self._resume[topic] = upto
        return tuple(spans)
