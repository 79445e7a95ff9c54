"""The archive on the memory bus: objects tile, say what the topic says, and a crash writes the same ones again."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fp_contracts import topics
from fp_rtdl import parquet, sample
from fp_rtdl.archive import Archive, Archived, Range
from fp_rtdl.audit import ArchiveAudit, covering
from fp_runtime.bus import TopicPartition
from fp_runtime.errors import Fenced
from fp_runtime.evidence import EvidenceConflict, FileStore
from fp_runtime.failpoint import FailpointRaised, arm, disarm
from fp_runtime.memory import MemoryBus

PLACES = [(topic, part) for topic in topics.DATA for part in range(topics.TOPICS[topic].partitions)]
STARTS = dict.fromkeys(PLACES, 0)


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
        rows = parquet.from_parquet(FileStore(folder).get(done.ref.key))
        assert parquet.content_digest(rows) == done.content_digest
        assert len(rows) == done.records


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


def test_a_zombie_is_fenced_before_it_writes(kit: Any, lines: list[Any], tmp_path: Path, pool: Any) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    zombie = start(bus, ranges, tmp_path, pool)
    start(bus, ranges, tmp_path, pool)
    with pytest.raises(Fenced):
        drain(zombie)
    assert FileStore(tmp_path).list("archive/") == []


ROWS = [
    parquet.Row(5, b"k", b"h", b"v", None), parquet.Row(6, None, b"", b"", b"t"), parquet.Row(7, b"", b"h", b"x", b""),
]  # fmt: skip


def test_rows_come_back_as_they_went_and_bytes_repeat() -> None:
    assert parquet.from_parquet(parquet.to_parquet(ROWS)) == ROWS
    assert parquet.to_parquet(ROWS) == parquet.to_parquet(list(ROWS))


@pytest.mark.parametrize("change", [
    ROWS[:2], [ROWS[1], ROWS[0], ROWS[2]], [*ROWS[:2], ROWS[2]._replace(key=None)],
    [*ROWS[:2], ROWS[2]._replace(key=b"h", header=b"")], [*ROWS[:2], ROWS[2]._replace(offset=8)],
])  # fmt: skip
def test_the_digest_tells_every_change(change: list[parquet.Row]) -> None:
    assert parquet.content_digest(change) != parquet.content_digest(ROWS)


def test_an_object_packed_by_another_writer_stands_if_it_says_the_same(
    kit: Any, lines: list[Any], tmp_path: Path, pool: Any
) -> None:
    bus, ranges = kit.bus(lines), MemoryRanges()
    arm("archive.before_put:raise:1")
    with pytest.raises(FailpointRaised):
        drain(start(bus, ranges, tmp_path, pool))
    for claimed in ranges.unfinished():
        rows = [parquet.row_of(r) for r in bus.read(claimed.place, claimed.first, claimed.next_offset - claimed.first)]
        FileStore(tmp_path).put(claimed.key(sample.RUN), parquet.to_parquet(rows, level=9))
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
    FileStore(tmp_path).put(claimed.key(sample.RUN), parquet.to_parquet(ROWS))
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
