"""The replay basis read back from the archive: objects that tile each range, rows in order of offset."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fp_contracts.canonical import sha256_hex
from fp_contracts.control import EvidenceRef
from fp_contracts.dataset import BasisRange
from fp_contracts.jobrun import InputsRead, inputs_of
from fp_ofs.errors import BASIS, Blocked
from fp_runtime.evidence import EvidenceBroken, EvidenceMissing, EvidenceStore, read

_COLUMNS = ["offset", "header", "value"]
_SUFFIX = ".parquet"


class Row(NamedTuple):
    """One archived record: its offset, packed header and body."""

    offset: int
    header: bytes
    value: bytes


class Piece(NamedTuple):
    """One archive object: the offsets [first, end) it speaks for."""

    first: int
    end: int
    key: str


class ArchiveReader:
    """Reads the basis of one run. `pinned`, when not empty, names every object by hash and size."""

    def __init__(
        self, store: EvidenceStore, run: str, basis: Sequence[BasisRange], pinned: Sequence[EvidenceRef] = ()
    ) -> None:
        self._store = store
        self._run = run
        self.ranges: Mapping[tuple[str, int], BasisRange] = {(part.topic, part.partition): part for part in basis}
        self._pinned = {ref.key: ref for ref in pinned}
        self._read: dict[str, dict[str, tuple[str, int]]] = {}
        self.objects = 0
        self.size = 0

    def pieces(self, topic: str, partition: int) -> list[Piece]:
        """The objects that cover a range, in order; Blocked B12.1 when a range is missing, or they leave a hole."""
        wanted = self.ranges.get((topic, partition))
        if wanted is None:
            raise Blocked(BASIS, f"the replay basis names no range of {topic}/{partition}")
        prefix = f"archive/{self._run}/{topic}/{partition}/"
        found = sorted(_piece(stored.key, prefix) for stored in self._store.list(prefix))
        found = [piece for piece in found if piece.end > wanted.start and piece.first < wanted.end]
        reached = wanted.start
        for piece in found:
            if piece.first > reached or (piece.first < reached and reached != wanted.start):
                raise Blocked(BASIS, f"the archive of {topic}/{partition} breaks at {reached}: next is {piece.first}")
            reached = piece.end
        if reached < wanted.end:
            raise Blocked(BASIS, f"the archive of {topic}/{partition} ends at {reached}, the basis at {wanted.end}")
        return found

    def rows(self, topic: str, partition: int) -> Iterator[Row]:
        """The records of a range in order of offset. Blocked B12.1 for an object that is gone, broken or another."""
        pieces = self.pieces(topic, partition)
        wanted = self.ranges[topic, partition]
        for piece in pieces:
            body = self._body(piece.key)
            self._read.setdefault(topic, {})[piece.key] = (sha256_hex(body), len(body))
            self.objects += 1
            self.size += len(body)
            for row in _rows(piece.key, body):
                if wanted.start <= row.offset < wanted.end:
                    yield row

    def inputs(self) -> dict[str, InputsRead]:
        """What was read so far by topic, each object once."""
        return {topic: inputs_of(found.items()) for topic, found in sorted(self._read.items())}

    def _body(self, key: str) -> bytes:
        try:
            if not self._pinned:
                return self._store.get(key)
            ref = self._pinned.get(key)
            if ref is None:
                raise Blocked(BASIS, f"archive object {key} is not among the pinned ones")
            return read(self._store, ref)
        except (EvidenceMissing, EvidenceBroken) as error:
            raise Blocked(BASIS, f"archive object {key}: {error}") from error


def _piece(key: str, prefix: str) -> Piece:
    first, _, end = key.removeprefix(prefix).removesuffix(_SUFFIX).partition("-")
    if not key.endswith(_SUFFIX) or not first.isdigit() or not end.isdigit():
        raise Blocked(BASIS, f"{key} is no archive object")
    return Piece(int(first), int(end), key)


def _rows(key: str, body: bytes) -> Iterator[Row]:
    try:
        table = pq.ParquetFile(pa.BufferReader(body)).read(columns=_COLUMNS, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise Blocked(BASIS, f"archive object {key} is not readable: {str(error)[:120]}") from error
    if table.schema.names != _COLUMNS:
        raise Blocked(BASIS, f"archive object {key} has columns {table.schema.names}")
    yield from map(Row, *(table.column(name).to_pylist() for name in _COLUMNS))
