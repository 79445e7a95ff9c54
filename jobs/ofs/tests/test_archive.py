"""The basis is read as the archive has it, whole or not at all."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fp_contracts import topics
from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import BasisRange
from fp_ofs.archive import ArchiveReader
from fp_ofs.errors import Blocked
from fp_runtime.evidence import FileStore

RUN = "platform_20260101T000000Z"


def body(first: int, end: int) -> bytes:
    rows = range(first, end)
    table = pa.table(
        {
            "offset": pa.array(rows, pa.int64()), "key": pa.array([b""] * len(rows)),
            "header": pa.array([b"h%d" % row for row in rows]), "value": pa.array([b"v%d" % row for row in rows]),
        }
    )  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def key(first: int, end: int) -> str:
    return f"archive/{RUN}/{topics.TRAFFIC}/0/{first}-{end}.parquet"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def reader(store: FileStore, start: int, end: int, pinned: tuple[EvidenceRef, ...] = ()) -> ArchiveReader:
    return ArchiveReader(store, RUN, [BasisRange(topic=topics.TRAFFIC, partition=0, start=start, end=end)], pinned)


def offsets(found: ArchiveReader) -> list[int]:
    return [row.offset for row in found.rows(topics.TRAFFIC, 0)]


def blocked(found: ArchiveReader) -> str:
    with pytest.raises(Blocked) as caught:
        offsets(found)
    assert caught.value.code == "DFULL-RUN-B12.1"
    return caught.value.reason


@pytest.mark.parametrize(("start", "end"), [(0, 30), (3, 17), (10, 20), (9, 11), (20, 30), (5, 5)])
def test_exactly_the_range_is_read_wherever_objects_are_cut(store: FileStore, start: int, end: int) -> None:
    for first in (0, 10, 20):
        store.put(key(first, first + 10), body(first, first + 10))
    assert offsets(reader(store, start, end)) == list(range(start, end))


def test_objects_are_read_in_order_of_offset_not_of_name(store: FileStore) -> None:
    for first, end in ((0, 9), (9, 100), (100, 110)):
        store.put(key(first, end), body(first, end))
    assert offsets(reader(store, 0, 110)) == list(range(110))


def test_a_hole_blocks(store: FileStore) -> None:
    store.put(key(0, 10), body(0, 10))
    store.put(key(11, 20), body(11, 20))
    assert "breaks at 10" in blocked(reader(store, 0, 20))


def test_an_overlap_blocks(store: FileStore) -> None:
    store.put(key(0, 10), body(0, 10))
    store.put(key(8, 20), body(8, 20))
    assert "breaks at 10" in blocked(reader(store, 0, 20))


def test_an_archive_that_ends_early_blocks(store: FileStore) -> None:
    store.put(key(0, 10), body(0, 10))
    assert "ends at 10" in blocked(reader(store, 0, 20))


def test_a_range_that_the_basis_does_not_name_blocks(store: FileStore) -> None:
    with pytest.raises(Blocked, match="names no range"):
        list(reader(store, 0, 1).rows(topics.TRAFFIC, 1))


def test_an_object_that_is_not_parquet_blocks(store: FileStore) -> None:
    store.put(key(0, 10), b"PAR1 no")
    assert "not readable" in blocked(reader(store, 0, 10))


def test_an_object_with_other_columns_blocks(store: FileStore) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"offset": [0]}), sink)
    store.put(key(0, 1), sink.getvalue().to_pybytes())
    assert "has columns" in blocked(reader(store, 0, 1))


def test_a_name_that_is_no_range_blocks(store: FileStore) -> None:
    store.put(key(0, 10), body(0, 10))
    store.put(f"archive/{RUN}/{topics.TRAFFIC}/0/notes.txt", b"")
    assert "no archive object" in blocked(reader(store, 0, 10))


def test_pinned_objects_are_held_to_their_hash(store: FileStore) -> None:
    ref = store.put(key(0, 10), body(0, 10))
    assert offsets(reader(store, 0, 10, (ref,))) == list(range(10))
    assert "not the recorded one" in blocked(reader(store, 0, 10, (ref.model_copy(update={"sha256": "0" * 64}),)))


def test_an_object_that_is_not_pinned_blocks(store: FileStore) -> None:
    ref = store.put(key(0, 10), body(0, 10))
    store.put(key(10, 20), body(10, 20))
    assert "not among the pinned" in blocked(reader(store, 0, 20, (ref,)))
