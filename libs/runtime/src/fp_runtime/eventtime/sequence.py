"""Dense sequences per (source, topic, partition): duplicates and losses are seen at once (dataflow.md §4)."""

from collections.abc import Iterable
from enum import Enum

from fp_contracts.header import NONE_TS

_REMEMBERED_HASHES = 4_096
_MAX_GAP = 1_000_000


class Seen(Enum):
    """What a sequence number means to the one who reads it."""

    NEW = "NEW"
    DUPLICATE = "DUPLICATE"


class LineBroken(Exception):
    """The source broke its promise (order, sequence or bytes): nothing after it can be trusted, the line must stop."""


class HashConflict(LineBroken):
    """A duplicate sequence with another payload hash."""


class OrderBroken(LineBroken):
    """A new record below the frontier of its source: it would be released out of order."""


class SequenceBroken(LineBroken):
    """A sequence that no honest source sends: below 1, or a jump that cannot be a gap."""


class SourceTrack:
    """Sequences and frontier of one source on one input.

    `frontier_us` is the lowest order_ts that may still come. A frontier counts only when every sequence up to its
    `last_seq` is there: one taken over an open gap would release past a record that is still to come.
    """

    __slots__ = ("_hashes", "_order_us", "_promised", "frontier_us", "gaps", "last")

    def __init__(self, last: int = 0, frontier_us: int = NONE_TS, gaps: Iterable[int] = ()) -> None:
        self.last = last
        self.gaps = set(gaps)
        self.frontier_us = frontier_us
        self._order_us = NONE_TS
        self._promised: list[tuple[int, int, int]] = []
        self._hashes: dict[int, tuple[int, bytes]] = {}

    def accept(self, seq: int, payload_hash: bytes, order_us: int) -> Seen:
        """Take note of a record. Raises a LineBroken when the source contradicts itself."""
        if seq == self.last + 1:
            self.last = seq
        elif seq > self.last:
            self._open_gap(seq)
            self.gaps.discard(seq)
        elif seq in self.gaps:
            self.gaps.discard(seq)
        else:
            return self._duplicate(seq, payload_hash)
        if order_us < self.frontier_us:
            raise OrderBroken(f"sequence {seq} at {order_us} is below the frontier {self.frontier_us}")
        self._hashes[seq % _REMEMBERED_HASHES] = seq, payload_hash
        if order_us > self._order_us:
            self._order_us = order_us
        if not self.gaps and self._order_us > self.frontier_us:
            # Within a source order_ts never falls, so a record is itself a frontier at its own order_ts.
            self.frontier_us = self._order_us
        if self._promised:
            self._settle()
        return Seen.NEW

    def promise(self, frontier_us: int, last_seq: int, offset: int = -1) -> None:
        """A frontier declared after sequence `last_seq`, read at `offset`: holds from when all up to it is there."""
        if last_seq > self.last:
            self._open_gap(last_seq)
        if frontier_us <= self.frontier_us:
            return
        if self.gaps:
            self._promised.append((last_seq, frontier_us, offset))
            self._settle()
        else:
            self.frontier_us = frontier_us

    @property
    def contiguous(self) -> int:
        """The highest sequence up to which nothing is missing."""
        return min(self.gaps) - 1 if self.gaps else self.last

    def unsettled_offset(self) -> int | None:
        """The lowest offset of a promise that waits for a gap: a restart must read it again."""
        return min((offset for _, _, offset in self._promised), default=None)

    def _open_gap(self, seq: int) -> None:
        if seq - self.last > _MAX_GAP:
            raise SequenceBroken(f"sequence {seq} after {self.last}")
        self.gaps.update(range(self.last + 1, seq + 1))
        self.last = seq

    def _duplicate(self, seq: int, payload_hash: bytes) -> Seen:
        if seq < 1:
            raise SequenceBroken(f"sequence {seq} on a record that needs one")
        known = self._hashes.get(seq % _REMEMBERED_HASHES)
        if known is not None and known[0] == seq and known[1] != payload_hash:
            raise HashConflict(f"sequence {seq} came with another payload hash")
        return Seen.DUPLICATE

    def _settle(self) -> None:
        there = self.contiguous
        for last_seq, frontier_us, _ in self._promised:
            if last_seq <= there:
                self.frontier_us = max(self.frontier_us, frontier_us)
        self._promised = [promise for promise in self._promised if promise[0] > there]
