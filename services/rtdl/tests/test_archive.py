"""The archive on the memory bus: objects tile, say what the topic says, and a crash writes the same ones again."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fp_contracts import topics
from fp_contracts.archived import ContentDigest, Streams, streams
from fp_rtdl import parquet, sample
from fp_rtdl.archive import Archive, Archived, Range
from fp_rtdl.audit import ArchiveAudit, covering
from fp_rtdl.held import Held
from fp_runtime.bus import Record, TopicPartition
from fp_runtime.errors import Fenced
from fp_runtime.evidence import EvidenceConflict, FileStore
from fp_runtime.failpoint import FailpointRaised, arm, disarm
from fp_runtime.memory import MemoryBus

PLACES = [(topic, part) for topic in topics.DATA for part in range(topics.TOPICS[topic].partitions)]
STARTS = dict.fromkeys(PLACES, 0)


class Row(NamedTuple):
    """One record as the archive keeps it."""

    offset: int
    key: bytes | None
    header: bytes
    value: bytes
    traceparent: bytes | None


def row_of(record: Record) -> Row:
    return Row(record.offset, record.key, record.header, record.value, record.traceparent)


def streams_of_rows(rows: Sequence[Row]) -> Streams:
    offsets, *columns = zip(*rows, strict=True)
    return streams(offsets, columns)


def rows_of(table: pa.Table) -> list[Row]:
    columns = [table.column(name).to_pylist() for name in parquet.SCHEMA.names]
    return [Row._make(values) for values in zip(*columns, strict=True)]


@dataclass
class MemoryRanges:
    """archive.Ranges in memory."""

    claims: dict[tuple[TopicPartition, int], Range] = field(default_factory=dict)
    objects: dict[tuple[TopicPartition, int], Archived] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    epoch: int = 0

    def process(self) -> "MemoryRanges":
        return MemoryRanges(self.claims, self.objects, self.epochs)

    def own(self) -> None:
        self.epochs.append(len(self.epochs))
        self.epoch = self.epochs[-1]

    def reached(self) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        for claimed in self.claims.values():
            found[claimed.place] = max(found.get(claimed.place, 0), claimed.next_offset)
        return found

    def unfinished(self) -> Sequence[Range]:
        return [claimed for key, claimed in self.claims.items() if key not in self.objects]

    def claim(self, ranges: Sequence[Range]) -> None:
        if self.epoch != self.epochs[-1]:
            raise Fenced("a later owner is there")
        for wanted in ranges:
            key = (wanted.place, wanted.first)
            assert key not in self.claims
            self.claims[key] = wanted

    def record(self, objects: Sequence[Archived]) -> None:
        for done in objects:
            key = (done.range.place, done.range.first)
            assert key not in self.objects
            self.objects[key] = done

    def sorted(self) -> list[Archived]:
        return sorted(self.objects.values(), key=lambda done: done.range)


@pytest.fixture(autouse=True)
def _no_failpoints() -> Any:
    yield
    disarm()


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def lines(kit: Any) -> list[Any]:
    return sample.world(sample.Feed(), kit.payments(40), kit.end_us)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.4
        return self.now


def start(
    bus: MemoryBus, ranges: MemoryRanges, folder: Path, pool: Any, max_records: int = 30, max_held: int = 1_000
) -> Archive:  # fmt: skip
    return Archive(
        sample.RUN, STARTS, ranges.process(), FileStore(folder), bus.consumer("archive"), pool, Clock(),
        max_records=max_records, max_held=max_held, flush_s=3.0,
    )  # fmt: skip


def drain(archive: Archive) -> None:
    while archive.turn():
        pass
    archive.flush()


def assert_complete(bus: MemoryBus, ranges: MemoryRanges, folder: Path) -> None:
    """Objects tile every partition, recompute, and say what the topics say."""
    objects = ranges.sorted()
    needed = {place: bus.span(place) for place in PLACES}
    chosen, holes = covering(objects, needed)
    assert ({done.range for done in chosen}, holes) == ({done.range for done in objects}, [])
    audit = ArchiveAudit(objects)
    for place in PLACES:
        for record in bus.read(place, 0, bus.span(place)[1]):
            audit.take(record)
    assert audit.mismatches() == []
    for done in objects:
        table = parquet.from_parquet(FileStore(folder).get(done.ref.key))
        assert parquet.content_digest(table) == done.content_digest
        assert table.num_rows == done.records


def test_everything_is_archived_watermarks_and_all(kit: Any, lines: list[Any], tmp_path: Path, pool: Any) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    archive = start(bus, ranges, tmp_path, pool)
    drain(archive)
    assert_complete(bus, ranges, tmp_path)
    assert archive.archived == len(lines)
    assert max(done.records for done in ranges.sorted()) >= 30


def test_no_more_is_held_than_memory_has_room_for(kit: Any, lines: list[Any], tmp_path: Path, pool: Any) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    start(bus, ranges, tmp_path, pool, max_records=1_000).turn()
    assert ranges.objects == {}
    archive = start(bus, ranges, tmp_path, pool, max_records=1_000, max_held=50)
    read = archive.turn()
    assert archive.archived == read == len(lines)
    kit.write(bus, lines[:20])
    archive.turn()
    assert archive.archived < len(lines) + 20  # what was written takes no room any more
    drain(archive)
    assert_complete(bus, ranges, tmp_path)


@pytest.mark.parametrize("point", ["archive.before_put", "archive.after_put", "archive.after_row"])
@pytest.mark.parametrize("hits", [1, 2, 4])
def test_a_crash_writes_the_claimed_range_again_and_nothing_else(
    kit: Any, lines: list[Any], tmp_path: Path, pool: Any, point: str, hits: int
) -> None:
    bus, ranges = kit.bus(), MemoryRanges()
    archive = start(bus, ranges, tmp_path, pool)
    arm(f"{point}:raise:{hits}")
    crashes = 0
    for at in range(0, len(lines), 40):
        kit.write(bus, lines[at : at + 40])
        try:
            archive.turn()
            archive.flush()
        except FailpointRaised:
            crashes += 1
            archive = start(bus, ranges, tmp_path, pool, max_records=7)
    drain(archive)
    assert crashes == 1
    assert_complete(bus, ranges, tmp_path)
    keys = {item.key for item in FileStore(tmp_path).list("archive/")}
    assert keys == {done.ref.key for done in ranges.sorted()}


def test_a_claimed_range_waits_for_the_last_of_its_records(
    kit: Any, lines: list[Any], tmp_path: Path, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    arm("archive.before_put:raise:1")
    with pytest.raises(FailpointRaised):
        drain(start(bus, ranges, tmp_path, pool))
    monkeypatch.setattr("fp_rtdl.archive.BATCH", 3)
    archive = start(bus, ranges, tmp_path, pool)
    while archive.turn():
        archive.flush()
    assert_complete(bus, ranges, tmp_path)


def test_a_zombie_is_fenced_before_it_writes(kit: Any, lines: list[Any], tmp_path: Path, pool: Any) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    zombie = start(bus, ranges, tmp_path, pool)
    start(bus, ranges, tmp_path, pool)
    with pytest.raises(Fenced):
        drain(zombie)
    assert FileStore(tmp_path).list("archive/") == []


ROWS = [
    Row(5, b"k", b"h", b"v", None), Row(6, None, b"", b"", b"t"), Row(7, b"", b"h", b"x", b""),
]  # fmt: skip


def packed(rows: Sequence[Row], level: int = 1) -> bytes:
    return parquet.to_parquet(streams_of_rows(rows), level)


PARTS = st.binary(max_size=6)
ROW_LISTS = st.lists(
    st.builds(Row, st.just(0), st.none() | PARTS, PARTS, PARTS, st.none() | PARTS), min_size=1, max_size=200
).map(lambda rows: [row._replace(offset=2 * at + 5) for at, row in enumerate(rows)])


@given(ROW_LISTS, st.data())
@settings(deadline=None)
def test_an_object_is_the_same_wherever_the_polls_and_a_claim_cut_the_records(
    rows: list[Row], data: st.DataObject
) -> None:
    ends = data.draw(st.lists(st.integers(0, len(rows)), max_size=4).map(sorted))
    upto = data.draw(st.integers(rows[0].offset + 1, rows[-1].offset + 1))
    held, before, behind = (
        Held(),
        [row for row in rows if row.offset < upto],
        [row for row in rows if row.offset >= upto],
    )
    for first, end in zip([0, *ends], [*ends, len(rows)], strict=True):
        held.fresh += [Record("t", 0, row.offset, row.key, row.value, row.header, row.traceparent, 1)
                       for row in rows[first:end]]  # fmt: skip
        assert held.settle() == end
    for wanted, at in ((before, upto), (behind, held.end)):
        if wanted:
            count, said = held.cut(at)
            digest = ContentDigest()
            digest.add(said)
            body = parquet.to_parquet(said)
            table = parquet.from_parquet(body)
            assert (count, body, rows_of(table)) == (len(wanted), packed(wanted), wanted)
            assert digest.hexdigest() == parquet.content_digest(table) == digest_of(wanted)
    assert len(held) == 0


def digest_of(rows: Sequence[Row]) -> str:
    digest = ContentDigest()
    for row in rows:
        digest.take(row)
    return digest.hexdigest()


@pytest.mark.parametrize("rows", [ROWS, [Row(1, None, b"", b"", None)], ROWS * 400], ids=["few", "none", "many"])
def test_the_digest_of_an_object_is_the_same_however_it_is_packed_and_chunked(rows: list[Row]) -> None:
    table = parquet.from_parquet(packed(rows, level=9))
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert parquet.content_digest(table) == parquet.content_digest(pieces) == digest_of(rows)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=2)
    assert parquet.content_digest(parquet.from_parquet(sink.getvalue().to_pybytes())) == digest_of(rows)


def test_places_are_written_at_times_of_their_own_and_no_later_than_the_flush(
    kit: Any, lines: list[Any], tmp_path: Path, pool: Any
) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    archive = start(bus, ranges, tmp_path, pool, max_records=10_000, max_held=10_000)  # flush 3.0 s, a turn 0.4 s
    written = []
    for _ in range(9):
        archive.turn()
        written.append(len(ranges.objects))
    places = {line[:2] for line in lines}
    steps = [after - before for before, after in zip([0, *written], written, strict=False)]
    assert (written[-1], max(steps) <= len(PLACES) // 5 + 1) == (len(places), True)
    assert_complete(bus, ranges, tmp_path)


def test_a_stream_that_ended_is_written_soon_and_whole(kit: Any, lines: list[Any], tmp_path: Path, pool: Any) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    archive = start(bus, ranges, tmp_path, pool, max_records=10_000, max_held=10_000)
    archive.turn(hurry=True)
    archive.turn(hurry=True)
    assert archive.archived == len(lines)
    assert_complete(bus, ranges, tmp_path)


def test_an_object_packed_by_another_writer_stands_if_it_says_the_same(
    kit: Any, lines: list[Any], tmp_path: Path, pool: Any
) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    arm("archive.before_put:raise:1")
    with pytest.raises(FailpointRaised):
        drain(start(bus, ranges, tmp_path, pool))
    for claimed in ranges.unfinished():
        rows = [row_of(r) for r in bus.read(claimed.place, claimed.first, claimed.next_offset - claimed.first)]
        FileStore(tmp_path).put(claimed.key(sample.RUN), packed(rows, level=9))
    drain(start(bus, ranges, tmp_path, pool))
    assert_complete(bus, ranges, tmp_path)


def test_an_object_that_says_something_else_stops_the_archive(
    kit: Any, lines: list[Any], tmp_path: Path, pool: Any
) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    arm("archive.before_put:raise:1")
    with pytest.raises(FailpointRaised):
        drain(start(bus, ranges, tmp_path, pool))
    claimed = ranges.unfinished()[0]
    FileStore(tmp_path).put(claimed.key(sample.RUN), packed(ROWS))
    with pytest.raises(EvidenceConflict):
        drain(start(bus, ranges, tmp_path, pool))


def test_covering_names_holes_and_stops_where_enough_is_covered(kit: Any, lines: list[Any], tmp_path: Path,
                                                                pool: Any) -> None:  # fmt: skip
    bus, ranges = kit.bus(lines), MemoryRanges()
    drain(start(bus, ranges, tmp_path, pool, max_records=5))
    objects = [done for done in ranges.sorted() if done.range.place == (topics.TRAFFIC, 0)]
    first, last = objects[0].range, objects[-1].range
    place = first.place
    assert covering(objects, {place: (0, 1)}) == ([objects[0]], [])
    assert covering(objects[1:], {place: (0, last.next_offset)})[1] == [f"{place[0]}[0]: 0 to {first.next_offset}"]
    assert covering(objects, {place: (0, last.next_offset + 1)})[1] == [
        f"{place[0]}[0]: {last.next_offset} to {last.next_offset + 1}"
    ]
    assert covering([], {place: (3, 3)}) == ([], [])
