"""The archive: every record of the data topics as write-once parquet objects that tile each partition.

Derived stage: claim a range → put its object → record the object. A claimed range is written again after a crash,
from the same records; so the objects of a partition never overlap and leave no hole.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple, Protocol

from fp_contracts.archived import ContentDigest
from fp_contracts.control import EvidenceRef
from fp_rtdl.held import Held
from fp_rtdl.parquet import content_digest, from_parquet, to_parquet
from fp_runtime.bus import Consumer, TopicPartition
from fp_runtime.evidence import EvidenceConflict, EvidenceStore, ref_of
from fp_runtime.failpoint import Failpoint, hit

STAGE = "archive"
BATCH = 2_000
POLL_S = 0.2
HURRY_S = 0.5
SHARES = 5  # of the places, each written at its own time: a burst of work is felt by the stages that decide


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
    """One run's archive. `clock` gives seconds; `starts` is where the run starts in every topic-partition.

    Objects are packed one after the other in this thread and put in the pool, so that waiting for a disk overlaps.
    """

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
        self._held = {place: Held() for place in self._next}
        self._fresh = {place: held.fresh for place, held in self._held.items()}
        self._waiting = 0
        self._beat_s = flush_s / SHARES
        self._started_at = self._flushed_at = clock()
        self._beats = 0
        self.archived = 0
        consumer.assign(self._next)

    def turn(self, hurry: bool = False) -> int:
        """One turn; the number of records read. `hurry` = the stream has ended: write soon, however little."""
        records, held = self._consumer.poll(BATCH, POLL_S), self._fresh
        for record in records:
            held[record.topic, record.partition].append(record)
        self._waiting += len(records)
        full = [place for place, waiting in self._held.items() if waiting.settle() >= self._max_records]
        now = self._clock()
        due = self._due(now)
        if self._waiting >= self._max_held or (hurry and now - self._flushed_at >= min(HURRY_S, self._flush_s)):
            self.flush()
        else:
            self._write(sorted({*due, *full}))
        return len(records)

    def flush(self) -> None:
        """Write everything held, but for a claimed range whose records are not all here yet."""
        self._flushed_at = self._clock()
        self._write(list(self._held))

    def _due(self, now: float) -> set[TopicPartition]:
        """The shares whose times have come since the last turn; each one's comes every `flush_s`."""
        before, self._beats = self._beats, int((now - self._started_at) / self._beat_s)
        shares = {beat % SHARES for beat in range(max(before, self._beats - SHARES), self._beats)}
        return {place for at, place in enumerate(self._held) if at % SHARES in shares} if shares else set()

    def _write(self, places: Sequence[TopicPartition]) -> None:
        ranges = [found for place in places if (found := self._range(place)) is not None]
        if not ranges:
            return
        self._ranges.claim([found for found in ranges if found.place not in self._open])
        hit(Failpoint.ARCHIVE_BEFORE_PUT)
        objects = [put.result() for put in [self._put(found) for found in ranges]]
        hit(Failpoint.ARCHIVE_AFTER_PUT)
        self._ranges.record(objects)
        hit(Failpoint.ARCHIVE_AFTER_ROW)
        for done in objects:
            place = done.range.place
            self._open.pop(place, None)
            self._next[place] = done.range.next_offset
            self.archived += done.records
        self._consumer.commit({done.range.place: done.range.next_offset for done in objects})

    def _range(self, place: TopicPartition) -> Range | None:
        """What is to be written of a topic-partition: a claim from before a restart exactly, else all that is held."""
        held, claimed = self._held[place], self._open.get(place)
        if not held:
            return None
        if claimed is None:
            return Range(*place, self._next[place], held.end)
        return claimed if held.end >= claimed.next_offset else None

    def _put(self, wanted: Range) -> Future[Archived]:
        """Begin to put a range, which is held no longer: whatever fails now ends the process."""
        rows, said = self._held[wanted.place].cut(wanted.next_offset)
        self._waiting -= rows
        digest = ContentDigest()
        digest.add(said)
        return self._pool.submit(self._put_once, wanted, to_parquet(said), rows, digest.hexdigest())

    def _put_once(self, wanted: Range, body: bytes, records: int, digest: str) -> Archived:
        """Write once. An object of the same range that another pyarrow packed stands if it says the same."""
        key = wanted.key(self._run)
        try:
            ref = self._store.put(key, body)
        except EvidenceConflict:
            standing = self._store.get(key)
            if content_digest(from_parquet(standing)) != digest:
                raise
            ref = ref_of(key, standing)
        return Archived(wanted, ref, records, digest)
