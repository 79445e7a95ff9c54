"""Archive objects: records of one topic-partition range as parquet, and the digest of what they say. Pure."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fp_runtime.bus import Record

_FIELDS: list[tuple[str, pa.DataType]] = [
    ("offset", pa.int64()),
    ("key", pa.binary()),
    ("header", pa.binary()),
    ("value", pa.binary()),
    ("traceparent", pa.binary()),
]
SCHEMA = pa.schema(_FIELDS)
_FRAME = struct.Struct(">qiiii")
_HASHED_AT_ONCE = 4_000  # parts

Values = tuple[int, bytes | None, bytes, bytes, bytes | None]
Columns = tuple[Sequence[Any], ...]


class Row(NamedTuple):
    """One record as the archive keeps it."""

    offset: int
    key: bytes | None
    header: bytes
    value: bytes
    traceparent: bytes | None


def row_of(record: Record) -> Row:
    """What the archive keeps of a record: not its broker timestamp, which a replay does not repeat."""
    return Row(record.offset, record.key, record.header, record.value, record.traceparent)


def columns_of(records: Sequence[Record]) -> Columns:
    """The columns of the rows of at least one record, without making the rows."""
    _, _, offsets, keys, values, headers, traces, _ = zip(*records, strict=True)
    return offsets, keys, headers, values, traces


def framed(row: Values) -> bytes:
    """A row as bytes that no other row has: lengths (-1 = absent), then the parts."""
    return b"".join(_parts(*row))


def _parts(offset: int, key: bytes | None, header: bytes, value: bytes, trace: bytes | None) -> tuple[bytes, ...]:
    sizes = _FRAME.pack(
        offset, -1 if key is None else len(key), len(header), len(value), -1 if trace is None else len(trace)
    )  # fmt: skip
    return sizes, key or b"", header, value, trace or b""


def content_digest(rows: Iterable[Values]) -> str:
    """hex64 over the rows in order: what an object says, however it is packed."""
    digest = hashlib.sha256()
    parts: list[bytes] = []
    for row in rows:
        parts += _parts(*row)
        if len(parts) >= _HASHED_AT_ONCE:
            digest.update(b"".join(parts))
            parts.clear()
    digest.update(b"".join(parts))
    return digest.hexdigest()


def to_parquet(rows: Sequence[Row], level: int = 1) -> bytes:
    """`columns_to_parquet` of rows."""
    return columns_to_parquet(tuple(zip(*rows, strict=True)), level)


def columns_to_parquet(columns: Columns, level: int = 1) -> bytes:
    """The object's bytes, of at least one row: equal rows give equal bytes with the same pyarrow and zstd level."""
    arrays = [pa.array(column, kind) for column, (_, kind) in zip(columns, _FIELDS, strict=True)]
    table = pa.table(arrays, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", compression_level=level, use_dictionary=False, write_statistics=False
    )  # fmt: skip
    return sink.getvalue().to_pybytes()


def from_parquet(body: bytes) -> list[Row]:
    """The rows of an object; ValueError when it is no archive object."""
    return [Row._make(values) for values in zip(*columns_from_parquet(body), strict=True)]


def columns_from_parquet(body: bytes) -> Columns:
    """The columns of an object; ValueError when it is no archive object."""
    table = pq.read_table(pa.BufferReader(body))
    if table.schema.names != SCHEMA.names:
        raise ValueError(f"not an archive object: {table.schema.names}")
    return tuple(table.column(name).to_pylist() for name in SCHEMA.names)
