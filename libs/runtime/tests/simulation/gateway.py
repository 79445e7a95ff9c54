"""A writer (ingest gateway, or the label store's adjudication door): claims, sequences, frontiers, the resolver."""

from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fp_contracts import topics
from fp_contracts.canonical import trusted_bytes
from fp_contracts.header import NONE_TS, Header, Kind, Mark
from fp_contracts.partition import partition_of
from fp_runtime.eventtime.lane import LaneOrder

from .bugs import Bug
from .kernel import CommitLost, Kernel, Rec, Steps, Tp
from .sender import UNKNOWN, Request
from .world import ADJUDICATION, EFFECT_DELAY, Event, Line

TAG = b"sim-run!"


@dataclass
class Claim:
    """One admitted event: exact bytes and header; `offset` is the publish fact."""

    lane: str
    tp: Tp
    rec: Rec
    high_water: int
    offset: int | None = None


@dataclass
class Rows:
    """The durable tables of all writers."""

    claims: dict[str, Claim] = field(default_factory=dict)
    classes: dict[tuple[str, int], str] = field(default_factory=dict)
    sequences: dict[tuple[str, Tp], int] = field(default_factory=lambda: defaultdict(int))
    floors: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: NONE_TS))

    def open_of(self, lane: str) -> list[Claim]:
        """Claims of a lane without a publish fact, in order."""
        return [claim for claim in self.claims.values() if claim.lane == lane and claim.offset is None]


def tps_of(lane: str) -> list[Tp]:
    """The topic-partitions that a lane feeds."""
    if lane == ADJUDICATION:
        return [(topics.LABELS, part) for part in range(3)]
    return [(topic, int(lane)) for topic in topics.INGRESS]


def payload_hash(event: Event) -> bytes:
    """What a retry must repeat."""
    return sha256(f"{event.event_id} {event.amount}".encode()).digest()


class Writer:
    """One process of a writer. Sequences and lane floors are cached in memory: only the owner row makes that safe."""

    def __init__(self, kernel: Kernel, name: str, rows: Rows, inbox: list[Request]) -> None:
        self._kernel, self._name, self._rows, self._inbox = kernel, name, rows, inbox
        self._delay = EFFECT_DELAY if name == "ls" else 0

    def run(self, lanes: list[str]) -> Steps:
        """Take over, resolve what is open, then serve one request after the other."""
        self._epoch = self._kernel.raise_epoch(self._name)
        self._load()
        yield
        for lane in lanes:
            yield from self._resolve(lane)
        while True:
            yield None if self._inbox else 10
            if self._inbox:
                request = self._inbox.pop(0)
                reply = yield from self._handle(request)
                if not self._kernel.fault(0.05 * self._kernel.plan.rate):
                    request.reply = reply

    def _load(self) -> None:
        rows = self._rows
        self._sequences = defaultdict(int, {tp: n for (name, tp), n in rows.sequences.items() if name == self._name})
        self._orders = defaultdict(LaneOrder, {lane: LaneOrder(floor) for lane, floor in rows.floors.items()})

    def _handle(self, request: Request) -> Generator[Any, None, list[str] | str]:
        bug = self._kernel.bug
        if not (yield from self._resolve(request.lane)):
            return UNKNOWN
        yield
        try:
            epoch = None if bug is Bug.CLAIM_WITHOUT_OWNER else self._epoch
            self._kernel.commit(self._name, epoch, lambda: self._claim(request))
        except CommitLost:
            self._load()
            return UNKNOWN
        classes = [self._rows.classes[request.lane, line.seq] for line in request.lines]
        if bug is Bug.CLASS_BEFORE_PUBLISH:
            request.reply = classes
        fresh = self._rows.open_of(request.lane)
        if not (yield from self._produce(fresh)):
            return UNKNOWN
        carried = {claim.tp for claim in fresh if claim.rec.header.frontier_us >= request.frontier + self._delay}
        if bug is Bug.FRONTIER_ON_REFUSED_LINE:
            carried = {tp for line in request.lines if line.event for tp in [self._tp(line.event)]}
        for tp in tps_of(request.lane):
            if tp not in carried:
                yield
                if self._kernel.publish(tp, self._watermark(tp, request.frontier)) is None:
                    return UNKNOWN
        return classes

    def _claim(self, request: Request) -> None:
        """The claim transaction: a class for every line, and a sequence only for what the conflict check let pass."""
        fresh: dict[Tp, str] = {}
        refused: set[Tp] = set()
        for line in request.lines:
            if (request.lane, line.seq) in self._rows.classes:
                continue
            event, got = line.event, "QUARANTINED"
            if event is not None:
                tp = self._tp(event)
                if self._kernel.bug is Bug.SEQUENCE_BEFORE_CONFLICT_CHECK:
                    self._sequences[tp] += 1
                first = self._rows.claims.get(event.event_id)
                if first is None:
                    got = "ADMITTED"
                    self._admit(request.lane, line, event, tp)
                    fresh[tp] = event.event_id
                    refused.discard(tp)
                else:
                    got = "DUPLICATE" if first.rec.header.payload_hash == payload_hash(event) else "QUARANTINED"
                    refused.add(tp)
            self._rows.classes[request.lane, line.seq] = got
        for tp, event_id in fresh.items():
            if self._kernel.bug is not Bug.FRONTIER_ON_REFUSED_LINE or tp not in refused:
                claim = self._rows.claims[event_id]
                header = self._with_frontier(claim.rec.header, request.frontier)
                claim.rec = Rec(header, claim.rec.value)
        self._orders[request.lane].declare(request.frontier + self._delay)
        for tp, last in self._sequences.items():
            self._rows.sequences[self._name, tp] = last
        self._rows.floors[request.lane] = self._orders[request.lane].floor_us

    def _admit(self, lane: str, line: Line, event: Event, tp: Tp) -> None:
        bug = self._kernel.bug
        if bug is not Bug.SEQUENCE_BEFORE_CONFLICT_CHECK:
            self._sequences[tp] += 1
        order = self._orders[lane].order_of(event.ts + self._delay)
        if bug is Bug.ORDER_BY_TS:
            order = event.ts + self._delay
        header = Header(event.kind, TAG, self._name, self._sequences[tp], order, payload_hash(event))
        rec = Rec(header, trusted_bytes(event._asdict()))
        self._rows.claims[event.event_id] = Claim(lane, tp, rec, len(self._kernel.logs[tp]))

    def _produce(self, claims: list[Claim]) -> Generator[Any, None, bool]:
        """One attempt for each, pipelined; then the facts. False when any stays in doubt."""
        offsets = []
        for claim in claims:
            yield
            offsets.append(self._kernel.publish(claim.tp, claim.rec))
        yield
        return self._record_facts(list(zip(claims, offsets, strict=True)))

    def _resolve(self, lane: str) -> Generator[Any, None, bool]:
        """Open claims with no attempt in flight: found on the topic = observed, else the same bytes again."""
        found: list[tuple[Claim, int | None]] = []
        for claim in self._rows.open_of(lane):
            yield
            log = self._kernel.logs[claim.tp]
            mine = (offset for offset in range(claim.high_water, len(log)) if _same(log[offset], claim.rec))
            offset = next(mine, None)
            if offset is None and self._kernel.bug is Bug.UNKNOWN_DROPPED:
                offset = -1
            if offset is None:
                offset = self._kernel.publish(claim.tp, claim.rec)
            found.append((claim, offset))
        return not found or self._record_facts(found)

    def _record_facts(self, offsets: list[tuple[Claim, int | None]]) -> bool:
        def apply() -> None:
            for claim, offset in offsets:
                claim.offset = offset if claim.offset is None else claim.offset

        try:
            self._kernel.commit(self._name, self._epoch, apply)
        except CommitLost:
            return False
        return all(offset is not None for _, offset in offsets)

    def _watermark(self, tp: Tp, frontier: int) -> Rec:
        if self._kernel.bug is Bug.WATERMARK_TAKES_SEQUENCE:
            self._sequences[tp] += 1
        mark = Mark(self._name, frontier + self._frontier_delay, self._sequences[tp])
        return Rec(Header(Kind.WATERMARK, TAG, self._name, 0, mark.frontier_us, marks=(mark,)), b"")

    def _with_frontier(self, header: Header, frontier: int) -> Header:
        return Header(
            header.kind, header.run_tag, header.source, header.seq, header.order_us, header.payload_hash,
            frontier + self._frontier_delay,
        )  # fmt: skip

    @property
    def _frontier_delay(self) -> int:
        wrong = self._kernel.bug is Bug.LABEL_FRONTIER_WITHOUT_DELAY and self._delay
        return self._delay + EFFECT_DELAY if wrong else self._delay

    def _tp(self, event: Event) -> Tp:
        return event.topic, partition_of(event.merchant, topics.TOPICS[event.topic].partitions)


def check_reply(kernel: Kernel, rows: Rows, request: Request) -> None:
    """A class is given back only when its record and the frontier are on the topic."""
    for line in request.lines:
        if line.event is not None:
            claim = rows.claims[line.event.event_id]
            assert any(_same(rec, claim.rec) for rec in kernel.logs[claim.tp]), f"{line} has a class and no record"
    delay = EFFECT_DELAY if request.lane == ADJUDICATION else 0
    for tp in tps_of(request.lane):
        best = max((_frontier(rec) for rec in kernel.logs[tp]), default=NONE_TS)
        assert best >= request.frontier + delay, f"frontier {request.frontier} was acked and is not on {tp}"


def _frontier(rec: Rec) -> int:
    return rec.header.marks[0].frontier_us if rec.header.marks else rec.header.frontier_us


def _same(rec: Rec, wanted: Rec) -> bool:
    return rec.header.source == wanted.header.source and rec.header.seq == wanted.header.seq
