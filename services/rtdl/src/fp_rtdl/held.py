"""What the archive holds of a topic-partition, in columns soon after the poll: records are in the cache then. Pure."""

import struct
from bisect import bisect_left
from collections.abc import Sequence

from fp_contracts.archived import Streams
from fp_rtdl.parquet import streams_of
from fp_runtime.bus import Record

PACKED_AT = 64  # fewer cost more each; more have left the cache before they are packed


class Held:
    """Records in order of offset that wait to be written."""

    def __init__(self) -> None:
        self.fresh: list[Record] = []  # what was polled is appended here, then `settle` called
        self._packed: list[Streams] = []
        self._rows = 0
        self._end = 0

    def __len__(self) -> int:
        return self._rows + len(self.fresh)

    @property
    def end(self) -> int:
        """The offset behind the last one held."""
        return self.fresh[-1].offset + 1 if self.fresh else self._end

    def settle(self) -> int:
        """Pack the fresh records if they are enough; how many are held."""
        if len(self.fresh) >= PACKED_AT:
            self._pack()
        return len(self)

    def cut(self, upto: int) -> tuple[int, Streams]:
        """Let go of the records before an offset: their number, and they as one piece, whatever pieces they came in."""
        self._pack()
        said, rows = _joined(self._packed), self._rows
        self._packed.clear()
        if self._end > upto:  # a claim from before a restart ends within what is held
            rows = bisect_left(struct.unpack(f"<{self._rows}q", said.offsets), upto)
            said, rest = _split(said, rows)
            self._packed.append(rest)
        self._rows -= rows
        return rows, said

    def _pack(self) -> None:
        if self.fresh:
            self._end = self.end
            self._packed.append(streams_of(self.fresh))
            self._rows += len(self.fresh)
            self.fresh.clear()


def _joined(pieces: Sequence[Streams]) -> Streams:
    columns = zip(*(piece.columns for piece in pieces), strict=True)
    joined = [(b"".join([pair[0] for pair in pairs]), b"".join([pair[1] for pair in pairs])) for pairs in columns]
    return Streams(b"".join([piece.offsets for piece in pieces]), joined)


def _split(said: Streams, rows: int) -> tuple[Streams, Streams]:
    before, behind = [], []
    for lengths, values in said.columns:
        size = sum(max(length, 0) for length in struct.unpack(f"<{rows}i", lengths[: 4 * rows]))
        before.append((lengths[: 4 * rows], values[:size]))
        behind.append((lengths[4 * rows :], values[size:]))
    return Streams(said.offsets[: 8 * rows], before), Streams(said.offsets[8 * rows :], behind)
