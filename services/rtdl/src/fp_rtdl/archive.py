"""The archive: every record of the data topics as write-once parquet objects that tile each partition.

Derived stage: claim a range → put its object → record the object. A claimed range is written again after a crash,
from the same records; so the objects of a partition never overlap and leave no hole.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from operator import attrgetter
from typing import NamedTuple, Protocol

from fp_contracts.control import EvidenceRef
from fp_rtdl.parquet import Columns, columns_from_parquet, columns_of, columns_to_parquet, content_digest
from fp_runtime.bus import Consumer, Record, TopicPartition
from fp_runtime.evidence import EvidenceConflict, EvidenceStore, ref_of
from fp_runtime.failpoint import Failpoint, hit

STAGE = "archive"
BATCH = 2_000
POLL_S = 0.2
HURRY_S = 0.5


class Range(NamedTuple):
    """Offsets [first, next_offset) of one topic-partition."""

    topic: str
    partition: int
    first: int
    next_offset: int

    @property
    def place(self) -> TopicPartition:
        """The topic-partition."""
        return self.topic, self.partition

    def key(self, run: str) -> str:
        """The key of its object."""
        return f"archive/{run}/{self.topic}/{self.partition}/{self.first}-{self.next_offset}.parquet"


class Archived(NamedTuple):
    """One recorded object: where it lies, and what it says."""

    range: Range
    ref: EvidenceRef
    records: int
    content_digest: str


class Ranges(Protocol):
    """Claims and objects as recorded. Every method raises Unavailable, writing ones also Fenced."""

    def own(self) -> None:
        """Become the one writer."""
        ...

    def reached(self) -> Mapping[TopicPartition, int]:
        """The end of the last claim per topic-partition that has one."""
        ...

    def unfinished(self) -> Sequence[Range]:
        """Claims without an object; at most one per topic-partition."""
        ...

    def claim(self, ranges: Sequence[Range]) -> None:
        """Claim ranges, each where the last one of its topic-partition ended."""
        ...

    def record(self, objects: Sequence[Archived]) -> None:
        """Record the objects of claimed ranges."""
        ...


class Archive:
    """One run's archive. `clock` gives seconds; `starts` is where the run starts in every topic-partition."""

    def __init__(
        self, run: str, starts: Mapping[TopicPartition, int], ranges: Ranges, store: EvidenceStore,
        consumer: Consumer, pool: Executor, clock: Callable[[], float], *, max_records: int, max_held: int,
        flush_s: float,
    ) -> None:  # fmt: skip
        self._run = run
        self._ranges = ranges
        self._store = store
        self._consumer = consumer
        self._pool = pool
        self._clock = clock
        self._max_records = max_records
        self._max_held = max_held
        self._flush_s = flush_s
        ranges.own()
        self._open = {claimed.place: claimed for claimed in ranges.unfinished()}
        opened = {place: claimed.first for place, claimed in self._open.items()}
        self._next = {**starts, **ranges.reached(), **opened}
        self._held: dict[TopicPartition, list[Record]] = {place: [] for place in self._next}
        self._waiting = 0
        self._flushed_at = clock()
        self.archived = 0
        consumer.assign(self._next)

    def turn(self, hurry: bool = False) -> int:
        """One turn; the number of records read. `hurry` = the stream has ended: write soon, however little."""
        records, held = self._consumer.poll(BATCH, POLL_S), self._held
        for record in records:
            held[record.topic, record.partition].append(record)
        self._waiting += len(records)
        full = [place for place, waiting in held.items() if len(waiting) >= self._max_records]
        if full:
            self._write(full)
        due_s = min(HURRY_S, self._flush_s) if hurry else self._flush_s
        if self._waiting >= self._max_held or self._clock() - self._flushed_at >= due_s:
            self.flush()
        return len(records)

    def flush(self) -> None:
        """Write everything held, but for a claimed range whose records are not all here yet."""
        self._flushed_at = self._clock()
        self._write([place for place, records in self._held.items() if records])

    def _write(self, places: Sequence[TopicPartition]) -> None:
        ranges = [found for found in map(self._range, places) if found is not None]
        if not ranges:
            return
        self._ranges.claim([found for found in ranges if found.place not in self._open])
        hit(Failpoint.ARCHIVE_BEFORE_PUT)
        objects = list(self._pool.map(self._put, ranges))
        hit(Failpoint.ARCHIVE_AFTER_PUT)
        self._ranges.record(objects)
        hit(Failpoint.ARCHIVE_AFTER_ROW)
        for done in objects:
            place = done.range.place
            self._open.pop(place, None)
            self._next[place] = done.range.next_offset
            del self._held[place][: self._upto(done.range)]
            self.archived += done.records
            self._waiting -= done.records
        self._consumer.commit({done.range.place: done.range.next_offset for done in objects})

    def _range(self, place: TopicPartition) -> Range | None:
        """What is to be written of a topic-partition: a claim from before a restart exactly, else all that is held."""
        upto, claimed = self._held[place][-1].offset + 1, self._open.get(place)
        if claimed is None:
            return Range(*place, self._next[place], upto)
        return claimed if upto >= claimed.next_offset else None

    def _upto(self, wanted: Range) -> int:
        """How many of the held records, which are in order of offset, lie before the end of a range."""
        return bisect_left(self._held[wanted.place], wanted.next_offset, key=attrgetter("offset"))

    def _put(self, wanted: Range) -> Archived:
        records = self._held[wanted.place][: self._upto(wanted)]
        columns = columns_of(records)
        digest = content_digest(zip(*columns, strict=True))
        return Archived(wanted, self._put_once(wanted.key(self._run), columns, digest), len(records), digest)

    def _put_once(self, key: str, columns: Columns, digest: str) -> EvidenceRef:
        """Write once. An object of the same range that another pyarrow packed stands if it says the same."""
        try:
            return self._store.put(key, columns_to_parquet(columns))
        except EvidenceConflict:
            body = self._store.get(key)
            if content_digest(zip(*columns_from_parquet(body), strict=True)) != digest:
                raise
            return ref_of(key, body)
