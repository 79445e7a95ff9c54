"""Archive objects: records of one topic-partition range as parquet, and the digest of what they say. Pure."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fp_contracts.archived import COLUMNS, Buffer, ContentDigest, Streams, streams
from fp_runtime.bus import Record

_FIELDS: list[tuple[str, pa.DataType]] = [("offset", pa.int64()), *((name, pa.binary()) for name in COLUMNS)]
SCHEMA = pa.schema(_FIELDS)
_NONE = pa.scalar(0, pa.int32())
_FIRST = pa.array([0], pa.int32())


def streams_of(records: Sequence[Record]) -> Streams:
    """What the archive keeps of at least one record: not its broker timestamp, which a replay does not repeat."""
    _, _, offsets, keys, values, headers, traces, _ = zip(*records, strict=True)
    return streams(offsets, (keys, headers, values, traces))


def to_parquet(said: Streams, level: int = 1) -> bytes:
    """The object's bytes, of at least one row: equal rows give equal bytes with the same pyarrow and zstd level."""
    rows = len(said.offsets) // 8
    offsets = pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(said.offsets)])
    columns = [_column(rows, lengths, values) for lengths, values in said.columns]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table([offsets, *columns], schema=SCHEMA), sink, compression="zstd", compression_level=level,
        use_dictionary=False, write_statistics=False,
    )  # fmt: skip
    return sink.getvalue().to_pybytes()


def _column(rows: int, lengths: Buffer, values: Buffer) -> Any:
    sizes: Any = pa.Int32Array.from_buffers(pa.int32(), rows, [None, pa.py_buffer(lengths)])
    present = pc.greater_equal(sizes, _NONE).buffers()[1]
    ends = pc.cumulative_sum_checked(pc.max_element_wise(sizes, _NONE))
    borders = pa.concat_arrays([_FIRST, ends]).buffers()[1]
    return pa.BinaryArray.from_buffers(pa.binary(), rows, [present, borders, pa.py_buffer(values)])


def from_parquet(body: bytes) -> pa.Table:
    """The columns of an object; ValueError when it is no archive object."""
    table = pq.read_table(pa.BufferReader(body))
    if table.schema.names != SCHEMA.names:
        raise ValueError(f"not an archive object: {table.schema.names}")
    return table


def content_digest(table: pa.Table) -> str:
    """`ContentDigest` of an object, hashed where Arrow has its columns."""
    digest = ContentDigest()
    for batch in table.to_batches():
        offsets, *columns = batch.columns
        digest.add(Streams(_values(offsets, 8), [_pair(column) for column in columns]))
    return digest.hexdigest()


def _pair(column: Any) -> tuple[Buffer, Buffer]:
    lengths = _values(pc.fill_null(pc.binary_length(column), -1), 4)
    _, borders, values = column.buffers()
    if values is None:
        return lengths, b""
    at = memoryview(borders).cast("B").cast("i")
    return lengths, memoryview(values)[at[column.offset] : at[column.offset + len(column)]]


def _values(array: Any, width: int) -> memoryview:
    """The bytes of an array of numbers of which none is absent."""
    return memoryview(array.buffers()[1])[width * array.offset : width * (array.offset + len(array))]
