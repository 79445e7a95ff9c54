"""What an archive object says: one digest over its records, however they are packed and wherever they are cut. Pure."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Buffer = bytes | memoryview
# Offset, then the columns.
Said = tuple[int, bytes | None, bytes | None, bytes | None, bytes | None]
COLUMNS = ("key", "header", "value", "traceparent")
_AT_ONCE = 256


class Streams(NamedTuple):
    """Records in columns, little-endian: offsets (int64); lengths (int32, -1 = absent) and values of each column."""

    offsets: Buffer
    columns: Sequence[tuple[Buffer, Buffer]]


def streams(offsets: Sequence[int], columns: Iterable[Sequence[bytes | None]]) -> Streams:
    """Records by column as streams."""
    return Streams(struct.pack(f"<{len(offsets)}q", *offsets), [_pair(column) for column in columns])


def _pair(column: Sequence[bytes | None]) -> tuple[bytes, bytes]:
    lengths = [-1 if value is None else len(value) for value in column]
    return struct.pack(f"<{len(lengths)}i", *lengths), b"".join([value for value in column if value])


class ContentDigest:
    """Fed with the records of a range in order of offset, in pieces of any size.

    sha256 over the sha256 of each of the nine streams in their order, each stream of all pieces one after the other:
    so that whole columns are hashed, not record after record.
    """

    def __init__(self) -> None:
        self._offsets = hashlib.sha256()
        self._columns = [(hashlib.sha256(), hashlib.sha256()) for _ in COLUMNS]
        self._waiting: list[Said] = []

    def take(self, record: Said) -> None:
        """One record; it is kept until there are enough to be hashed together."""
        self._waiting.append(record)
        if len(self._waiting) >= _AT_ONCE:
            self._hash_waiting()

    def add(self, more: Streams) -> None:
        """Any number of records."""
        self._hash_waiting()
        self._update(more)

    def hexdigest(self) -> str:
        """hex64 of all records so far."""
        self._hash_waiting()
        found = [self._offsets, *(stream for pair in self._columns for stream in pair)]
        return hashlib.sha256(b"".join([stream.digest() for stream in found])).hexdigest()

    def _hash_waiting(self) -> None:
        if self._waiting:
            offsets, *columns = zip(*self._waiting, strict=True)
            self._update(streams(offsets, columns))
            self._waiting.clear()

    def _update(self, more: Streams) -> None:
        self._offsets.update(more.offsets)
        for (lengths, values), (more_lengths, more_values) in zip(self._columns, more.columns, strict=True):
            lengths.update(more_lengths)
            values.update(more_values)
