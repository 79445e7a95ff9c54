"""The cases' loop: triggers and outcomes into timelines, one transaction per batch under compare-and-set."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from fp_cm_ls.plan import RunPlan
from fp_contracts import derive, topics
from fp_contracts.downstream import ActionOutcome, CaseTrigger
from fp_contracts.header import Header, HeaderError, Kind, kind_of, unpack
from fp_contracts.reasons import Quarantine
from fp_contracts.records import RecordError, read_derived
from fp_contracts.timestamps import to_us
from fp_runtime.bus import Consumer, Record
from fp_runtime.errors import Poison
from fp_runtime.eventtime.sequence import Seen, SourceTrack
from fp_runtime.failpoint import Failpoint, hit
from fp_runtime.quarantine import PoisonLimit, Quarantined

POLL_S = 0.2  # longer than the broker gathers: a poll without a record means that none is there
BATCH = 2_000
COMMIT_S = 1.0
"""What was read is committed this often: nobody waits for a case, and few records are about one."""
_KINDS = {topics.CASE_TRIGGERS: (Kind.CASE_TRIGGER, "df:"), topics.RTDL: (Kind.ACTION_OUTCOME, "al:")}
_PASSED_BY = frozenset({Kind.FEATURE_SNAPSHOT, Kind.DECISION, Kind.WATERMARK})
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """A trigger as it came: its place in its source's sequence, and what R3 compares."""

    trigger: CaseTrigger
    source: str
    part: int
    seq: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """An outcome as it came; `event_us` is the event time of its record."""

    outcome: ActionOutcome
    event_us: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where the loop stands: records worked off, next offset of every place, last sequence and gaps of every source."""

    n: int = 0
    offsets: Mapping[Place, int] = field(default_factory=dict)
    seqs: Mapping[tuple[str, int, str], int] = field(default_factory=dict)
    gaps: Mapping[tuple[str, int, str], tuple[int, ...]] = field(default_factory=dict)

    @property
    def open_gaps(self) -> int:
        """Sequences below the last ones that have not come yet."""
        return sum(map(len, self.gaps.values()))

    def to_bytes(self) -> bytes:
        """The document of ops.progress."""
        offsets = [[*place, at] for place, at in sorted(self.offsets.items())]
        seqs = [[*key, seq, self.gaps.get(key, ())] for key, seq in sorted(self.seqs.items())]
        return orjson.dumps([offsets, seqs])

    @classmethod
    def from_bytes(cls, n: int, raw: bytes) -> "Position":
        """What `to_bytes` wrote."""
        offsets, seqs = orjson.loads(raw)
        return cls(
            n,
            {(topic, part): at for topic, part, at in offsets},
            {(topic, part, source): seq for topic, part, source, seq, _ in seqs},
            {(topic, part, source): tuple(gaps) for topic, part, source, _, gaps in seqs if gaps},
        )


@dataclass(slots=True)
class Batch:
    """What came since the last transaction, in reading order, and the position behind it."""

    expected_n: int
    triggers: list[TriggerRow] = field(default_factory=list)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    position: Position = field(default_factory=Position)


class Store(Protocol):
    """Where cases live; every method raises Unavailable, `commit` also Fenced."""

    def own(self) -> None:
        """Become the one owner of the cases' loop."""
        ...

    def load(self) -> Position | None:
        """Position, None before the first commit."""
        ...

    def commit(self, batch: Batch) -> None:
        """Rows, timelines and position in one transaction."""
        ...


class Cases:
    """The loop of the one member."""

    def __init__(self, plan: RunPlan, store: Store, consumer: Consumer, clock: Callable[[], float]) -> None:
        self._tag = plan.tag
        self._clock = clock
        self._store = store
        self._consumer = consumer
        store.own()
        at = store.load() or Position(offsets=dict(plan.starts))
        self._n = at.n
        self._offsets = dict(at.offsets)
        self._tracks = {key: SourceTrack(seq, gaps=at.gaps.get(key, ())) for key, seq in at.seqs.items()}
        self._batch = Batch(at.n)
        self._limit = PoisonLimit()
        self.counts: Counter[str] = Counter()
        consumer.assign(dict(at.offsets))
        self._committed_at = clock()

    def turn(self) -> int:
        """One turn; the number of records read."""
        records = self._consumer.poll(BATCH, POLL_S)
        for record in records:
            self._take(record)
        if not records or self._clock() - self._committed_at >= COMMIT_S:
            self.commit()
        return len(records)

    def _take(self, record: Record) -> None:
        self._offsets[record.topic, record.partition] = record.offset + 1
        self._n += 1
        try:
            self._sort(record)
        except Poison as poison:
            self._batch.quarantined.append(Quarantined(record, poison.reason))
            self._limit.poison()
        else:
            self._limit.good()

    def _sort(self, record: Record) -> None:
        if kind_of(record.header) in _PASSED_BY:
            return  # most of the topic: not even their header is taken apart
        try:
            header = unpack(record.header)
        except HeaderError as error:
            raise Poison(Quarantine.UNDECODABLE, str(error)) from error
        kind, source = _KINDS[record.topic]
        if header.run_tag != self._tag or header.kind is not kind:
            return
        if not header.source.startswith(source):
            raise Poison(Quarantine.CONTRACT_BROKEN, f"{kind.name} from {header.source}")
        key = (record.topic, record.partition, header.source)
        track = self._tracks.setdefault(key, SourceTrack())
        if track.accept(header.seq, header.payload_hash, header.order_us) is Seen.NEW:
            self._add(record, header)

    def _add(self, record: Record, header: Header) -> None:
        try:
            envelope, payload = read_derived(record.value)
        except RecordError as error:
            raise Poison(Quarantine.CONTRACT_BROKEN, str(error)) from error
        if header.kind is Kind.CASE_TRIGGER and isinstance(payload, CaseTrigger):
            fields = payload.model_dump(mode="json")
            fingerprint = derive.content_fingerprint(derive.TRIGGER_FIELDS, fields, payload.source_event_id)
            self._batch.triggers.append(TriggerRow(payload, header.source, record.partition, header.seq, fingerprint))
        elif header.kind is Kind.ACTION_OUTCOME and isinstance(payload, ActionOutcome):
            self._batch.outcomes.append(OutcomeRow(payload, to_us(envelope.ts_utc)))
        else:
            raise Poison(Quarantine.CONTRACT_BROKEN, f"{header.kind.name} holds {envelope.event_type}")
        self.counts[envelope.event_type] += 1

    def commit(self) -> None:
        """Commit what was read since the last time, if anything was. Call it also before an orderly end."""
        self._committed_at = self._clock()
        if self._n == self._batch.expected_n:
            return
        seqs = {key: track.last for key, track in self._tracks.items()}
        gaps = {key: tuple(sorted(track.gaps)) for key, track in self._tracks.items() if track.gaps}
        batch, position = self._batch, Position(self._n, dict(self._offsets), seqs, gaps)
        batch.position = position
        self._batch = Batch(position.n)
        hit(Failpoint.CM_LS_BEFORE_COMMIT)
        self._store.commit(batch)
        hit(Failpoint.CM_LS_AFTER_COMMIT)
        self._consumer.commit(dict(position.offsets))


def lag(position: Position | None, ends: Mapping[Place, int], starts: Mapping[Place, int]) -> int:
    """Records between a position and the ends of its topics."""
    at = starts if position is None else position.offsets
    return sum(max(0, ends[place] - at.get(place, starts[place])) for place in ends)
